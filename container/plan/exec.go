package plan

import (
	"slices"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecProcess returns the process that runs cmd in the container of spec: same
// user, groups, environment, directory, capabilities, labels and limits as the
// container's own, other arguments. With tty it has a terminal, and TERM unless
// the container's environment sets it. The spec is not touched, and shares
// nothing with the answer that a caller could change by accident.
func ExecProcess(spec *oci.Spec, cmd []string, tty bool) *oci.Process {
	if spec == nil || spec.Process == nil {
		return &oci.Process{Args: slices.Clone(cmd), Cwd: "/", Terminal: tty}
	}
	p := *spec.Process
	p.Args = slices.Clone(cmd)
	p.CommandLine = ""
	p.Terminal = tty
	p.ConsoleSize = nil
	p.Env = slices.Clone(p.Env)
	p.Rlimits = slices.Clone(p.Rlimits)
	p.User.AdditionalGids = slices.Clone(p.User.AdditionalGids)
	if c := p.Capabilities; c != nil {
		p.Capabilities = &oci.LinuxCapabilities{
			Bounding:    slices.Clone(c.Bounding),
			Effective:   slices.Clone(c.Effective),
			Inheritable: slices.Clone(c.Inheritable),
			Permitted:   slices.Clone(c.Permitted),
			Ambient:     slices.Clone(c.Ambient),
		}
	}
	if tty && !slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		p.Env = append(p.Env, "TERM=xterm")
	}
	return &p
}
