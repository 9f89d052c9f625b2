package socket_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/server/socket"
)

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := socket.Listen(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestASocketHasItsPermissionsAndGoesWithItsListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "crid.sock")
	l := listen(t, "unix://"+path)
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode().Perm() != 0o660 || fi.Mode()&os.ModeSocket == 0 || l.Addr().String() != path {
		t.Fatalf("%v, %v", fi, err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for range 2 {
		l.Close()
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	listen(t, path)
}

// A second daemon on the same socket would take the first one's clients.
func TestASecondDaemonIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crid.sock")
	listen(t, path)
	if _, err := socket.Listen(path, 0o600); !errdefs.IsAlreadyExists(err) {
		t.Errorf("got %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first one does not answer any more: %v", err)
	} else {
		c.Close()
	}
}

func TestADaemonOfAnotherKindIsNotDisplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crid.sock")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := socket.Listen(path, 0o600); !errdefs.IsAlreadyExists(err) {
		t.Errorf("got %v", err)
	}
}

func TestWhatACrashLeftIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crid.sock")
	for _, p := range []string{path, path + ".new"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	listen(t, path)
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crid.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Listen(path, 0o600); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("it was overwritten")
	}
}

func TestBadAddressesSayWhatToDo(t *testing.T) {
	for _, a := range []string{"", "crid.sock", "tcp://1.2.3.4:5", "/" + strings.Repeat("x", 110)} {
		if _, err := socket.Listen(a, 0o600); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.20q: %v", a, err)
		}
	}
}
