package spec

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/crid-project/crid/container/spec/census"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// used marks a field that must make a difference: to the plan, the pause spec,
// or by being refused.
const used = "used"

// fields decides about every field of PodSandboxConfig. A new cri-api that adds
// one fails the test until somebody decides.
var fields = map[string]string{
	"metadata.name":                used,
	"metadata.uid":                 used,
	"metadata.namespace":           used,
	"metadata.attempt":             used,
	"hostname":                     used,
	"log_directory":                used,
	"dns_config.servers":           used,
	"dns_config.searches":          used,
	"dns_config.options":           used,
	"port_mappings.protocol":       used,
	"port_mappings.container_port": used,
	"port_mappings.host_port":      used,
	"port_mappings.host_ip":        used,
	"labels":                       "kept sealed for status and filters; never in a spec",
	"annotations":                  used,
	"windows":                      "crid runs Linux containers",
	"linux.cgroup_parent":          used,
	"linux.sysctls":                used,

	"linux.overhead.cpu_period":                  used,
	"linux.overhead.cpu_quota":                   used,
	"linux.overhead.cpu_shares":                  used,
	"linux.overhead.memory_limit_in_bytes":       used,
	"linux.overhead.oom_score_adj":               used, // checked, and nothing to give it to
	"linux.overhead.cpuset_cpus":                 used,
	"linux.overhead.cpuset_mems":                 used,
	"linux.overhead.hugepage_limits.page_size":   used,
	"linux.overhead.hugepage_limits.limit":       used,
	"linux.overhead.unified":                     used,
	"linux.overhead.memory_swap_limit_in_bytes":  used,
	"linux.resources.cpu_period":                 used,
	"linux.resources.cpu_quota":                  used,
	"linux.resources.cpu_shares":                 used,
	"linux.resources.memory_limit_in_bytes":      used,
	"linux.resources.oom_score_adj":              used, // checked, and nothing to give it to
	"linux.resources.cpuset_cpus":                used,
	"linux.resources.cpuset_mems":                used,
	"linux.resources.hugepage_limits.page_size":  used,
	"linux.resources.hugepage_limits.limit":      used,
	"linux.resources.unified":                    used,
	"linux.resources.memory_swap_limit_in_bytes": used,

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
	"linux.security_context.readonly_rootfs":                                    "a sandbox's root is always read-only",
	"linux.security_context.supplemental_groups":                                used,
	"linux.security_context.supplemental_groups_policy":                         "the pause image has no groups to merge; an unknown policy is refused",
	"linux.security_context.privileged":                                         used,
	"linux.security_context.seccomp.profile_type":                               used,
	"linux.security_context.seccomp.localhost_ref":                              used,
	"linux.security_context.apparmor.profile_type":                              used,
	"linux.security_context.apparmor.localhost_ref":                             used,
	"linux.security_context.seccomp_profile_path":                               used, // deprecated: where seccomp is not set
}

func TestCensus(t *testing.T) {
	o := options()
	o.Kernel.AppArmor, o.Kernel.SELinux = true, true
	o.AppArmor.Default = func() (string, error) { return "crid-default", nil }
	o.SELinux = func(options []string) (string, string, error) { return strings.Join(options, ","), "m", nil }
	outcome := func(c *runtime.PodSandboxConfig) string {
		p, err := New(c, o)
		if err != nil {
			return err.Error()
		}
		s, err := p.PauseSpec(facts())
		if err != nil {
			return err.Error()
		}
		raw, err := json.Marshal([]any{p, s})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	seen := map[string]bool{}
	for _, path := range census.Leaves((&runtime.PodSandboxConfig{}).ProtoReflect().Descriptor(), fields) {
		seen[path] = true
		decision, ok := fields[path]
		if !ok {
			t.Errorf("PodSandboxConfig.%s: cri-api has a field that nobody has decided about: use it, or say in fields why not", path)
			continue
		}
		c := full()
		if path == "linux.security_context.seccomp_profile_path" {
			c.Linux.SecurityContext.Seccomp = nil
		}
		before := outcome(c)
		if strings.Contains(before, "invalid argument") {
			t.Fatalf("the full configuration is refused: %s", before)
		}
		census.Change(c.ProtoReflect(), path)
		if differs := outcome(c) != before; differs != (decision == used) {
			t.Errorf("PodSandboxConfig.%s is decided as %q, but a change of it makes a difference: %v", path, decision, differs)
		}
	}
	for path := range fields {
		if !seen[path] {
			t.Errorf("PodSandboxConfig.%s: decided about, but not in cri-api", path)
		}
	}
}

func TestSealedConfigsComeBackWhole(t *testing.T) {
	c := full()
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
}
