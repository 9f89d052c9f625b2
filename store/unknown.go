package store

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// fields are the keys of a JSON object that this crid does not know. A newer
// one of the same format version wrote them; they are written back as they were
// read, so that going back and forth between two versions loses nothing.
type fields map[string]json.RawMessage

// unknown are the keys of a record that this crid does not know: beside the
// record, and in it.
type unknown struct{ beside, inside fields }

// unknownFields answers the keys of an object for which T has no field; nil if
// there are none.
func unknownFields[T any](object []byte) (fields, error) {
	var all fields
	if err := json.Unmarshal(object, &all); err != nil {
		return nil, err
	}
	t := reflect.TypeFor[T]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		maps.DeleteFunc(all, func(k string, _ json.RawMessage) bool {
			return strings.EqualFold(k, name) // as encoding/json matches them
		})
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

// appendTo adds the keys to an encoded object.
func (f fields) appendTo(object []byte) ([]byte, error) {
	if len(f) == 0 {
		return object, nil
	}
	out := bytes.NewBuffer(bytes.TrimSuffix(object, []byte("}")))
	for _, k := range slices.Sorted(maps.Keys(f)) {
		key, err := json.Marshal(k)
		if err != nil {
			return nil, err
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		out.Write(key)
		out.WriteByte(':')
		out.Write(f[k])
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}
