package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/crid-project/crid/sandbox/plan"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGoldenPlansAndPauseSpecs(t *testing.T) {
	for name, world := range map[string]func() (*runtime.PodSandboxConfig, plan.Facts){
		"small": func() (*runtime.PodSandboxConfig, plan.Facts) { return small(), facts() },
		"full": func() (*runtime.PodSandboxConfig, plan.Facts) {
			f := facts()
			f.UserNS = "/run/crid/pods/p1/ns/user"
			return full(), f
		},
		"host": func() (*runtime.PodSandboxConfig, plan.Facts) {
			c := small()
			c.Linux = &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{
				Network: runtime.NamespaceMode_NODE, Ipc: runtime.NamespaceMode_NODE, Pid: runtime.NamespaceMode_NODE,
			}}}
			f := facts()
			f.NetNS, f.IPCNS, f.UTSNS, f.CgroupV2 = "", "", "", false
			return c, f
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, f := world()
			p, err := New(c, options())
			if err != nil {
				t.Fatal(err)
			}
			s, err := p.PauseSpec(f)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(map[string]any{"plan": p, "pause": s}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s (go test -update writes it anew):\n%s", file, got)
			}
		})
	}
}
