package confine

import (
	"math"

	"github.com/crid-project/crid/container/spec/field"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// MaxID is the largest user or group id that may be asked for. Kubernetes has
// the same bound; ids above it turn negative in programs that keep them in an
// int, and wrapped to 0 in runtimes (CVE-2024-40635).
const MaxID = math.MaxInt32

// MaxGroups is the kernel's NGROUPS_MAX.
const MaxGroups = 65536

// ID checks an optional user or group id.
func ID(name string, v *runtime.Int64Value) (*int64, error) {
	if v == nil {
		return nil, nil
	}
	id := v.GetValue()
	if id < 0 || id > MaxID {
		return nil, field.Invalid(name, "must be from 0 to %d, got %d", MaxID, id)
	}
	return &id, nil
}

// Groups checks supplemental groups.
func Groups(name string, groups []int64) ([]int64, error) {
	if len(groups) > MaxGroups {
		return nil, field.Invalid(name, "has %d entries, the kernel takes %d", len(groups), MaxGroups)
	}
	for i, g := range groups {
		if g < 0 || g > MaxID {
			return nil, field.Invalid(field.At(name, i), "must be from 0 to %d, got %d", MaxID, g)
		}
	}
	return append([]int64(nil), groups...), nil
}

// UserNamespace reads userns_options: nil mappings for the node's user
// namespace, else exactly one mapping of users and one of groups, which map
// the container's root, as the kubelet sends them.
func UserNamespace(name string, in *runtime.UserNamespace) (uids, gids []oci.LinuxIDMapping, err error) {
	if in == nil {
		return nil, nil, nil
	}
	switch in.GetMode() {
	case runtime.NamespaceMode_NODE:
		if len(in.GetUids())+len(in.GetGids()) > 0 {
			return nil, nil, field.Invalid(name, "mode NODE takes no mappings, got %d", len(in.GetUids())+len(in.GetGids()))
		}
		return nil, nil, nil
	case runtime.NamespaceMode_POD:
	default:
		return nil, nil, field.Invalid(name+".mode", "must be POD or NODE, got %s", in.GetMode())
	}
	if uids, err = IDMappings(name+".uids", in.GetUids()); err != nil {
		return nil, nil, err
	}
	if gids, err = IDMappings(name+".gids", in.GetGids()); err != nil {
		return nil, nil, err
	}
	return uids, gids, nil
}

// IDMappings reads the single mapping that is supported. Container id 0 must
// be mapped: a runtime cannot set a container up as a root that does not exist.
func IDMappings(name string, in []*runtime.IDMapping) ([]oci.LinuxIDMapping, error) {
	if len(in) != 1 {
		return nil, field.Invalid(name, "exactly one mapping is supported, got %d", len(in))
	}
	m := in[0]
	switch {
	case m.GetLength() == 0:
		return nil, field.Invalid(field.At(name, 0)+".length", "must not be 0")
	case m.GetContainerId() != 0:
		return nil, field.Invalid(field.At(name, 0)+".container_id", "must be 0, so that the container has a root, got %d", m.GetContainerId())
	case uint64(m.GetHostId())+uint64(m.GetLength()) > math.MaxUint32:
		return nil, field.Invalid(field.At(name, 0), "ends beyond the last id: host_id %d, length %d", m.GetHostId(), m.GetLength())
	}
	return []oci.LinuxIDMapping{{ContainerID: 0, HostID: m.GetHostId(), Size: m.GetLength()}}, nil
}
