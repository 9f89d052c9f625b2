//go:build e2e

package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) {
	if os.Getenv(poserEnv) != "" {
		os.Exit(poser())
	}
	story.Main(m)
}

// bench is a daemon that has little patience with registries, and what it had in store before a test.
type bench struct {
	*story.Story
	had map[string]bool
}

// stall is how long a pull may go without progress on a bench.
const stall = 2 * time.Second

// settings of a bench: bounds that a test reaches in seconds.
const settings = "[images]\nprogress_timeout = \"2s\"\nmax_layer_size = \"32MiB\"\n"

func begin(t *testing.T, prepare ...func(*harness.Home) error) *bench {
	t.Helper()
	steps := append([]func(*harness.Home) error{watch.Set(settings)}, prepare...)
	b := &bench{Story: story.AloneIn(t, harness.Crid{}, watch.Each(steps...))}
	b.had = b.stock()
	return b
}

// serve puts a shelf under a host name of its own.
func (b *bench) serve(name string, s *shelf) {
	b.T.Helper()
	if err := kit.WriteHosts(b.Home.Certs(), s.start(b.T), name); err != nil {
		b.T.Fatal(err)
	}
}

// stock is every file and folder of layers, downloads and image records.
func (b *bench) stock() map[string]bool {
	b.T.Helper()
	all := map[string]bool{}
	top := filepath.Join(b.Home.Root(), "images")
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is being removed
		}
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, top)
		if entry.Name() != "durable.json" && strings.Count(rel, "/") > 1 {
			all[rel] = true
		}
		return nil
	})
	if err != nil {
		b.T.Fatal(err)
	}
	return all
}

// nothingLeft fails the test unless the store comes to hold what it held before.
func (b *bench) nothingLeft(what string) {
	b.T.Helper()
	var left []string
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		now := b.stock()
		maps.DeleteFunc(now, func(k string, _ bool) bool { return b.had[k] })
		left = slices.Sorted(maps.Keys(now))
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.T.Errorf("%s: left in the store: %q", what, left[:min(len(left), 8)])
			return
		}
	}
}

// look is what the daemon knows of an image; nil if nothing.
func (b *bench) look(name string) *runtimeapi.Image {
	b.T.Helper()
	r, err := b.Images.ImageStatus(b.T.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	if err != nil {
		b.T.Fatal(err)
	}
	return r.GetImage()
}

func (b *bench) remove(name string) {
	b.T.Helper()
	if _, err := b.Images.RemoveImage(b.T.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil {
		b.T.Error(err)
	}
}

// mustFail pulls an image that cannot be had, and gives the error; it has to come in time, and be short.
func (b *bench) mustFail(what, image string, limit time.Duration) error {
	b.T.Helper()
	start := time.Now()
	_, err := b.Pull(b.T.Context(), image)
	took := time.Since(start)
	if err == nil {
		b.T.Errorf("%s: pulled", what)
		b.remove(image)
		return errors.New("none")
	}
	if took > limit {
		b.T.Errorf("%s: %s until the answer: %v", what, took, err)
	}
	if len(err.Error()) > 4096 {
		b.T.Errorf("%s: an error of %d bytes", what, len(err.Error()))
	}
	if b.look(image) != nil {
		b.T.Errorf("%s: it is there all the same", what)
	}
	b.T.Logf("%s: %s: %.300v", what, took.Round(time.Millisecond), err)
	return err
}

// runs makes a container of an image and looks at a file in it. The image has no program: the container is only made.
func (b *bench) usable(what, image string) {
	b.T.Helper()
	config := b.Home.Pod("usable")
	pod, err := b.RunPod(b.T.Context(), config, "")
	if err != nil {
		b.T.Fatal(err)
	}
	c := harness.Container("c", "/none")
	c.Image.Image = image
	if _, err := b.Create(b.T.Context(), pod, c, config); err != nil {
		b.T.Errorf("%s: no container can be made of it: %v", what, err)
	}
	if err := b.RemovePodFully(b.T.Context(), pod); err != nil {
		b.T.Error(err)
	}
}

// hwm is the daemon's peak of memory in KiB since the last fresh.
func (b *bench) hwm() int { b.T.Helper(); return watch.Field(b.T, b.Pid(), "VmHWM") }

// fresh starts the peak anew.
func (b *bench) fresh() {
	b.T.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", b.Pid()), []byte("5"), 0); err != nil {
		b.T.Fatal(err)
	}
}
