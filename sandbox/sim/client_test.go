package sim

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/container"
	containerplan "github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/sandbox"
	"github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/store"
)

// supervisor starts crid again after each kill.
type supervisor struct {
	m   *machine
	eye *eye
	cur atomic.Pointer[run]
	mu  sync.Mutex
	all []*run
}

// start starts crid and returns before it answers.
func (s *supervisor) start() {
	s.mu.Lock()
	r := launch(s.m, len(s.all)+1, s.eye)
	s.all = append(s.all, r)
	s.mu.Unlock()
	s.cur.Store(r)
	go r.serve()
}

// upNo is the number of the run that answers; 0: none does.
func (s *supervisor) upNo() int {
	if r := s.cur.Load(); r != nil && r.up.Load() > 0 && !r.dead.Load() {
		return r.no
	}
	return 0
}

// tell has the run that answers do something.
func (s *supervisor) tell(do func(*run)) {
	if r := s.cur.Load(); s.upNo() > 0 {
		go do(r)
	}
}

var errGone = errors.New("connection lost")

// ask is one request of a client: to the run that answers, as soon as one does.
func (s *supervisor) ask(d *dice, timeout time.Duration, do func(context.Context, *run) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for s.upNo() == 0 {
		time.Sleep(d.between(time.Millisecond, 50*time.Millisecond))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	r := s.cur.Load()
	done := make(chan error, 1)
	go func() {
		err := errGone
		defer func() { done <- err }()
		r.alive()
		time.Sleep(d.between(time.Microsecond, time.Millisecond))
		r.alive()
		r.eye.look(r)
		err = do(ctx, r)
		if r.dead.Load() {
			err = errGone
			runtime.Goexit()
		}
	}()
	select {
	case err := <-done:
		return err
	case <-r.gone:
		return errGone
	case <-time.After(timeout + 8*time.Second): // as an exec ends its process, and looks at it
		s.m.violated("I10", "a request did not end at its deadline")
		return errGone
	}
}

// client is a kubelet for one pod: it runs it with its containers, and in the
// end removes it, or leaves it as it is. Everything is tried until it works.
type client struct {
	s         *supervisor
	m         *machine
	*dice     // its own
	name      string
	impatient bool
	pod       string
	members   []string
	shares    bool // its containers share a process namespace
}

// patience is how long a client waits for an answer.
func (c *client) patience() time.Duration {
	if c.impatient && !c.m.isCalm() && c.chance(0.3) {
		return c.between(time.Millisecond, 3*time.Second)
	}
	return c.between(100*time.Second, 120*time.Second)
}

func (c *client) pause() { time.Sleep(c.between(time.Millisecond, 3*time.Second)) }

// again asks until it is answered well, or times times.
func (c *client) again(what string, times int, do func(context.Context, *run) error) error {
	var err error
	for range times {
		if err = c.s.ask(c.dice, c.patience(), do); err == nil {
			c.m.note("%s: %s", c.name, what)
			return nil
		}
		c.m.note("%s: %s: %v", c.name, what, err)
		if errors.Is(err, errGone) && c.chance(0.5) {
			continue // as soon as crid answers again, which may still settle
		}
		c.pause()
	}
	return err
}

func (c *client) live() {
	rounds := most(1+c.n(2), c.m.script.rounds)
	for attempt := range rounds {
		c.pause()
		if !c.run(uint32(attempt)) {
			continue
		}
		var wg sync.WaitGroup
		ids := make([]string, most(1+c.n(3), c.m.script.members))
		for i := range ids {
			member := *c
			member.dice = c.m.of(fmt.Sprint(c.name, attempt, "c", i))
			wg.Go(func() { ids[i] = member.container(fmt.Sprintf("c%d", i)) })
		}
		wg.Wait()
		c.members = ids
		if attempt == rounds-1 && c.chance(0.5) {
			return // left as it is
		}
		c.end()
	}
}

// run runs the pod.
func (c *client) run(attempt uint32) bool {
	req := sandbox.RunRequest{Config: sealed(c.name), Handler: "runc", Plan: podPlan(c.name, attempt)}
	c.shares = c.chance(0.3)
	req.Plan.PodPID = c.shares && c.chance(0.5) // else it is made when the first container wants it
	var id string
	err := c.again("run", 8, func(ctx context.Context, r *run) (err error) {
		id, err = r.pods.Run(ctx, req)
		return err
	})
	if err != nil {
		return false
	}
	c.pod, c.members = id, nil
	c.m.mu.Lock()
	c.m.sharing[id] = c.shares
	c.m.mu.Unlock()
	c.s.eye.promise(id, func(p *promise) { p.what, p.exists = "pod", true })
	return true
}

func podPlan(name string, attempt uint32) *plan.Pod {
	return &plan.Pod{Name: name, Namespace: "ns", UID: name, Attempt: attempt, Hostname: name,
		DNS: &plan.DNS{Servers: []string{"127.0.0.1"}}, PauseSpec: pauseSpec}
}

func pauseSpec(f plan.Facts) (*oci.Spec, error) {
	return &oci.Spec{Version: "1.2.0", Linux: &oci.Linux{CgroupsPath: f.CgroupsPath}}, nil
}

// container runs a container through some of its life.
func (c *client) container(name string) string {
	var id string
	for attempt := range uint32(1 + c.n(2)) {
		c.pause()
		req := container.CreateRequest{PodID: c.pod, Name: store.ContainerName{Name: name, Attempt: attempt}, Config: sealed(name), Plan: c.plan(name)}
		id = ""
		if c.again("create "+name, 3, func(ctx context.Context, r *run) (err error) {
			id, err = r.containers.Create(ctx, req)
			return err
		}) != nil {
			return ""
		}
		me := id
		c.m.mu.Lock()
		c.m.members[me] = c.pod
		c.m.mu.Unlock()
		c.s.eye.promise(me, func(p *promise) { p.what, p.exists = "container", true })
		if c.chance(0.5) {
			c.m.SetProgram(me, "stubborn")
		}
		if c.shares {
			c.m.SharePID(me)
		}
		if c.chance(0.2) {
			c.update(me)
		}
		if c.chance(0.9) && c.again("start "+name, 2, func(ctx context.Context, r *run) error { return r.containers.Start(ctx, me) }) == nil {
			c.s.eye.promise(me, func(p *promise) { p.started = true })
		}
		if c.chance(0.3) {
			continue // the kubelet starts a new one beside the old, which it leaves
		}
		for range c.n(3) {
			if c.chance(0.7) {
				c.enter(me)
			} else {
				c.update(me)
			}
		}
		time.Sleep(c.between(time.Millisecond, 10*time.Second))
		if c.chance(0.7) {
			grace := c.between(0, 5*time.Second)
			c.m.wanted(me)
			if c.again("stop "+name, 3, func(ctx context.Context, r *run) error { return r.containers.Stop(ctx, me, grace) }) == nil {
				c.s.eye.promise(me, func(p *promise) { p.ended = true })
			}
		}
		if c.chance(0.5) {
			c.m.wanted(me)
			c.s.eye.promise(me, func(p *promise) { p.removalUnderWay = true })
			if c.again("remove "+name, 4, func(ctx context.Context, r *run) error { return r.containers.Remove(ctx, me) }) == nil {
				c.s.eye.promise(me, func(p *promise) { p.absent = true })
			}
		}
	}
	return id
}

func (c *client) plan(string) *containerplan.Container {
	pid := containerplan.PIDContainer
	if c.shares {
		pid = containerplan.PIDPod
	}
	return &containerplan.Container{Name: "c", Image: "img", PID: pid, Resources: &oci.LinuxResources{}, Spec: func(f containerplan.Facts) (*oci.Spec, error) {
		return &oci.Spec{Version: "1.2.0", Linux: &oci.Linux{CgroupsPath: f.CgroupsPath}}, nil
	}}
}

// end stops and removes the pod.
func (c *client) end() {
	pod := c.pod
	c.m.wanted(pod)
	if c.chance(0.7) {
		_ = c.again("stop pod", 4, func(ctx context.Context, r *run) error { return r.pods.Stop(ctx, pod) })
	}
	c.s.eye.removes(pod)
	if c.again("remove pod", 6, func(ctx context.Context, r *run) error { return r.pods.Remove(ctx, pod) }) == nil {
		c.s.eye.promise(pod, func(p *promise) { p.absent = true })
	}
}

// removes notes that a pod and all in it are asked to go.
func (e *eye) removes(pod string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, p := range e.promised {
		e.m.mu.Lock()
		w := e.m.members[id]
		e.m.mu.Unlock()
		if id == pod || w == pod {
			p.removalUnderWay = true
			e.promised[id] = p
		}
	}
}
