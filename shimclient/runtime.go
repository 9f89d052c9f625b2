package shimclient

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// Runtime is one configured way to run containers: a shim binary and what it is
// told.
type Runtime struct {
	// Name is the handler's name, for messages.
	Name string
	// Type is the shim's type, such as io.containerd.runc.v2.
	Type string
	// Path is the shim binary, absolute.
	Path string
	// Options are the shim's own, by the names that containerd's configuration
	// gives them: BinaryName, Root, SystemdCgroup and so on.
	Options map[string]any
}

// Resolve completes and checks a runtime: without a Path the binary that the
// Type stands for is looked for in dirs and then in $PATH, and the options are
// tried out, so that a mistake is found at the start and not with the first pod.
func Resolve(r Runtime, dirs ...string) (Runtime, error) {
	if r.Path == "" {
		name, err := binaryName(r.Type)
		if err != nil {
			return Runtime{}, fmt.Errorf("resolve runtime %q: %w", r.Name, err)
		}
		if r.Path, err = findBinary(name, dirs); err != nil {
			return Runtime{}, fmt.Errorf("resolve runtime %q: %w", r.Name, err)
		}
	}
	if !filepath.IsAbs(r.Path) {
		return Runtime{}, fmt.Errorf("resolve runtime %q: shim path %q is not absolute: %w", r.Name, r.Path, errdefs.ErrInvalidArgument)
	}
	if fi, err := os.Stat(r.Path); err != nil || fi.IsDir() || fi.Mode()&0o111 == 0 {
		return Runtime{}, fmt.Errorf("resolve runtime %q: shim %q is missing or not executable; install it or correct the runtime's path: %w", r.Name, r.Path, errdefs.ErrNotFound)
	}
	if _, err := r.options(); err != nil {
		return Runtime{}, err
	}
	return r, nil
}

// binaryName follows the shim naming rule of containerd's runtime v2 README:
// the last two parts of io.containerd.runc.v2 give containerd-shim-runc-v2.
func binaryName(typ string) (string, error) {
	parts := strings.Split(typ, ".")
	n := len(parts)
	if n < 2 || parts[0] == "" || parts[n-1] == "" || parts[n-2] == "" || strings.ContainsAny(typ, "/\x00") {
		return "", fmt.Errorf("shim type %q is not of the form io.containerd.NAME.VERSION: %w", typ, errdefs.ErrInvalidArgument)
	}
	return "containerd-shim-" + parts[n-2] + "-" + parts[n-1], nil
}

func findBinary(name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return filepath.Abs(path)
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find shim binary %s in %v or $PATH; install it or set the runtime's path: %w", name, dirs, errdefs.ErrNotFound)
	}
	return filepath.Abs(path)
}
