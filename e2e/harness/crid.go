package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crid-project/crid/e2e/project"
)

// Crid is the runtime of this project, from bin/.
type Crid struct {
	Level   string   // of the log; default debug
	Config  string   // TOML to append: further tables
	Args    []string // further arguments
	Crun    string   // path of a crun; adds a handler "crun"
	Cgroup  string   // cgroup driver; default cgroupfs
	Metrics string   // address to serve metrics on; default none
	Plugins string   // folder of CNI plugins to look into before bin/cni
	Runc    string   // path of a program that stands in for runc; default bin/runc
}

// Name is "crid".
func (Crid) Name() string { return "crid" }

// Prepare writes config.toml.
func (c Crid) Prepare(h *Home) (string, []string, error) {
	program, err := project.Bin("crid")
	if err != nil {
		return "", nil, err
	}
	bin := filepath.Dir(program)
	level, driver := c.Level, c.Cgroup
	if level == "" {
		level = "debug"
	}
	parent := h.Cgroup
	if driver == "" {
		driver = "cgroupfs"
		if h.Systemd {
			driver, parent = "systemd", filepath.Base(h.Cgroup)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version = 1\nroot = %q\nstate = %q\naddress = %q\n", h.Root(), h.State(), h.Socket())
	fmt.Fprintf(&b, "default_runtime = \"runc\"\ncgroup_driver = %q\ncgroup_parent = %q\nrestrict_oom_score_adj = \"auto\"\n", driver, parent)
	plugins := fmt.Sprintf("%q", filepath.Join(bin, "cni"))
	if c.Plugins != "" {
		plugins = fmt.Sprintf("%q, ", c.Plugins) + plugins
	}
	fmt.Fprintf(&b, "[cni]\nconf_dir = %q\nbin_dirs = [%s]\n", h.CNIConf(), plugins)
	fmt.Fprintf(&b, "[registry]\ncerts_dirs = [%q]\n", h.Certs())
	fmt.Fprintf(&b, "[streaming]\naddress = \"127.0.0.1:0\"\n[metrics]\naddress = %q\n[log]\nlevel = %q\nformat = \"text\"\n", c.Metrics, level)
	runc := c.Runc
	if runc == "" {
		runc = filepath.Join(bin, "runc")
	}
	b.WriteString(runtimeTable("runc", bin, runc, driver == "systemd"))
	if c.Crun != "" {
		b.WriteString(runtimeTable("crun", bin, c.Crun, driver == "systemd"))
	}
	b.WriteString(c.Config)
	if err := os.WriteFile(h.Config(), []byte(b.String()), 0o644); err != nil {
		return "", nil, err
	}
	args := []string{"--config", h.Config(), "--root", h.Root(), "--state", h.State(), "--address", h.Socket()}
	return program, append(args, c.Args...), nil
}

func runtimeTable(name, bin, program string, systemd bool) string {
	return fmt.Sprintf("[runtimes.%s]\ntype = \"io.containerd.runc.v2\"\npath = %q\noptions = { BinaryName = %q, SystemdCgroup = %v }\n",
		name, filepath.Join(bin, "containerd-shim-runc-v2"), program, systemd)
}
