package conformance

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/crid-project/crid/shimclient"
)

// Run holds a world to the shim contract. newWorld is called once per test; bubble
// runs each test where time is the world's (synctest.Test), or is nil.
func Run(t *testing.T, bubble func(*testing.T, func(*testing.T)), newWorld func(*testing.T) World) {
	play := func(t *testing.T, e experiment) {
		test := func(t *testing.T) { e.test(t, newWorld(t)) }
		if bubble == nil {
			test(t)
		} else {
			bubble(t, test)
		}
	}
	todo := make(chan experiment)
	var players sync.WaitGroup
	for range atOnce {
		players.Go(func() {
			for e := range todo {
				t.Run(e.name, func(t *testing.T) { play(t, e) })
			}
		})
	}
	for _, e := range experiments {
		todo <- e
	}
	close(todo)
	players.Wait()
}

// atOnce is how many experiments are made at a time. Most of them wait most of the
// time, and so t.Parallel, which counts processors, would be too careful.
const atOnce = 4

type experiment struct {
	name string
	test func(*testing.T, World)
}

// experiments, those first that wait longest.
var experiments = []experiment{
	{"nobody takes events for 22 s", eventsLost},
	{"process that nobody can kill", stuck},
	{"runtime command hangs", jammed},
	{"connection ends under a call", connectionEnded},
	{"caller leaves a call under way", callerLeft},
	{"what is refused", refusals},
	{"create that fails", createFails},
	{"nobody takes events for a moment", eventsLate},
	{"shim dies with its events", eventsDie},
	{"life of a container", life},
	{"exit code of a process that ends by itself", ownExit},
	{"unknown ids", unknownIDs},
	{"containers of one shim do not meet", siblings},
	{"container that was never started", neverStarted},
	{"shim is launched twice", launchedTwice},
	{"delete command under a living shim", fenced},
	{"exit while nobody was connected", exitWhileAway},
	{"shim is killed, containers live on", shimKilled},
	{"shim is killed before the start", shimKilledInCreated},
	{"shim is killed twice, by whatever is known of it", shimEnded},
	{"shim is stopped, and goes on", shimStopped},
	{"shim is stopped, and killed", shimStoppedAndKilled},
	{"shim is stopped, and launched and looked for", shimStoppedAndFound},
	{"shim that nobody recorded", unrecorded},
	{"new shim at a dead one's address", impostor},
	{"machine is started anew", rebooted},
	{"call that came to a stopped shim in time", lateByShim},
	{"delete that nobody waits for", deleteGoesOn},
	{"runtime has lost its state of a living container", stateForgotten},
	{"runtime has lost its state of a dead container", stateOfDeadForgotten},
	{"container that only the runtime knows", orphan},
	{"runtime command hangs, exec goes on", jammedExec},
	{"cgroup is removed under a container", uprooted},
	{"true end of a process, who ever reaps it", reaped},
	{"end of an orphan", orphanReaped},
	{"container is frozen", frozen},
	{"container is frozen and killed by its shim", frozenAndKilled},
	{"process is stopped", processStopped},
	{"exec", execs},
	{"exec that is not started", execNotStarted},
	{"exec after the end", execAfterEnd},
	{"exec before the start", execBeforeStart},
	{"exec dies with its container", execDiesWithContainer},
	{"exec in a shared process namespace", execShared},
	{"exec that nobody can kill", execStuck},
	{"exec that nobody can kill, in a shared process namespace", execStuckShared},
	{"pause", pause},
	{"what is refused while paused", paused},
	{"update", update},
	{"events are published", eventsPublished},
	{"events of an exec", eventsOfExec},
}

// run creates and starts a container and returns its pid.
func run(t *testing.T, w World, s shimclient.Tasks, id string, args ...string) int {
	t.Helper()
	_, err := s.Create(t.Context(), w.Container(t, s.Ref().ID, id, args...))
	must(t, "create "+id, err)
	pid, err := s.Start(t.Context(), id)
	must(t, "start "+id, err)
	if args[0] == "sleep" || args[0] == "stubborn" {
		eventually(t, id+" is ready", func() bool { return w.Ready(pid) })
	}
	return pid
}

func execOf(id, execID string, args ...string) shimclient.ExecSpec {
	return shimclient.ExecSpec{ID: id, ExecID: execID, Process: Process(args...)}
}

type result struct {
	exit shimclient.Exit
	err  error
}

func waiting(ctx context.Context, s shimclient.Tasks, id string) <-chan result {
	c := make(chan result, 1)
	go func() {
		exit, err := s.Wait(ctx, id)
		c <- result{exit, err}
	}()
	return c
}

// wantState ignores the time of the exit.
func wantState(t *testing.T, s shimclient.Tasks, id string, want shimclient.State) {
	t.Helper()
	got, err := s.State(t.Context(), id)
	must(t, "state", err)
	if (want.Status == shimclient.StatusStopped) == got.ExitedAt.IsZero() {
		t.Fatalf("state of %s: %v at %v", id, got.Status, got.ExitedAt)
	}
	got.ExitedAt = time.Time{}
	if got != want {
		t.Fatalf("state of %s: %+v, want %+v", id, got, want)
	}
}

func dead(t *testing.T, w World, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); w.Alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("pid %d does not die", pid)
		}
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// eventually waits for something that takes a moment.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}
