//go:build e2e

package restart

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// smallDisk makes a folder of a home a disk of its own.
func smallDisk(dir func(*harness.Home) string, size string) func(*harness.Home) error {
	return func(h *harness.Home) error {
		if err := os.MkdirAll(dir(h), 0o711); err != nil {
			return err
		}
		return unix.Mount("tmpfs", dir(h), "tmpfs", 0, "mode=711,size="+size)
	}
}

// fill writes until a disk is full, and gives what was written.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, block := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, block))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	return path
}

// A full disk refuses what needs room, with a word that says so, and nothing else: what runs goes on, and can be ended and cleared away,
// since that is how room is made.
func TestTheDiskIsFull(t *testing.T) {
	s := story.AloneIn(t, harness.Crid{}, smallDisk((*harness.Home).Root, "96m"))
	p := s.Pod("full")
	c := p.Go(story.Shell("c", "trap 'exit 3' TERM; while :; do sleep 1 & wait $!; done"))
	made := p.Make(story.Sleeper("made"))
	before, err := s.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ballast := fill(t, s.Home.Root())
	if _, err := s.Pull(t.Context(), "ghcr.io/crid/oddities:1"); err == nil {
		t.Error("an image is pulled to a full disk")
	} else if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "no space") {
		t.Errorf("the error of the pull: %v", err)
	}
	after, err := s.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil || len(after.GetImages()) != len(before.GetImages()) {
		t.Errorf("%d images, before %d (%v)", len(after.GetImages()), len(before.GetImages()), err)
	}
	config := s.Home.Pod("new")
	if id, err := s.RunPod(t.Context(), config, ""); err == nil {
		if _, err := s.Create(t.Context(), id, story.Sleeper("x"), config); err != nil && !strings.Contains(err.Error(), "no space") {
			t.Errorf("the error of the create: %v", err)
		}
		if err := s.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
	} else if !strings.Contains(err.Error(), "no space") {
		t.Errorf("the error of the pod: %v", err)
	}
	if r, err := s.Exec(t.Context(), c.ID, "true"); err != nil || r.GetExitCode() != 0 {
		t.Errorf("exec on a full disk: %v (%v)", r.GetExitCode(), err)
	}
	c.Stop(10)
	if st := c.WantState(exited); st.GetExitCode() != 3 {
		t.Errorf("code %d", st.GetExitCode())
	}
	made.Remove()
	c.Remove()
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Errorf("removal on a full disk: %v", err)
	}
	inject.Crash(s)
	inject.Within(t, "a start on a full disk", inject.Again(s), 5*time.Second)
	if pods, err := s.Pods(t.Context()); err != nil || len(pods) != 0 {
		t.Errorf("pods: %v (%v)", pods, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Have(t.Context(), "ghcr.io/crid/oddities:1"); err != nil {
		t.Error(err)
	}
	s.Pod("full").Go(story.Sleeper("c")).Sh("true")
}

// A container that talks to a full disk must not stand still for that, and the daemon must not either.
func TestTheLogsDiskIsFull(t *testing.T) {
	s := story.AloneIn(t, harness.Crid{}, smallDisk((*harness.Home).PodLogs, "1m"))
	p := s.Pod("chatty")
	c := p.Go(story.Shell("c", "yes 0123456789012345678901234567890123456789 | head -n 300000; exit 7"))
	start := time.Now()
	if st := c.Exited(); st.GetExitCode() != 7 {
		t.Errorf("code %d", st.GetExitCode())
	}
	inject.Within(t, "12 MB of log on a disk of 1 MB", time.Since(start), 20*time.Second)
	d := p.Go(story.Sleeper("d"))
	d.Sh("true")
	d.Stop(2)
}

// Names and files that nobody expects in the folders of the daemon do not keep it from coming up.
func TestForeignFilesInTheLedger(t *testing.T) {
	s := alone(t)
	p := s.Pod("foreign")
	p.Go(story.Sleeper("c"))
	inject.Crash(s)
	ledger := filepath.Join(s.Home.Root(), "ledger")
	for _, dir := range []string{"pods", "containers"} {
		dir = filepath.Join(ledger, dir)
		if _, err := os.Stat(dir); err != nil {
			t.Skipf("the ledger has no folder %s", dir)
		}
		for name, text := range map[string]string{"README": "hello", ".hidden": "", "0": "{}", strings.Repeat("a", 64): "\x00", strings.Repeat("b", 64) + ".tmp": "torn"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mkfifo(filepath.Join(dir, strings.Repeat("c", 64)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/zero", filepath.Join(dir, strings.Repeat("d", 64))); err != nil {
			t.Fatal(err)
		}
	}
	inject.Within(t, "the start", inject.Again(s), 5*time.Second)
	if got := inject.States(s); got["c"] != running || len(got) != 1 {
		t.Errorf("the first list: %v", got)
	}
	for _, dir := range []string{"pods", "containers"} {
		for _, name := range []string{"README", ".hidden", "0", strings.Repeat("a", 64), strings.Repeat("b", 64) + ".tmp", strings.Repeat("c", 64), strings.Repeat("d", 64)} {
			_ = os.Remove(filepath.Join(ledger, dir, name)) // it may have been put aside
		}
	}
	clearQuarantine(t, s)
	_ = os.RemoveAll(filepath.Join(ledger, "quarantine")) // links and fifos among them
	inject.Crash(s)
	inject.Again(s)
}
