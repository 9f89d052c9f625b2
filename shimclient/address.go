package shimclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// legacySocketDir is where shims older than containerd 2.4, which cannot be
// told a directory, put their sockets; it is compiled into them.
const legacySocketDir = "/run/containerd/s"

// maxSocketPath is what fits into sun_path with its final NUL, in bytes.
const maxSocketPath = 107

// socketPath follows the rule by which a shim names its socket (pkg/shim,
// CreateSocketAddress): the daemon's address, the namespace and the group
// always give the same name, so a shim can be found that nobody wrote down.
func socketPath(dir, address, namespace, group string) string {
	sum := sha256.Sum256([]byte(filepath.Join(address, namespace, group)))
	return filepath.Join(dir, hex.EncodeToString(sum[:]))
}

// checkSocketPath refuses a path that the kernel would cut or reject.
func checkSocketPath(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("socket path %q is not absolute: %w", path, errdefs.ErrInvalidArgument)
	}
	if strings.ContainsRune(path, 0) || filepath.Clean(path) != path {
		return fmt.Errorf("socket path %q is not clean: %w", path, errdefs.ErrInvalidArgument)
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf("socket path %q has %d bytes and unix sockets allow %d; choose a shorter state directory: %w",
			path, len(path), maxSocketPath, errdefs.ErrInvalidArgument)
	}
	return nil
}

// parseAddress takes the path out of a shim's answer. Only unix sockets with a
// path are taken: an abstract one has no permissions, and a virtual machine's
// shim too listens on the host.
func parseAddress(address string) (string, error) {
	path, ok := strings.CutPrefix(strings.TrimPrefix(address, "ttrpc+"), "unix://")
	if !ok {
		return "", fmt.Errorf("shim address %q is not a unix:// path: %w", clip(address), errdefs.ErrInvalidArgument)
	}
	return path, checkSocketPath(path)
}

// removeSocket removes the socket file of a shim that is dead, unless another
// shim of that id has made it its own. That somebody listens proves no shim: a
// runtime command that hangs inherits the socket and outlives its shim.
func (h *Host) removeSocket(ctx context.Context, path, id string) error {
	if checkSocketPath(path) != nil {
		return nil //nolint:nilerr // nothing that a shim could have made
	}
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove shim socket: %w", err)
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("remove shim socket: %q is not a socket: %w", path, errdefs.ErrFailedPrecondition)
	}
	if listened(ctx, path) {
		processes, err := h.findProcesses(Ref{ID: id})
		if err != nil || len(processes) > 0 {
			return err // another shim's by now
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove shim socket: %w", err)
	}
	return nil
}

// listened tells whether somebody may be listening on a socket: only a refused
// connection proves that nobody is.
func listened(ctx context.Context, path string) bool {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist)
}
