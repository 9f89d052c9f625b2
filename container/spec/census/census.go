// Package census walks CRI messages for the tests which require that every
// field is used or ignored for a stated reason.
//
// It owns the walk. It refuses to know what is done with a field. Only tests
// import it.
package census

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Leaves lists the fields of a message, nested ones by their path
// ("mounts.host_path"); a message that is decided about as a whole is not
// entered.
func Leaves(d protoreflect.MessageDescriptor, decided map[string]string) []string {
	return leaves(d, "", decided)
}

func leaves(d protoreflect.MessageDescriptor, prefix string, decided map[string]string) []string {
	var out []string
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		path := prefix + string(f.Name())
		if _, whole := decided[path]; f.Message() != nil && !f.IsMap() && !whole {
			out = append(out, leaves(f.Message(), path+".", decided)...)
			continue
		}
		out = append(out, path)
	}
	return out
}

// Change gives the field at path another value; inside a list in the first
// element that has the field, or else in the first.
func Change(m protoreflect.Message, path string) { change(m, strings.Split(path, ".")) }

func change(m protoreflect.Message, path []string) {
	f := m.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	switch {
	case f.IsMap():
		m.Mutable(f).Map().Set(protoreflect.ValueOfString("census.io/new").MapKey(), protoreflect.ValueOfString("x"))
	case f.IsList() && f.Message() != nil:
		l := m.Mutable(f).List()
		if l.Len() == 0 {
			l.AppendMutable()
		}
		at := 0 // the element that has it, if one does
		for i := range l.Len() {
			if e := l.Get(i).Message(); e.Has(e.Descriptor().Fields().ByName(protoreflect.Name(path[1]))) {
				at = i
				break
			}
		}
		change(l.Get(at).Message(), path[1:])
	case f.IsList():
		m.Mutable(f).List().Append(other(f, protoreflect.Value{}))
	case f.Message() != nil:
		if len(path) == 1 {
			m.Mutable(f)
			return
		}
		change(m.Mutable(f).Message(), path[1:])
	default:
		m.Set(f, other(f, m.Get(f)))
	}
}

func other(f protoreflect.FieldDescriptor, old protoreflect.Value) protoreflect.Value {
	switch f.Kind() { //nolint:exhaustive // CRI uses no other kinds; a new one panics below
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!old.Bool())
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1 - min(old.Enum(), 1))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("census")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("census"))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(7)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(2012)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(7)
	}
	panic("census: field kind " + f.Kind().String() + " is new")
}
