//go:build e2e

package crash

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// scene is a call with what it is made on. A scene is used for one run.
type scene interface {
	// set makes what the call needs to be there.
	set(t *testing.T)
	// call makes the call. Made a second time it is a retry, with the same arguments.
	call(ctx context.Context) error
	// over lets the workload end by itself, while the daemon is down.
	over(t *testing.T)
	// crashed looks at what a daemon shows that has just come up again, before any other call is made. answered: the caller had its answer.
	crashed(t *testing.T, answered bool)
	// failed looks at what is left of a call that ended with an error (nil: the daemon has got over it by itself).
	failed(t *testing.T, err error)
	// retry tells whether the call is to be made again; not if the workload has ended for good.
	retry() bool
	// done looks at the end: the call has succeeded, and the same names can be used.
	done(t *testing.T)
}

// forgotten is how long the daemon stays away in run K60: longer than a shim keeps the events that nobody takes (21 s). After that a minute is
// no longer than this.
const forgotten = 24 * time.Second

// hit has the daemon hit in one way at one point.
func (n *node) hit(t *testing.T, r run) {
	n.spoilt = true
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %s\nthe end of the daemon's log:\n%s", r.at.name, r.at.step, n.tail())
		}
	})
	if !n.Running() {
		t.Fatal("the daemon has ended in an earlier test")
	}
	s := scenes[r.rpc](n, r)
	s.set(t)
	switch r.variant {
	case kill, killFor:
		n.crash(t, r, s)
	case fail:
		n.fail(t, r, s)
	case leave:
		n.leave(t, r, s)
	}
	if t.Failed() {
		return
	}
	s.done(t)
	n.clean(t)
	n.spoilt = t.Failed()
}

// within makes a call in the background.
func within(limit time.Duration, call func(context.Context) error) (answer <-chan error, cancel func()) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	c := make(chan error, 1)
	go func() { defer cancel(); c <- call(ctx) }()
	return c, cancel
}

// patience is a kubelet's with a call.
const patience = 2 * time.Minute

// again makes a scene's call another time; it must succeed.
func repeat(t *testing.T, s scene) {
	t.Helper()
	if !s.retry() {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.call(ctx); err != nil {
		t.Fatalf("the retry fails: %v", err)
	}
}

func (n *node) crash(t *testing.T, r run, s scene) {
	n.arm(t, r.at.name, "kill")
	answer, cancel := within(patience, s.call)
	defer cancel()
	n.reached(t, r.at.name)
	n.dead(t)
	err := <-answer
	if r.variant == killFor {
		s.over(t)
		time.Sleep(forgotten)
	}
	n.again(t)
	s.crashed(t, err == nil)
	if !t.Failed() {
		repeat(t, s)
	}
}

func (n *node) fail(t *testing.T, r run, s scene) {
	n.arm(t, r.at.name, "error")
	answer, cancel := within(patience, s.call)
	defer cancel()
	n.reached(t, r.at.name)
	s.failed(t, <-answer)
	if !t.Failed() {
		repeat(t, s)
	}
}

// leave has the caller go at the point and come back at once, while the first call's work hangs there.
func (n *node) leave(t *testing.T, r run, s scene) {
	n.arm(t, r.at.name, "hang")
	answer, cancel := within(patience, s.call)
	n.reached(t, r.at.name)
	cancel()
	select {
	case err := <-answer:
		if c := status.Code(err); c != codes.Canceled && c != codes.OK && c != codes.DeadlineExceeded {
			t.Errorf("a caller who left is told: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a call does not end with its context")
	}
	n.answers(t)
	second, cancel := within(patience, s.call)
	defer cancel()
	select {
	case err := <-second:
		if err != nil && s.retry() {
			t.Errorf("a retry while the first call's work is under way fails: %v", err)
		}
		n.release(t, r.at.name)
		return
	case <-time.After(150 * time.Millisecond):
	}
	n.release(t, r.at.name)
	begin := time.Now()
	if err := <-second; err != nil {
		t.Errorf("a retry that began while the first call's work was under way fails: %v", err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the retry was answered %s after the first call's work went on", took)
	}
}

// answers fails the test if work that hangs keeps the daemon from answering others: within a second, and twice that for a busy machine.
func (n *node) answers(t *testing.T) {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := n.Pods(ctx); err != nil {
		t.Errorf("while one call's work hangs: %v", err)
	}
	if _, err := n.Containers(ctx); err != nil {
		t.Errorf("while one call's work hangs: %v", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("while one call's work hangs, the lists take %s", took)
	}
}
