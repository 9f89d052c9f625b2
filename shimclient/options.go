package shimclient

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// options gives the runtime's options the form that its shim reads: the runc
// shim has a message of its own, every other one gets the generic message with
// a path or the whole section as TOML. Nil means that there are none.
func (r Runtime) options() (*anypb.Any, error) {
	if len(r.Options) == 0 {
		return nil, nil
	}
	var msg proto.Message
	var err error
	if strings.HasPrefix(r.Type, "io.containerd.runc.") {
		msg, err = runcOptions(r.Options)
	} else {
		msg, err = genericOptions(r.Options)
	}
	if err != nil {
		return nil, fmt.Errorf("read options of runtime %q: %w", r.Name, err)
	}
	return packAny(msg)
}

// packAny names the type as containerd's typeurl does: without a host.
func packAny(msg proto.Message) (*anypb.Any, error) {
	b, err := proto.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", msg, err)
	}
	return &anypb.Any{TypeUrl: string(msg.ProtoReflect().Descriptor().FullName()), Value: b}, nil
}

func runcOptions(given map[string]any) (proto.Message, error) {
	var o runcoptions.Options
	fields := map[string]any{
		"NoPivotRoot":   &o.NoPivotRoot,
		"NoNewKeyring":  &o.NoNewKeyring,
		"ShimCgroup":    &o.ShimCgroup,
		"IoUid":         &o.IoUid,
		"IoGid":         &o.IoGid,
		"BinaryName":    &o.BinaryName,
		"Root":          &o.Root,
		"SystemdCgroup": &o.SystemdCgroup,
		"CriuImagePath": &o.CriuImagePath,
		"CriuWorkPath":  &o.CriuWorkPath,
	}
	return &o, assign(fields, given)
}

func genericOptions(given map[string]any) (proto.Message, error) {
	var o runtimeoptions.Options
	var body string
	fields := map[string]any{"TypeUrl": &o.TypeUrl, "ConfigPath": &o.ConfigPath, "ConfigBody": &body}
	known := make(map[string]any)
	for key, value := range given {
		if lookup(fields, key) != nil {
			known[key] = value
		}
	}
	if err := assign(fields, known); err != nil {
		return nil, err
	}
	o.ConfigBody = []byte(body)
	if o.ConfigPath == "" && body == "" {
		section, err := toml.Marshal(given)
		if err != nil {
			return nil, fmt.Errorf("write options as TOML: %w", err)
		}
		o.ConfigBody = section
	} else if len(known) != len(given) {
		// With a file of its own the shim reads no section of ours.
		for key := range given {
			if lookup(fields, key) == nil {
				return nil, unknownOption(key, fields)
			}
		}
	}
	return &o, nil
}

// assign sets the fields that given names. Case and underscores do not count:
// binary_name is BinaryName.
func assign(fields, given map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(given)) {
		field := lookup(fields, key)
		if field == nil {
			return unknownOption(key, fields)
		}
		if !set(field, given[key]) {
			return fmt.Errorf("option %s: value %v (%T) does not fit: %w", key, given[key], given[key], errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func lookup(fields map[string]any, key string) any {
	for name, field := range fields {
		if strings.EqualFold(name, strings.ReplaceAll(key, "_", "")) {
			return field
		}
	}
	return nil
}

func unknownOption(key string, fields map[string]any) error {
	return fmt.Errorf("option %q is not known; known are %s: %w",
		key, strings.Join(slices.Sorted(maps.Keys(fields)), ", "), errdefs.ErrInvalidArgument)
}

func set(field, value any) bool {
	switch f := field.(type) {
	case *string:
		v, ok := value.(string)
		*f = v
		return ok
	case *bool:
		v, ok := value.(bool)
		*f = v
		return ok
	case *uint32:
		n, ok := number(value)
		*f = uint32(n)
		return ok && n >= 0 && n <= 1<<32-1
	}
	return false
}

// number takes what TOML (int64), JSON (float64) and Go code (int) make of one.
func number(value any) (int64, bool) {
	switch v := value.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case uint32:
		return int64(v), true
	case float64:
		return int64(v), v == float64(int64(v))
	}
	return 0, false
}
