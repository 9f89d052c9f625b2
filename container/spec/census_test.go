package spec

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/crid-project/crid/container/spec/census"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// used marks a field that must make a difference: to the plan, the spec, or by
// being refused.
const used = "used"

// fields decides about every field of ContainerConfig. A new cri-api that adds
// one fails the test until somebody decides.
var fields = map[string]string{
	"metadata.name":              used,
	"metadata.attempt":           "identifies the container in the ledger; no meaning for the spec",
	"image.image":                used,
	"image.annotations":          "for pulling",
	"image.user_specified_image": "for the status",
	"image.runtime_handler":      "for pulling",
	"image.image_ref":            "for image volumes' status",
	"command":                    used,
	"args":                       used,
	"working_dir":                used,
	"envs.key":                   used,
	"envs.value":                 used,

	"mounts.container_path":             used,
	"mounts.host_path":                  used,
	"mounts.readonly":                   used,
	"mounts.selinux_relabel":            used,
	"mounts.propagation":                used,
	"mounts.uidMappings.host_id":        used,
	"mounts.uidMappings.container_id":   used,
	"mounts.uidMappings.length":         used,
	"mounts.gidMappings.host_id":        used,
	"mounts.gidMappings.container_id":   used,
	"mounts.gidMappings.length":         used,
	"mounts.recursive_read_only":        used,
	"mounts.image.image":                used,
	"mounts.image.annotations":          "for pulling",
	"mounts.image.user_specified_image": "for the status",
	"mounts.image.runtime_handler":      "for pulling",
	"mounts.image.image_ref":            "for the status: what the kubelet asked to pull is in image",
	"mounts.image_sub_path":             used,
	"mounts.mount_options":              used,

	"devices.container_path": used,
	"devices.host_path":      used,
	"devices.permissions":    used,
	"labels":                 "kept sealed for status and filters; never in a spec",
	"annotations":            used,
	"log_path":               used,
	"stdin":                  used,
	"stdin_once":             used,
	"tty":                    used,
	"windows":                "crid runs Linux containers",
	"CDI_devices.name":       used,
	"stop_signal":            used,

	"linux.resources.cpu_period":                 used,
	"linux.resources.cpu_quota":                  used,
	"linux.resources.cpu_shares":                 used,
	"linux.resources.memory_limit_in_bytes":      used,
	"linux.resources.oom_score_adj":              used,
	"linux.resources.cpuset_cpus":                used,
	"linux.resources.cpuset_mems":                used,
	"linux.resources.hugepage_limits.page_size":  used,
	"linux.resources.hugepage_limits.limit":      used,
	"linux.resources.unified":                    used,
	"linux.resources.memory_swap_limit_in_bytes": used,

	"linux.security_context.capabilities.add_capabilities":                      used,
	"linux.security_context.capabilities.drop_capabilities":                     used,
	"linux.security_context.capabilities.add_ambient_capabilities":              used,
	"linux.security_context.privileged":                                         used,
	"linux.security_context.namespace_options.network":                          used,
	"linux.security_context.namespace_options.pid":                              used,
	"linux.security_context.namespace_options.ipc":                              used,
	"linux.security_context.namespace_options.target_id":                        used,
	"linux.security_context.namespace_options.userns_options.mode":              used,
	"linux.security_context.namespace_options.userns_options.uids.host_id":      used,
	"linux.security_context.namespace_options.userns_options.uids.container_id": used,
	"linux.security_context.namespace_options.userns_options.uids.length":       used,
	"linux.security_context.namespace_options.userns_options.gids.host_id":      used,
	"linux.security_context.namespace_options.userns_options.gids.container_id": used,
	"linux.security_context.namespace_options.userns_options.gids.length":       used,
	"linux.security_context.selinux_options.user":                               used,
	"linux.security_context.selinux_options.role":                               used,
	"linux.security_context.selinux_options.type":                               used,
	"linux.security_context.selinux_options.level":                              used,
	"linux.security_context.run_as_user.value":                                  used,
	"linux.security_context.run_as_group.value":                                 used,
	"linux.security_context.run_as_username":                                    used,
	"linux.security_context.readonly_rootfs":                                    used,
	"linux.security_context.supplemental_groups":                                used,
	"linux.security_context.supplemental_groups_policy":                         used,
	"linux.security_context.no_new_privs":                                       used,
	"linux.security_context.masked_paths":                                       used,
	"linux.security_context.readonly_paths":                                     used,
	"linux.security_context.seccomp.profile_type":                               used,
	"linux.security_context.seccomp.localhost_ref":                              used,
	"linux.security_context.apparmor.profile_type":                              used,
	"linux.security_context.apparmor.localhost_ref":                             used,
	"linux.security_context.apparmor_profile":                                   used, // deprecated: where apparmor is not set
	"linux.security_context.seccomp_profile_path":                               used, // deprecated: where seccomp is not set
}

func TestCensus(t *testing.T) {
	o := options()
	o.Kernel.AppArmor, o.Kernel.SELinux = true, true
	o.AppArmor.Default = func() (string, error) { return "crid-default", nil }
	o.SELinux = func(options []string) (string, string, error) { return strings.Join(options, ","), "m", nil }
	f := fullFacts()
	f.Kernel = o.Kernel
	outcome := func(c *runtime.ContainerConfig, p *runtime.PodSandboxConfig) string {
		pl, err := New(c, p, o)
		if err != nil {
			return err.Error()
		}
		s, err := pl.Spec(f)
		if err != nil {
			return err.Error()
		}
		raw, err := json.Marshal([]any{pl, s})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	seen := map[string]bool{}
	for _, path := range census.Leaves((&runtime.ContainerConfig{}).ProtoReflect().Descriptor(), fields) {
		seen[path] = true
		decision, ok := fields[path]
		if !ok {
			t.Errorf("ContainerConfig.%s: cri-api has a field that nobody has decided about: use it, or say in fields why not", path)
			continue
		}
		c, p := full()
		switch path { // these are looked at only where the newer field is unset
		case "linux.security_context.apparmor_profile":
			c.Linux.SecurityContext.Apparmor = nil
		case "linux.security_context.seccomp_profile_path":
			c.Linux.SecurityContext.Seccomp = nil
		}
		before := outcome(c, p)
		if strings.Contains(before, "invalid argument") {
			t.Fatalf("the full configuration is refused: %s", before)
		}
		census.Change(c.ProtoReflect(), path)
		if differs := outcome(c, p) != before; differs != (decision == used) {
			t.Errorf("ContainerConfig.%s is decided as %q, but a change of it makes a difference: %v", path, decision, differs)
		}
	}
	for path := range fields {
		if !seen[path] {
			t.Errorf("ContainerConfig.%s: in the census, but not in cri-api", path)
		}
	}
}

func TestSealedConfigsComeBackWhole(t *testing.T) {
	c, _ := full()
	raw, err := Seal(c).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Open(raw)
	if err != nil || !proto.Equal(back.CRI(), c) {
		t.Errorf("got %v, %v", back.CRI(), err)
	}
	if _, err := Open([]byte{0xff}); err == nil {
		t.Error("opened garbage")
	}
	sealed := Seal(c)
	c.WorkingDir = "/changed"
	if sealed.CRI().GetWorkingDir() == "/changed" {
		t.Error("a sealed config changed with the original")
	}
}
