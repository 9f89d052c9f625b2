//go:build e2e

// Package confine tests what holds a container in: users, rights, system calls, devices, mounts and user namespaces.
package confine

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) { story.Main(m) }

// with is a sleeping container whose security context is changed.
func with(name string, change func(*runtimeapi.LinuxContainerSecurityContext)) *runtimeapi.ContainerConfig {
	c := story.Sleeper(name)
	change(c.Linux.SecurityContext)
	return c
}

// refuses fails the test if the container can be created and started; the error must name a part of the configuration.
func refuses(p *story.Pod, what string, config *runtimeapi.ContainerConfig, names string) {
	p.T.Helper()
	id, err := p.Create(p.T.Context(), p.ID, config, p.Config)
	if err == nil {
		err = p.StartContainer(p.T.Context(), id)
		if e := p.RemoveContainer(p.T.Context(), id); e != nil {
			p.T.Error(e)
		}
	}
	if err == nil {
		p.T.Errorf("%s: it runs", what)
	} else if !strings.Contains(err.Error(), names) {
		p.T.Errorf("%s: the error does not name %q: %v", what, names, err)
	}
}

func id64(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
