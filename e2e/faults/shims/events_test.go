//go:build e2e

package shims

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

func eventsSocket(s *story.Story) string { return filepath.Join(s.Home.State(), "events.sock") }

// F31: whoever takes the shims' events does not take them. A shim stops starting processes once 128 events wait; the ends of containers are
// known all the same, and what crid asks of such a shim ends in time.
func TestF31TheEventsSocketIsStalled(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	path := eventsSocket(s)
	if err := os.Rename(path, path+".aside"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns []net.Conn
	var mu sync.Mutex
	go func() {
		for {
			c, err := l.Accept() // and says nothing
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	}()
	p := s.Pod("stalled") // its shim finds the one that says nothing
	a, b := p.Go(story.Shell("a", "trap 'exit 7' TERM; echo ready; while :; do sleep 1 & wait $!; done")), p.Go(story.Shell("b", deaf))
	a.Heard("ready")
	stuck := 0
	for range 60 {
		start := time.Now()
		_, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: b.ID, Cmd: []string{"true"}, Timeout: 2})
		inject.Within(t, "an exec", time.Since(start), 25*time.Second)
		if err != nil {
			if stuck++; stuck == 2 {
				break
			}
		}
	}
	if stuck == 0 {
		t.Error("the shim is not stalled by its events: this proves nothing")
	}
	inject.Signal(t, a.Pid(), syscall.SIGTERM)
	s.Eventually("the end", 4*time.Second, func() bool { return inject.States(s)["a"] == exited })
	if st := a.Status(); st.GetExitCode() != 7 {
		t.Errorf("code %d", st.GetExitCode())
	}
	inject.Within(t, "the stop", b.Stop(1), 31*time.Second)
	b.WantState(exited)
	inject.Clear(s, p, 60*time.Second)
	if err := os.Rename(path+".aside", path); err != nil {
		t.Fatal(err)
	}
}

// F31: crid itself always takes them.
func TestF31TwoHundredExecsAndTheirEvents(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	c := s.Pod("events").Go(story.Sleeper("c"))
	var wait sync.WaitGroup
	each := watch.Times(12, 50)
	for w := range 4 {
		wait.Go(func() {
			for n := range each {
				want := int32((w*each + n) % 100)
				r, err := s.Exec(t.Context(), c.ID, "sh", "-c", fmt.Sprintf("exit %d", want))
				if err != nil || r.GetExitCode() != want {
					t.Errorf("exec %d of %d: %d, not %d (%v)", n, w, r.GetExitCode(), want, err)
				}
			}
		})
	}
	wait.Wait()
	c.WantState(running)
}

// F32: any root process can send events. Nothing of what they say is believed.
func TestF32ForgedEvents(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p := s.Pod("forged")
	a, b := p.Go(story.Sleeper("a")), p.Go(story.Shell("b", "trap 'exit 9' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
	b.Heard("ready")
	pid := a.Pid()
	conn, err := net.Dial("unix", eventsSocket(s))
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	to := eventsapi.NewTTRPCEventsClient(client)
	sent := 0
	forge := func(namespace, topic string, e proto.Message) {
		value, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = to.Forward(ctx, &eventsapi.ForwardRequest{Envelope: &types.Envelope{Timestamp: timestamppb.Now(), Namespace: namespace, Topic: topic,
			Event: &anypb.Any{TypeUrl: string(e.ProtoReflect().Descriptor().FullName()), Value: value}}})
		if err != nil && sent == 0 {
			t.Logf("the first forged event is refused: %v", err)
		}
		sent++
	}
	w := watch.Others(s)
	for range watch.Times(20, 200) {
		for _, namespace := range []string{"crid", "k8s.io", ""} {
			for _, id := range []string{a.ID, b.ID, p.ID, "unknown", "../../etc"} {
				gone := timestamppb.New(time.Unix(1, 0))
				forge(namespace, "/tasks/exit", &events.TaskExit{ContainerID: id, ID: id, Pid: uint32(pid), ExitStatus: 3, ExitedAt: gone})
				forge(namespace, "/tasks/exit", &events.TaskExit{ContainerID: id, ID: id, Pid: 1, ExitStatus: 4})
				forge(namespace, "/tasks/oom", &events.TaskOOM{ContainerID: id})
				forge(namespace, "/tasks/delete", &events.TaskDelete{ContainerID: id, ID: id, Pid: uint32(pid), ExitStatus: 5, ExitedAt: gone})
				forge(namespace, "/tasks/start", &events.TaskStart{ContainerID: id, Pid: 1})
			}
		}
	}
	forge("crid", "/tasks/exit", &events.TaskOOM{ContainerID: "a type that is not the topic's"})
	t.Logf("%d forged events", sent)
	time.Sleep(300 * time.Millisecond) // what they might bring about
	a.WantState(running)
	a.Sh("true")
	if a.Pid() != pid {
		t.Error("its pid has changed")
	}
	b.Stop(10)
	if st := b.WantState(exited); st.GetExitCode() != 9 || st.GetReason() != "Error" {
		t.Errorf("b: code %d, reason %q", st.GetExitCode(), st.GetReason())
	}
	if st := p.Status().GetState(); st != isReady {
		t.Errorf("the pod is %s", st)
	}
	w.End(t)
}

// A client of GetContainerEvents that never reads is cut off, and costs nobody anything.
func TestAnEventsClientThatNeverReads(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	deafs, err := harness.Dial(s.Home.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer deafs.Close()
	for range 4 {
		if _, err := deafs.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	before := watch.Field(t, s.Daemon.Pid(), "VmRSS")
	// Every event carries the statuses of all of the pod's containers: with fat ones a window of 64 KiB is soon full.
	p := s.Pod("fat")
	var wait sync.WaitGroup
	for w := range 2 {
		wait.Go(func() {
			for n := range watch.Times(8, 60) {
				config := story.Shell(fmt.Sprintf("c-%d-%d", w, n), "exit 0")
				config.Annotations = map[string]string{"fat": fmt.Sprintf("%020000d", n)}
				id, err := s.Run(t.Context(), p.ID, config, p.Config)
				if err != nil {
					t.Error(err)
					continue
				}
				start := time.Now()
				if _, err := s.WaitState(t.Context(), id, exited, 10*time.Second); err != nil {
					t.Error(err)
				}
				inject.Within(t, "an end", time.Since(start), 5*time.Second)
			}
		})
	}
	wait.Wait()
	after := watch.Field(t, s.Daemon.Pid(), "VmRSS")
	t.Logf("memory of crid: %d kB before, %d kB after", before, after)
	if after-before > 64<<10 {
		t.Errorf("clients that do not read cost %d kB", after-before)
	}
	inject.Clear(s, p, 60*time.Second)
}
