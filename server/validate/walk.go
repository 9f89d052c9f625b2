package validate

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The limits of the walk. They are far above what a kubelet sends and far
// below what hurts.
const (
	// maxString is the kernel's limit for one argument or environment entry
	// (MAX_ARG_STRLEN); names and paths have tighter limits of their own.
	maxString = 128 << 10
	// maxMapEntries bounds labels, annotations, sysctls and the like.
	maxMapEntries = 4096
	// maxMapBytes bounds one map's text; Kubernetes allows 256 KiB of annotations.
	maxMapBytes = 1 << 20
	// maxListEntries is the kernel's limit of supplemental groups (NGROUPS_MAX).
	maxListEntries = 65536
	// maxDepth is more than twice as deep as CRI nests.
	maxDepth = 16
)

// Shape walks the whole message: strings without NUL and of bounded size,
// enums with known numbers, lists and maps of bounded length. Nil passes.
func Shape(m proto.Message) error {
	if m == nil {
		return nil
	}
	r := m.ProtoReflect()
	if !r.IsValid() {
		return nil
	}
	return walk(r, "", maxDepth)
}

func walk(m protoreflect.Message, prefix string, depth int) error {
	if depth == 0 {
		return Bad(strings.TrimSuffix(prefix, "."), "is nested too deep")
	}
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		field := prefix + string(fd.Name())
		switch {
		case fd.IsMap():
			err = walkMap(fd, v.Map(), field, depth)
		case fd.IsList():
			err = walkList(fd, v.List(), field, depth)
		default:
			err = walkValue(fd, v, field, depth)
		}
		return err == nil
	})
	return err
}

func walkList(fd protoreflect.FieldDescriptor, l protoreflect.List, field string, depth int) error {
	if l.Len() > maxListEntries {
		return Bad(field, "has more than %d entries", maxListEntries)
	}
	if !interesting(fd.Kind()) {
		return nil
	}
	for i := range l.Len() {
		if err := walkValue(fd, l.Get(i), field+"["+strconv.Itoa(i)+"]", depth); err != nil {
			return err
		}
	}
	return nil
}

func walkMap(fd protoreflect.FieldDescriptor, m protoreflect.Map, field string, depth int) error {
	if m.Len() > maxMapEntries {
		return Bad(field, "has more than %d entries", maxMapEntries)
	}
	var err error
	total := 0
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if fd.MapKey().Kind() == protoreflect.StringKind {
			total += len(k.String())
			if err = str(field+" (a key)", k.String(), maxString); err != nil {
				return false
			}
		}
		if fd.MapValue().Kind() == protoreflect.StringKind {
			total += len(v.String())
			// One annotation may be as large as all of them together.
			err = str(field+" (a value)", v.String(), maxMapBytes)
		} else {
			err = walkValue(fd.MapValue(), v, field, depth)
		}
		if err == nil && total > maxMapBytes {
			err = Bad(field, "has more than %d bytes in total", maxMapBytes)
		}
		return err == nil
	})
	return err
}

func walkValue(fd protoreflect.FieldDescriptor, v protoreflect.Value, field string, depth int) error {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return str(field, v.String(), maxString)
	case protoreflect.BytesKind:
		if len(v.Bytes()) > maxString {
			return Bad(field, "is longer than %d bytes", maxString)
		}
	case protoreflect.EnumKind:
		if fd.Enum().Values().ByNumber(v.Enum()) == nil {
			return Bad(field, "has the unknown value %d", v.Enum())
		}
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return walk(v.Message(), field+".", depth-1)
	default: // a number says nothing by itself
	}
	return nil
}

func interesting(k protoreflect.Kind) bool {
	switch k {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind, protoreflect.MessageKind, protoreflect.GroupKind:
		return true
	default:
		return false
	}
}

func str(field, s string, most int) error {
	if len(s) > most {
		return Bad(field, "is longer than %d bytes", most)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return Bad(field, "contains a NUL byte")
	}
	return nil
}
