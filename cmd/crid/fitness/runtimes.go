package fitness

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crid-project/crid/config"
)

// versionText finds the first version in a program's words.
var versionText = regexp.MustCompile(`\d+\.\d+(\.\d+)?(-rc\.?\d+)?`)

// parseVersion reads "1.4.0-rc.3" as 1, 4, 0, 3; without rc the last is large.
func parseVersion(s string) (v [4]int) {
	v[3] = 1 << 30
	m := versionText.FindString(s)
	base, rc, isRC := strings.Cut(m, "-rc")
	for i, part := range strings.SplitN(base, ".", 3) {
		v[i], _ = strconv.Atoi(part)
	}
	if isRC {
		v[3], _ = strconv.Atoi(strings.TrimPrefix(rc, "."))
	}
	return v
}

// below compares versions part by part.
func below(a, b [4]int) bool { return slices.Compare(a[:], b[:]) < 0 }

// Version asks a program for its version: the first one in what it prints.
func Version(ctx context.Context, path string, args ...string) (string, error) {
	text, err := output(ctx, path, nil, args...)
	if v := versionText.FindString(text); v != "" {
		return v, nil
	}
	return "", err
}

// output runs a program for at most five seconds and keeps the beginning of
// what it prints.
func output(ctx context.Context, path string, env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	var b bytes.Buffer
	cmd.Stdout = &bounded{w: &b, left: 64 << 10}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return b.String(), err
}

// bounded drops what is too much.
type bounded struct {
	w    io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := p[:min(len(p), b.left)]
	b.left -= len(keep)
	if _, err := b.w.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ShimProgram is the program that a handler's shim is, before it is searched.
func ShimProgram(r config.Runtime) string {
	if r.Path != "" {
		return r.Path
	}
	parts := strings.Split(r.Type, ".")
	if len(parts) < 2 {
		return r.Type
	}
	return "containerd-shim-" + parts[len(parts)-2] + "-" + parts[len(parts)-1]
}

// Binary is the OCI runtime that a runc-like handler calls; "" for others.
func Binary(r config.Runtime) string {
	if r.Type != config.RuncType {
		return ""
	}
	if b, _ := r.Options["BinaryName"].(string); b != "" {
		return b
	}
	return "runc"
}

func runtimes(ctx context.Context, n *node) []Finding {
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(n.c.Runtimes)) {
		out = append(out, handler(ctx, n.c, name, n.c.Runtimes[name])...)
	}
	return out
}

// handler looks at one handler's shim and runtime. What is missing is a
// failure for the default handler, a warning for the others.
func handler(ctx context.Context, c *config.Config, name string, r config.Runtime) []Finding {
	bad := warn
	if name == c.DefaultRuntime {
		bad = fail
	}
	what := "runtime " + name
	var out []Finding
	shim, err := c.FindProgram(ShimProgram(r))
	if err != nil {
		out = append(out, bad(what, "install it, or set runtimes."+name+".path", "shim %s is not found", ShimProgram(r)))
	} else {
		v, _ := Version(ctx, shim, "-v")
		out = append(out, ok(what, "shim %s %s", shim, v))
	}
	binary := Binary(r)
	if binary == "" {
		return out
	}
	path, err := c.FindProgram(binary)
	if err != nil {
		return append(out, bad(what, "install "+binary+", or set BinaryName in runtimes."+name+".options", "%s is not found", binary))
	}
	v, err := Version(ctx, path, "--version")
	if err != nil {
		return append(out, bad(what, "try \""+path+" --version\"", "%s does not run: %v", path, err))
	}
	f := ok(what, "%s %s", path, v)
	if filepath.Base(path) == "runc" {
		f = runcVersion(what, path, v, c.AllowOldRuntime)
	}
	return append(out, f)
}

// Escapes tells whether a runc of this version has the escapes of November 2025
// (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).
func Escapes(text string) bool {
	v := parseVersion(text)
	old := false
	for _, fixed := range [][4]int{{1, 2, 8, 1 << 30}, {1, 3, 3, 1 << 30}, {1, 4, 0, 3}} {
		if v[0] == fixed[0] && v[1] == fixed[1] {
			old = below(v, fixed)
		}
	}
	if v[0] == 1 && v[1] < 2 || v[0] == 0 {
		old = true
	}
	return old
}

// runcVersion judges a runc.
func runcVersion(what, path, text string, allowed bool) Finding {
	v, old := parseVersion(text), Escapes(text)
	const cure = "install runc 1.2.8, 1.3.3, 1.4.0 or newer"
	switch {
	case old && allowed:
		return warn(what, cure, "%s %s has known escapes (allowed by allow_vulnerable_runtime)", path, text)
	case old:
		return fail(what, cure+" (or set allow_vulnerable_runtime)", "%s %s has known escapes (CVE-2025-31133, -52565, -52881)", path, text)
	case v[0] == 1 && v[1] < 4:
		return ok(what, "%s %s (1.4 or newer is advised)", path, text)
	}
	return ok(what, "%s %s", path, text)
}
