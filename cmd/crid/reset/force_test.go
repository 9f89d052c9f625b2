package reset

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/config"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
)

// parts are those that the forced way needs, of an empty node.
func parts(t *testing.T, dir string) Parts {
	t.Helper()
	c := config.Default()
	c.Root, c.State = filepath.Join(dir, "r"), filepath.Join(dir, "s")
	c.ShimSocketDir, c.CNI.CacheDir, c.CgroupParent = filepath.Join(dir, "k"), filepath.Join(c.Root, "cni"), "/crid-reset-test-"+filepath.Base(dir)
	log := slog.New(slog.DiscardHandler)
	p := Parts{Config: c, Boot: "boot", Driver: "cgroupfs", Runtimes: []shimclient.Runtime{{Name: "runc", Options: map[string]any{"Root": filepath.Join(c.State, "runc")}}}}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func([]byte) (store.Sealed, error) { return nil, os.ErrInvalid }
	var err error
	p.Ledger, _, err = store.Open(store.Config{Dir: filepath.Join(c.Root, "ledger"), Boot: p.Boot, OpenPod: open, OpenContainer: open, Log: log})
	must(err)
	p.Host, err = shimclient.NewHost(shimclient.HostConfig{State: c.State, SocketDir: c.ShimSocketDir, Namespace: "crid", Address: filepath.Join(c.State, "crid.sock"), Log: log})
	must(err)
	p.Networks, err = cni.New(cni.Config{ConfDir: filepath.Join(dir, "net.d"), BinDirs: []string{filepath.Join(dir, "bin")}, CacheDir: c.CNI.CacheDir, Log: log})
	must(err)
	p.Images, err = image.Open(image.Config{Root: filepath.Join(c.Root, "images"), Containers: filepath.Join(c.Root, "containers"), Log: log})
	must(err)
	p.Watcher, err = pidfd.NewWatcher()
	must(err)
	return p
}

// Something of one pod does not die: what it stands on stays, and so do the
// images, whose layers it runs from. Everything else goes.
func TestResetKeepsWhatALivingProcessStandsOn(t *testing.T) {
	dir, err := os.MkdirTemp("", "cr") // short: sockets' paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := parts(t, dir)
	c := p.Config
	alive, gone := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	for _, name := range []string{"s/pods", "s/containers", "s/fenced", "s/runc/crid", "r/containers", "r/volumes"} {
		for _, id := range []string{alive, gone} {
			if err := os.MkdirAll(filepath.Join(dir, name, id), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	var out bytes.Buffer
	r := New(slog.New(slog.DiscardHandler), &out)
	r.parts = p
	r.keep(alive)
	r.force(t.Context())
	r.clear(t.Context(), true)
	p.Ledger.Close()
	for _, sub := range []string{"s/pods", "s/containers", "s/fenced", "s/runc/crid", "r/containers", "r/volumes"} {
		sub = filepath.Join(dir, sub)
		if _, err := os.Lstat(filepath.Join(sub, alive)); err != nil {
			t.Errorf("taken from under a live process: %v", err)
		}
		if _, err := os.Lstat(filepath.Join(sub, gone)); err == nil {
			t.Errorf("%s/%s is left\n%s", sub, gone, &out)
		}
	}
	for _, name := range []string{"images", "ledger"} {
		if _, err := os.Lstat(filepath.Join(c.Root, name)); err != nil {
			t.Error(err)
		}
	}
}
