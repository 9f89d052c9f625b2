//go:build e2e

package net

import (
	"context"
	"fmt"
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
	"github.com/crid-project/crid/e2e/story"
)

// condition is NetworkReady as the kubelet is told it.
func condition(b *bench) *runtimeapi.RuntimeCondition {
	b.T.Helper()
	r, err := b.Runtime.Status(b.T.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		b.T.Fatal(err)
	}
	for _, c := range r.GetStatus().GetConditions() {
		if c.GetType() == "NetworkReady" {
			return c
		}
	}
	b.T.Fatal("no condition NetworkReady")
	return nil
}

func ready(b *bench) bool { return condition(b).GetStatus() }

// A subnet of six addresses, one the bridge's: the sixth pod is told why, and one removal makes room; the same again and again loses no lease.
func TestF82AddressesRunOut(t *testing.T) {
	t.Parallel()
	b := begin(t)
	if err := edit(b.Home, func(conf map[string]any) {
		plugins, _ := conf["plugins"].([]any)
		bridge, _ := plugins[0].(map[string]any)
		ipam, _ := bridge["ipam"].(map[string]any)
		subnet := strings.TrimSuffix(b.Home.Subnet.Addr().String(), ".0")
		ipam["ranges"] = []any{[]any{map[string]any{"subnet": b.Home.Subnet.String(), "rangeStart": subnet + ".2", "rangeEnd": subnet + ".6"}}}
	}); err != nil {
		t.Fatal(err)
	}
	before := b.Census(t.Context())
	var ids []string
	for len(ids) < 8 {
		id, err := b.RunPod(t.Context(), b.Home.Pod(fmt.Sprintf("address-%d", len(ids))), "")
		if err != nil {
			if !strings.Contains(err.Error(), "no IP addresses available") {
				t.Fatalf("the pod without an address: %v", err)
			}
			break
		}
		ids = append(ids, id)
	}
	if len(ids) != 5 {
		t.Fatalf("%d pods have one of five addresses", len(ids))
	}
	for n := range watch.Times(10, 200) {
		if words := b.refused("a pod too many", "too-many"); !strings.Contains(words, "no IP addresses available") {
			t.Errorf("round %d: %s", n, words)
		}
		i := n % len(ids)
		if err := b.RemovePodFully(t.Context(), ids[i]); err != nil {
			t.Fatal(err)
		}
		id, err := b.RunPod(t.Context(), b.Home.Pod("address-again"), "")
		if err != nil {
			t.Fatalf("round %d: after a removal there is no address: %v", n, err)
		}
		ids[i] = id
		if got := leases(b.Census(t.Context())); got != leases(before)+5 {
			t.Fatalf("round %d: %d leases for five pods", n, got-leases(before))
		}
	}
	for _, id := range ids {
		if err := b.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	b.clean("addresses that ran out", before)
}

// The folder of configurations is empty, then has a network, then one that is rewritten all the time, also in pieces: what the kubelet is told
// follows, and pods that are run meanwhile run or are refused in words.
func TestF83TheConfigurationComesAndChanges(t *testing.T) {
	b := begin(t)
	list, err := os.ReadFile(confPath(b.Home))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(confPath(b.Home)); err != nil {
		t.Fatal(err)
	}
	crashAndStart(b)
	watch.Others(b.Story)
	if c := condition(b); c.GetStatus() || c.GetMessage() == "" {
		t.Errorf("without a network: %v", c)
	}
	b.refused("no network", "none")
	if err := os.WriteFile(confPath(b.Home), list, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Eventually("the network that came is ready", 10*time.Second, func() bool { return ready(b) })
	b.reuse("a network that came late", "late")

	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { // not by rename: readers see it empty and in pieces
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			f, err := os.OpenFile(confPath(b.Home), os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			for at := 0; at < len(list); at += len(list)/3 + 1 {
				_, _ = f.Write(list[at:min(len(list), at+len(list)/3+1)])
			}
			f.Close()
		}
	})
	ran := 0
	for n := range watch.Times(8, 50) {
		id, err := b.RunPod(t.Context(), b.Home.Pod("rewritten"), "")
		if err != nil {
			t.Logf("pod %d while the file is rewritten: %v", n, err)
			continue
		}
		ran++
		if err := b.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	writer.Wait()
	if ran == 0 {
		t.Error("no pod ran while the file was rewritten with the same content")
	}
	if err := os.WriteFile(confPath(b.Home), list, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Eventually("the network is ready again", 10*time.Second, func() bool { return ready(b) })
	b.reuse("a network that was rewritten", "rewritten")
}

// The daemon dies while an ADD is under way or has just ended: after the restart as many addresses are given away as pods live.
func TestF84ACrashBetweenAddAndItsRecord(t *testing.T) {
	b := begin(t)
	before := b.Census(t.Context())
	for n := range watch.Times(6, 100) {
		// The bridge has given the address by the time that our plugin is slow.
		b.fault("ADD", fmt.Sprintf("slow:%dms", n*7%60))
		adds := b.saw("ADD", "")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		ended := make(chan struct{})
		go func() { defer close(ended); _, _ = b.CRI.RunPod(ctx, b.Home.Pod("crash"), "") }()
		b.Eventually("ADD is called", 10*time.Second, func() bool { return b.saw("ADD", "") > adds })
		time.Sleep(time.Duration(n*13%50) * time.Millisecond) // a moment of its own each time, around the end of the ADD
		if err := b.Kill(); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-ended
		b.well()
		if err := b.Daemon.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Eventually("leases are those of living pods", 15*time.Second, func() bool {
			pods, err := b.Pods(t.Context())
			return err == nil && leases(b.Census(t.Context()))-leases(before) == len(pods)
		})
		if err := b.RemoveAllPods(t.Context()); err != nil {
			t.Error(err)
		}
	}
	b.clean("crashes around ADD", before)
}

// lockLeases holds the lock of a home's leases until the function it gives is called, or the test ends.
func lockLeases(s *story.Story) (release func()) {
	s.T.Helper()
	path := filepath.Join(s.Home.IPAM(), s.Home.Name, "lock")
	lock := exec.Command("flock", path, "sleep", "200")
	lock.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := lock.Start(); err != nil {
		s.T.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = unix.Kill(-lock.Process.Pid, unix.SIGKILL); _ = lock.Wait() })
	s.T.Cleanup(release)
	s.Eventually("the lock is held", 5*time.Second, func() bool { return exec.Command("flock", "-n", path, "true").Run() != nil })
	return release
}

// With the settings that crid has by itself, the answer comes within 30 s, which leaves a kubelet time to read it. What it could not undo by then,
// for the lock is still held, is undone when it can be.
func TestF85AnswerInTimeWhileLeasesAreLocked(t *testing.T) {
	t.Parallel()
	s := story.Alone(t, harness.Crid{})
	before := s.Census(t.Context())
	release := lockLeases(s)
	start := time.Now()
	_, err := s.RunPod(t.Context(), s.Home.Pod("locked"), "")
	took := time.Since(start)
	s.WantCode("a pod while leases are locked", err, codes.Unavailable)
	t.Logf("answer after %s: %v", took, err)
	if took > 35*time.Second { // 28 s; tests share a small machine
		t.Errorf("%s until the answer", took)
	}
	time.Sleep(3 * time.Second) // DEL is at work, and waits for the lock as well
	release()
	for _, leak := range s.Settle(t.Context(), before, 40*time.Second) {
		t.Error(leak)
	}
	id, err := s.RunPod(t.Context(), s.Home.Pod("locked"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemovePodFully(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// The lease folder cannot be written, or somebody holds its lock: an error in time, nothing left, and all is well afterwards.
func TestF85LeasesThatCannotBeHad(t *testing.T) {
	t.Parallel()
	b := begin(t)
	watch.Others(b.Story)
	before := b.Census(t.Context())

	release := lockLeases(b.Story)
	words := b.refused("the lock is held", "locked")
	t.Logf("while the lock is held: %s", words)
	release()
	// The DEL of that pod had to wait for the lock as well; it goes on by itself.
	b.clean("the lock is held", before)
	b.reuse("the lock is held", "locked")

	if err := unix.Mount(b.Home.IPAM(), b.Home.IPAM(), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	thaw := sync.OnceFunc(func() {
		if err := unix.Unmount(b.Home.IPAM(), 0); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(thaw)
	if err := unix.Mount("", b.Home.IPAM(), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if words := b.refused("leases are read-only", "readonly"); !strings.Contains(words, "read-only") {
		t.Errorf("the reason is lost: %s", words)
	}
	thaw()
	b.clean("leases are read-only", before)
	b.reuse("leases are read-only", "readonly")
}
