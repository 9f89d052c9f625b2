package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/crid-project/crid/container/plan"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGoldenSpecs(t *testing.T) {
	for name, world := range map[string]func() (*runtime.ContainerConfig, *runtime.PodSandboxConfig, plan.Facts){
		"small": func() (*runtime.ContainerConfig, *runtime.PodSandboxConfig, plan.Facts) {
			return small(), pod(), facts()
		},
		"full": func() (*runtime.ContainerConfig, *runtime.PodSandboxConfig, plan.Facts) {
			c, p := full()
			return c, p, fullFacts()
		},
		"privileged": func() (*runtime.ContainerConfig, *runtime.PodSandboxConfig, plan.Facts) {
			c, p, f := small(), pod(), facts()
			c.Linux.SecurityContext.Privileged, p.Linux.SecurityContext.Privileged = true, true
			return c, p, f
		},
		"host": func() (*runtime.ContainerConfig, *runtime.PodSandboxConfig, plan.Facts) {
			c, p, f := small(), pod(), facts()
			node := &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE, Pid: runtime.NamespaceMode_NODE, Ipc: runtime.NamespaceMode_NODE}
			c.Linux.SecurityContext.NamespaceOptions, p.Linux.SecurityContext.NamespaceOptions = node, node
			f.NetNS, f.IPCNS, f.UTSNS, f.ShmDir, f.Kernel.CgroupV2 = "", "", "", "", false
			return c, p, f
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, p, f := world()
			got, err := json.MarshalIndent(build(t, c, p, options(), f), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			if *update {
				if err := os.WriteFile(golden(name), got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden(name))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the spec differs from %s (go test -update writes it anew):\n%s", golden(name), got)
			}
		})
	}
}
