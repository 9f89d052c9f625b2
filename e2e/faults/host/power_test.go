//go:build e2e

package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/story"
)

// loop is a disk in a file: ext4, which writes its journal every second.
type loop struct {
	file, device string
}

// mount puts the disk at a folder; what backs it goes with the mount.
func (l *loop) mount(at string) error {
	if err := os.MkdirAll(at, 0o711); err != nil {
		return err
	}
	out, err := exec.Command("mount", "-o", "loop,commit=1", l.file, at).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount %s: %w: %s", l.file, err, out)
	}
	if out, err = exec.Command("findmnt", "-n", "-o", "SOURCE", at).Output(); err != nil {
		return err
	}
	l.device = filepath.Base(strings.TrimSpace(string(out)))
	return nil
}

// writes counts what the disk has been given; it is even for as long as nothing is under way.
func (l *loop) writes() (done string, idle bool) {
	data, err := os.ReadFile("/sys/block/" + l.device + "/stat")
	f := strings.Fields(string(data))
	if err != nil || len(f) < 9 {
		return "", false
	}
	return f[4], f[8] == "0"
}

// image copies the disk as it is at one moment: a copy during which something was written is thrown away. It is what a machine finds whose power
// ended at that moment.
func (l *loop) image(to string) bool {
	before, idle := l.writes()
	if !idle || exec.Command("cp", "--sparse=always", "--reflink=auto", l.file, to).Run() != nil {
		return false
	}
	after, idle := l.writes()
	if !idle || before != after {
		_ = os.Remove(to)
		return false
	}
	return true
}

// place is a folder in memory if there is one: copies of disks are made there.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "crid-faults-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// tree is a digest of all files of a root file system that are the image's.
func tree(root string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, root)
		if slices.Contains([]string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys"}, rel) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		fmt.Fprintln(h, rel, entry.Type())
		if !entry.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(h, f)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// content makes a container of an image and gives the digest of its root file system.
func content(p *story.Pod, image string) (string, error) {
	c := story.Sleeper("content")
	c.Image.Image = image
	id, err := p.Create(p.T.Context(), p.ID, c, p.Config)
	if err != nil {
		return "", err
	}
	sum, err := tree(filepath.Join(p.Home.State(), "containers", id, "rootfs"))
	return sum, errors.Join(err, p.RemoveContainer(p.T.Context(), id))
}

// forms are images that come and go during the churn.
var forms = []string{"quay.io/crid/forms:oci-gzip", "quay.io/crid/forms:oci-zstd", "quay.io/crid/forms:oci-tar", "quay.io/crid/forms:docker-gzip"}

// churn runs, ends and removes pods, and pulls and removes images, until it is told to end.
func churn(s *story.Story, stop <-chan struct{}) {
	var all sync.WaitGroup
	over := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	all.Go(func() {
		var stay []string
		for n := 0; !over(); n++ {
			config := s.Home.Pod(fmt.Sprintf("churn-%d", n))
			id, err := s.RunPod(s.T.Context(), config, "")
			if err != nil {
				s.T.Errorf("churn: %v", err)
				return
			}
			for _, name := range []string{"a", "b"} {
				if _, err := s.Run(s.T.Context(), id, story.Sleeper(name), config); err != nil {
					s.T.Errorf("churn: %v", err)
				}
			}
			if stay = append(stay, id); len(stay) < 4 {
				continue
			}
			id, stay = stay[n%3], slices.Delete(stay, n%3, n%3+1)
			if err := s.RemovePodFully(s.T.Context(), id); err != nil {
				s.T.Errorf("churn: %v", err)
			}
		}
	})
	all.Go(func() {
		for n := 0; !over(); n++ {
			if _, err := s.Pull(s.T.Context(), forms[n%len(forms)]); err != nil {
				s.T.Errorf("churn: %v", err)
			}
			if n%len(forms) > 1 {
				_, _ = s.Images.RemoveImage(s.T.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: forms[(n+1)%len(forms)]}})
			}
		}
	})
	all.Wait()
}

// The power ends at some hundred moments of a busy time: on what is on the disk then, crid comes up, shows nothing that runs, has no image that is
// not whole, can remove all pods, and works.
func TestF61PowerLoss(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"mkfs.ext4", "cp", "findmnt"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	dir := place(t)
	l := &loop{file: filepath.Join(dir, "disk")}
	s := story.AloneIn(t, harness.Crid{}, watch.Each(shared, func(h *harness.Home) error {
		f, err := os.Create(l.file)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(512<<20), f.Close()); err != nil {
			return err
		}
		if out, err := exec.Command("mkfs.ext4", "-q", "-F", l.file).CombinedOutput(); err != nil {
			return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
		}
		return l.mount(h.Root())
	}))
	want := map[string]string{}
	p := s.Pod("content")
	for _, image := range append([]string{kit.Busybox, kit.Nginx}, forms...) {
		if err := s.Have(t.Context(), image); err != nil {
			t.Fatal(err)
		}
		sum, err := content(p, image)
		if err != nil {
			t.Fatal(err)
		}
		want[image] = sum
	}
	images := shoot(s, l, dir, watch.Times(8, 100), time.Duration(watch.Times(12, 60))*time.Second)
	if err := s.RemoveAllPods(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(s.Home.Root(), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	whole := 0
	for n, image := range images {
		whole += survive(s, &loop{file: image}, n, want)
		if t.Failed() {
			break
		}
		_ = os.Remove(image)
	}
	t.Logf("%d moments; %d images were there, all of them whole", len(images), whole)
	s.Daemon.Kind = harness.Crid{}
	if err := l.mount(s.Home.Root()); err != nil {
		t.Fatal(err)
	}
	again(s)
}

// shoot takes images of the disk during a churn.
func shoot(s *story.Story, l *loop, dir string, n int, length time.Duration) (images []string) {
	s.T.Helper()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); churn(s, stop) }()
	last, tries := "", 0
	next := time.Now()
	for start := time.Now(); len(images) < n && time.Since(start) < 3*length; time.Sleep(5 * time.Millisecond) {
		if now, _ := l.writes(); now == last || time.Now().Before(next) {
			continue
		}
		to := filepath.Join(dir, fmt.Sprintf("image-%d", len(images)))
		tries++
		if l.image(to) {
			last, _ = l.writes()
			images = append(images, to)
			next = time.Now().Add(length / time.Duration(2*n))
		}
	}
	close(stop)
	<-ended
	s.T.Logf("%d images in %d tries", len(images), tries)
	if len(images) < n/2 {
		s.T.Errorf("only %d images of %d", len(images), n)
	}
	return images
}

// survive starts crid on an image, and answers how many images of containers it has.
func survive(s *story.Story, l *loop, n int, want map[string]string) (whole int) {
	s.T.Helper()
	ctx := s.T.Context()
	if err := l.mount(s.Home.Root()); err != nil {
		s.T.Errorf("moment %d: %v", n, err)
		return 0
	}
	if err := s.Home.LoseState(); err != nil {
		s.T.Fatal(err)
	}
	reboot(s, n)
	again(s)
	for name, state := range states2(s) {
		if state == running {
			s.T.Errorf("moment %d: %s runs", n, name)
		}
	}
	pods, err := s.Pods(ctx)
	if err != nil {
		s.T.Error(err)
	}
	for _, p := range pods {
		if p.GetState() != notReady {
			s.T.Errorf("moment %d: pod %s is %s", n, p.GetMetadata().GetName(), p.GetState())
		}
	}
	list, err := s.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		s.T.Error(err)
	}
	if err := s.RemoveAllPods(ctx); err != nil {
		s.T.Errorf("moment %d: %v", n, err)
	}
	p := s.Pod("works")
	for _, image := range list.GetImages() {
		for _, tag := range image.GetRepoTags() {
			if want[tag] == "" {
				continue // a name that was not looked at before
			}
			sum, err := content(p, tag)
			if err != nil || sum != want[tag] {
				s.T.Errorf("moment %d: image %s is not whole: %s, not %s (%v)", n, tag, sum, want[tag], err)
			}
			whole++
		}
	}
	if err := s.Have(ctx, kit.Busybox); err != nil {
		s.T.Errorf("moment %d: %v", n, err)
	}
	p.Go(story.Sleeper("c")).Sh("true")
	if err := s.RemovePodFully(ctx, p.ID); err != nil {
		s.T.Errorf("moment %d: %v", n, err)
	}
	if err := s.Stop(); err != nil {
		s.T.Error(err)
	}
	s.Eventually("the disk goes", 10*time.Second, func() bool { return unix.Unmount(s.Home.Root(), 0) == nil })
	return whole
}

// states2 are all containers by pod and name: none may be there twice.
func states2(s *story.Story) map[string]runtimeapi.ContainerState {
	s.T.Helper()
	list, err := s.Containers(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	got := map[string]runtimeapi.ContainerState{}
	for _, c := range list {
		name := c.GetPodSandboxId() + "/" + c.GetMetadata().GetName()
		if _, twice := got[name]; twice {
			s.T.Errorf("container %s is there twice", name)
		}
		got[name] = c.GetState()
	}
	return got
}
