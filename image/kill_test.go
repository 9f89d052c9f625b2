package image

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const victimEnv = "CRID_TEST_PULL_VICTIM"

// TestVictim is no test of its own: TestKilledInTheMiddle runs it as a process to kill.
func TestVictim(t *testing.T) {
	dir := os.Getenv(victimEnv)
	if dir == "" {
		t.Skip("runs only as the victim of TestKilledInTheMiddle")
	}
	s := openStore(t, dir)
	_, _ = s.Pull(context.Background(), PullRequest{Ref: os.Getenv(victimEnv + "_REF")})
	time.Sleep(time.Minute)
}

func TestKilledInTheMiddle(t *testing.T) {
	needRoot(t)
	f := newFaulty(t)
	small, big := layerOf(t, file{name: "s", body: "small"}), layerOf(t, file{name: "b", body: noise(4 << 20)})
	push(t, f.host+"/a:1", imageOf(t, small, big))
	halfway := make(chan struct{}, 10)
	f.plan(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if !isBig(r, big) {
			return false
		}
		_, _ = w.Write(whole(r, next).Body.Bytes()[:2<<20])
		w.(http.Flusher).Flush()
		halfway <- struct{}{}
		<-r.Context().Done()
		return true
	})
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
	cmd.Env = append(os.Environ(), victimEnv+"="+dir, victimEnv+"_REF="+f.host+"/a:1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-halfway:
	case <-time.After(20 * time.Second):
		t.Error("the victim did not get that far")
	}
	time.Sleep(50 * time.Millisecond) // let it unpack what it got
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	s := openStore(t, dir)
	if n := len(s.List()); n != 0 {
		t.Errorf("%d images after a crash in the middle of the first", n)
	}
	s.layers.Settle()
	assertEmpty(t, s, dir)
	f.plan(nil)
	if _, err := s.Pull(within(t, 20*time.Second), PullRequest{Ref: f.host + "/a:1"}); err != nil {
		t.Errorf("pulling again: %v", err)
	}
}

func TestFullDiskGivesItsSpaceBack(t *testing.T) {
	needRoot(t)
	f := newFaulty(t)
	push(t, f.host+"/big:1", imageOf(t, layerOf(t, file{name: "s", body: "small"}), layerOf(t, file{name: "b", body: noise(12 << 20)})))
	push(t, f.host+"/small:1", imageOf(t, layerOf(t, file{name: "s", body: "small"})))
	dir := filepath.Join(t.TempDir(), "disk")
	_ = os.Mkdir(dir, 0o755)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := openStore(t, dir)
	_, err := s.Pull(within(t, 20*time.Second), PullRequest{Ref: f.host + "/big:1"})
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("pulled 12 MiB onto a disk of 8: %v", err)
	}
	assertEmpty(t, s, dir)
	if _, err := s.Pull(within(t, 20*time.Second), PullRequest{Ref: f.host + "/small:1"}); err != nil {
		t.Errorf("after the space came back: %v", err)
	}
	// A start on a full disk must come up and go on with overlayfs.
	s.Close()
	fill, _ := os.Create(filepath.Join(dir, "fill"))
	for {
		if _, err := fill.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	fill.Close()
	s = openStore(t, dir)
	if len(s.List()) != 1 || !s.layers.Overlay() {
		t.Errorf("%d images, overlay %v after a start on a full disk", len(s.List()), s.layers.Overlay())
	}
}
