//go:build e2e

package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// Lines of containers that end with 7 when they get a signal that is none of crid's.
const (
	waits = "trap 'exit 7' USR1; trap 'exit 9' TERM; while :; do sleep 0.1; done"
	endIt = "kill -USR1 1"
)

// Nothing can be written to the root any more: creates are refused in words, the ends of containers are seen all the same, also those across a restart,
// nothing is doubled, and when there is room everything is written by itself.
func TestF63F64F65TheRootCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, options string
		spoil         func(*testing.T, *story.Story) (mend func())
		words         string
	}{
		{"F63 full", "size=64m", func(t *testing.T, s *story.Story) func() { t.Helper(); return fill(t, s.Home.Root()) }, "no space"},
		{"F64 no inodes", "size=512m,nr_inodes=4000", inodes, "no space"},
		{"F65 read-only", "size=64m", readOnly((*harness.Home).Root), "read-only"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := story.AloneIn(t, harness.Crid{}, sharedDisk((*harness.Home).Root, c.options))
			p := s.Pod("full")
			first, second, third := p.Go(story.Shell("first", waits)), p.Go(story.Shell("second", waits)), p.Go(story.Sleeper("third"))
			mend := c.spoil(t, s)
			w := watch.Others(s)
			config := s.Home.Pod("new")
			if id, err := s.RunPod(t.Context(), config, ""); err == nil { // a record may find room where an inode or a page is free
				t.Logf("a pod runs: %s", id)
				if err := s.RemovePodFully(t.Context(), id); err != nil {
					t.Error(err)
				}
			} else {
				s.WantCode("a pod", err, codes.ResourceExhausted, codes.Unavailable, codes.FailedPrecondition)
				if !strings.Contains(err.Error(), c.words) {
					t.Errorf("the reason is not told: %v", err)
				}
			}
			first.Sh(endIt)
			if _, err := s.WaitState(t.Context(), first.ID, exited, 5*time.Second); err != nil {
				t.Error(err)
			}
			if st := first.Status(); st.GetExitCode() != 7 {
				t.Errorf("it ended with %d", st.GetExitCode())
			}
			w.End(t)
			inject.Crash(s)
			again(s)
			w = watch.Others(s)
			got := states(s)
			if len(got) != 3 || got["first"] != exited || got["second"] != running || got["third"] != running {
				t.Errorf("after the restart: %v", got)
			}
			if st := first.Status(); st.GetExitCode() != 7 {
				t.Errorf("after the restart it ended with %d", st.GetExitCode())
			}
			second.Sh(endIt)
			if st := second.Exited(); st.GetExitCode() != 7 {
				t.Errorf("the second ended with %d", st.GetExitCode())
			}
			third.Stop(5)
			w.End(t)
			mend()
			// Written by itself, within the five seconds that lie between two tries at most.
			record := filepath.Join(s.Home.Root(), "ledger", "containers", second.ID)
			s.Eventually("the record is written", 20*time.Second, func() bool {
				text, err := os.ReadFile(record)
				return err == nil && strings.Contains(string(text), `"code":7`)
			})
			p.Go(story.Sleeper("fourth")).Sh("true")
			inject.Crash(s) // what it opened while another disk lay over its own
			again(s)
		})
	}
}

// inodes uses up all inodes of the root's disk.
func inodes(t *testing.T, s *story.Story) (mend func()) {
	t.Helper()
	dir := filepath.Join(s.Home.Root(), "ballast")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(n)))
		if err != nil {
			break
		}
		f.Close()
	}
	return func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
}

// readOnly makes a folder of a home read-only for everybody who opens something in it from now on. What is open for writing keeps its disk from being
// made read-only, so the same disk, with all that is mounted in it, is laid over it once more.
func readOnly(dir func(*harness.Home) string) func(*testing.T, *story.Story) func() {
	return func(t *testing.T, s *story.Story) func() {
		t.Helper()
		at := dir(s.Home)
		for _, m := range []struct {
			from  string
			flags uintptr
		}{{at, unix.MS_BIND | unix.MS_REC}, {"", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY}} {
			if err := unix.Mount(m.from, at, "", m.flags, ""); err != nil {
				t.Fatal(err)
			}
		}
		return func() {
			t.Helper()
			if err := unix.Mount("", at, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
				t.Fatal(err)
			}
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// sharedDisk is disk, and what is mounted in it or unmounted later is so wherever else it is mounted.
func sharedDisk(dir func(*harness.Home) string, options string) func(*harness.Home) error {
	return watch.Each(disk(dir, options), func(h *harness.Home) error { return unix.Mount("", dir(h), "", unix.MS_SHARED, "") })
}

// /run is full, or read-only: what runs can be stopped, and all is well afterwards.
func TestF65TheStateCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		spoil func(*testing.T, *story.Story) func()
	}{
		{"full", func(t *testing.T, s *story.Story) func() { t.Helper(); return fill(t, s.Home.State()) }},
		{"read-only", readOnly((*harness.Home).State)},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := story.AloneIn(t, harness.Crid{}, sharedDisk((*harness.Home).State, "size=16m"))
			p := s.Pod("state")
			a, b := p.Go(story.Shell("a", "trap 'exit 3' TERM; while :; do sleep 0.2; done")), p.Go(story.Shell("b", "trap '' TERM; while :; do sleep 0.2; done"))
			mend := c.spoil(t, s)
			w := watch.Others(s)
			if _, err := s.RunPod(t.Context(), s.Home.Pod("new"), ""); err == nil {
				t.Error("a pod runs")
			} else {
				s.WantCode("a pod", err, codes.ResourceExhausted, codes.Unavailable, codes.FailedPrecondition)
			}
			a.Stop(10)
			if st := a.WantState(exited); st.GetExitCode() != 3 {
				t.Errorf("a ended with %d", st.GetExitCode())
			}
			b.Stop(1)
			if st := b.WantState(exited); st.GetExitCode() != 137 {
				t.Errorf("b ended with %d", st.GetExitCode())
			}
			w.End(t)
			mend()
			if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
				t.Error(err)
			}
			s.Pod("after").Go(story.Sleeper("c")).Sh("true")
		})
	}
}

// The disk answers EIO to every fsync: pulls are refused or go on, nothing is lost, and nobody hangs.
func TestF65FsyncFails(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	s := story.Alone(t, harness.Crid{})
	p := s.Pod("eio")
	c := p.Go(story.Sleeper("c"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	trace := exec.CommandContext(ctx, strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,syncfs", "-e", "inject=fsync,fdatasync,syncfs:error=EIO", "-p", fmt.Sprint(s.Pid()))
	trace.Cancel = func() error { return trace.Process.Signal(os.Interrupt) }
	if err := trace.Start(); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the daemon is traced", 10*time.Second, func() bool { return watch.Field(t, s.Pid(), "TracerPid") != 0 })
	_, err = s.Pull(t.Context(), "quay.io/crid/forms:oci-gzip")
	t.Logf("a pull: %v", err)
	q, err := s.RunPod(t.Context(), s.Home.Pod("meanwhile"), "")
	if err == nil {
		err = s.RemovePodFully(t.Context(), q)
	}
	t.Logf("a pod: %v", err)
	c.Sh("true")
	c.Stop(5)
	cancel()
	_ = trace.Wait()
	if err := s.Have(t.Context(), "quay.io/crid/forms:oci-gzip"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	p.Go(story.Sleeper("d")).Sh("true")
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	again(s)
	if err := s.Have(t.Context(), "quay.io/crid/forms:oci-gzip"); err != nil {
		t.Error(err)
	}
}
