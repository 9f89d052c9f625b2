package config

import (
	"os"
	"os/exec"
	"path/filepath"
)

// known are handlers offered where no file names any, if their programs are
// installed.
var known = map[string]struct {
	programs []string
	runtime  Runtime
}{
	"crun": {[]string{"crun"}, Runtime{
		Type: RuncType, Sandbox: SandboxPinned,
		Options: map[string]any{"BinaryName": "crun", "Root": "", "SystemdCgroup": false},
	}},
	"kata":  {[]string{"containerd-shim-kata-v2"}, Runtime{Type: "io.containerd.kata.v2", Sandbox: SandboxPause}},
	"runsc": {[]string{"runsc", "containerd-shim-runsc-v1"}, Runtime{Type: "io.containerd.runsc.v1", Sandbox: SandboxPause}},
}

// offer adds the known handlers whose programs are there.
func (c *Config) offer() {
	for name, k := range known {
		if _, taken := c.Runtimes[name]; taken {
			continue
		}
		there := true
		for _, p := range k.programs {
			if _, err := c.FindProgram(p); err != nil {
				there = false
			}
		}
		if there {
			c.Runtimes[name] = k.runtime
		}
	}
}

// SearchPaths are the directories where shims and runtimes are looked for
// before $PATH: those configured, then the one crid itself lies in.
func (c *Config) SearchPaths() []string {
	out := append([]string(nil), c.RuntimeSearchPaths...)
	if self, err := os.Executable(); err == nil {
		out = append(out, filepath.Dir(self))
	}
	return out
}

// FindProgram answers the absolute path of a shim or runtime: an absolute name
// is checked, any other is looked for in SearchPaths and then in $PATH.
func (c *Config) FindProgram(name string) (string, error) {
	if !filepath.IsAbs(name) {
		for _, dir := range c.SearchPaths() {
			p := filepath.Join(dir, name)
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(p)
}
