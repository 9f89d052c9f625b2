//go:build e2e

package registry

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
)

// The tag moves between manifest and layer: what is pulled is one of the two images, whole.
func TestF101ATagThatMoves(t *testing.T) {
	t.Parallel()
	b := begin(t)
	s, old, now := newShelf(), noise(1000), noise(1000)
	newer := s.image("newer", now)
	older := s.image("1", old)
	s.setPlan(func(_ http.ResponseWriter, r *http.Request) bool {
		if old.wanted(r) || strings.Contains(r.URL.Path, "/blobs/") {
			s.mu.Lock()
			s.docs["1"] = s.docs["newer"]
			s.mu.Unlock()
		}
		return false
	})
	b.serve("moves.example", s)
	if _, err := b.Pull(t.Context(), "moves.example/a:1"); err != nil {
		t.Fatal(err)
	}
	first := b.look("moves.example/a:1")
	if len(first.GetRepoDigests()) != 1 || !strings.HasSuffix(first.GetRepoDigests()[0], older["digest"].(string)) {
		t.Errorf("pulled: %v, not %v", first.GetRepoDigests(), older["digest"])
	}
	b.usable("the old one", "moves.example/a:1")
	if _, err := b.Pull(t.Context(), "moves.example/a:1"); err != nil {
		t.Fatal(err)
	}
	second := b.look("moves.example/a:1")
	if second.GetId() == first.GetId() || !strings.HasSuffix(second.GetRepoDigests()[0], newer["digest"].(string)) {
		t.Errorf("pulled again: %v", second)
	}
	b.usable("the new one", "moves.example/a:1")
	b.remove(second.GetId())
	if b.look(first.GetId()) != nil {
		b.remove(first.GetId())
	}
	b.nothingLeft("a tag that moves")
}

// Pulls of one content by several names, removals and containers made of it, all at once: at the end the image is usable or absent.
func TestF101PullsAndRemovalsAtOnce(t *testing.T) {
	t.Parallel()
	b := begin(t)
	watch.Others(b.Story)
	s := newShelf()
	shared := noise(100_000)
	s.image("1", shared, noise(1000))
	s.image("2", shared)
	b.serve("one.example", s)
	b.serve("two.example", s)
	names := []string{"one.example/a:1", "two.example/a:1", "one.example/b:1", "one.example/a:2"}
	config := b.Home.Pod("race")
	pod, err := b.RunPod(t.Context(), config, "")
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Duration(watch.Times(3, 60)) * time.Second)
	var all sync.WaitGroup
	for n, name := range names {
		all.Go(func() {
			for time.Now().Before(end) {
				if _, err := b.Pull(t.Context(), name); err != nil {
					t.Errorf("pull %s: %v", name, err)
				}
			}
		})
		all.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				b.remove(names[(n+i)%len(names)])
			}
		})
		all.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				c := harness.Container(fmt.Sprintf("c%d-%d", n, i), "/none")
				c.Image.Image = name
				id, err := b.Create(t.Context(), pod, c, config)
				if err != nil {
					b.WantCode("a container of an image that comes and goes", err, codes.NotFound)
					continue
				}
				if err := b.RemoveContainer(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, name := range names {
		if _, err := b.Pull(t.Context(), name); err != nil {
			t.Errorf("afterwards: %v", err)
			continue
		}
		b.usable("afterwards", name)
		b.remove(name)
	}
	if err := b.RemovePodFully(t.Context(), pod); err != nil {
		t.Error(err)
	}
	b.nothingLeft("pulls and removals")
}

// poserEnv names the variable by which this binary becomes a registry of its own process; its value is the folder where it writes its address.
const poserEnv = "CRID_FAULTS_REGISTRY"

// poser serves images whose layers come slowly, until it is killed.
func poser() int {
	s := newShelf()
	for i := range 50 {
		l := noise(200_000)
		s.image(fmt.Sprint(i), l)
		s.setPlanNext(func(w http.ResponseWriter, r *http.Request) bool {
			if !l.wanted(r) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(l.blob)))
			for at := 0; at < len(l.blob); at += 2000 {
				if _, err := w.Write(l.blob[at:min(at+2000, len(l.blob))]); err != nil {
					return true
				}
				_ = http.NewResponseController(w).Flush()
				time.Sleep(100 * time.Millisecond)
			}
			return true
		})
	}
	if err := s.listen(filepath.Join(os.Getenv(poserEnv), "addr")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// The registry is killed while fifty images are pulled from it: all pulls end with an error, in time, and nothing of them stays.
func TestF103TheRegistryIsKilledDuringFiftyPulls(t *testing.T) {
	t.Parallel()
	b := begin(t)
	w := watch.Others(b.Story)
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	registry := exec.Command(program)
	registry.Env = append(os.Environ(), poserEnv+"="+dir)
	registry.Stderr = os.Stderr
	if err := registry.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() { _ = registry.Process.Kill(); _ = registry.Wait() })
	t.Cleanup(end)
	var addr []byte
	b.Eventually("the registry's address", 10*time.Second, func() bool {
		addr, err = os.ReadFile(filepath.Join(dir, "addr"))
		return err == nil
	})
	if err := kit.WriteHosts(b.Home.Certs(), string(addr), "mortal.example"); err != nil {
		t.Fatal(err)
	}
	threads := watch.Field(t, b.Pid(), "Threads")
	var all sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for i := range 50 {
		all.Go(func() {
			_, err := b.Pull(t.Context(), fmt.Sprintf("mortal.example/a:%d", i))
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			failed++
			b.WantCode("a pull whose registry dies", err, codes.Unavailable)
		})
	}
	b.Eventually("layers are on their way", 15*time.Second, func() bool { return len(b.stock()) > len(b.had)+4 })
	time.Sleep(300 * time.Millisecond)
	end()
	start := time.Now()
	all.Wait()
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("%s until all pulls have ended", took)
	}
	if failed != 50 {
		t.Errorf("%d of 50 pulls failed", failed)
	}
	b.nothingLeft("a registry that was killed")
	if now := watch.Field(t, b.Pid(), "Threads"); now > threads+16 {
		t.Errorf("%d threads, %d before", now, threads)
	}
	w.End(t)
}

// The disk is full in the middle of a layer: an error that says so, the room is given back, and the same pull works when there is more.
func TestF103TheDiskIsFullInTheMiddleOfALayer(t *testing.T) {
	t.Parallel()
	b := begin(t, func(h *harness.Home) error {
		return errors.Join(os.MkdirAll(h.Root(), 0o711), unix.Mount("tmpfs", h.Root(), "tmpfs", 0, "mode=711,size=64m"))
	})
	watch.Others(b.Story)
	usage := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Statfs(b.Home.Root(), &st); err != nil {
			t.Fatal(err)
		}
		return (st.Blocks - st.Bfree) * uint64(st.Bsize)
	}
	s := newShelf()
	s.image("1", noise(15<<20), noise(15<<20))
	b.serve("big.example", s)
	ballast := filepath.Join(b.Home.Root(), "ballast") // leaves 20 MiB for 30
	if err := os.WriteFile(ballast, make([]byte, 44<<20-usage()), 0o600); err != nil {
		t.Fatal(err)
	}
	before := usage()
	for range 3 {
		err := b.mustFail("a disk that is full", "big.example/a:1", 20*time.Second)
		b.WantCode("a disk that is full", err, codes.ResourceExhausted)
		if !strings.Contains(err.Error(), "full") {
			t.Errorf("the reason is not told: %v", err)
		}
	}
	b.nothingLeft("a disk that is full")
	b.Eventually("the room is given back", 10*time.Second, func() bool { return usage() < before+1<<20 })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "big.example/a:1"}}); err != nil {
		t.Errorf("with room: %v", err)
	}
	b.remove("big.example/a:1")
}
