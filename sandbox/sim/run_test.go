package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/logs"
	containerplan "github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/sandbox"
	"github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/sandbox/reconcile"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/fake"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle/trace"
)

// run is one life of crid, from its start to its kill. Once it is dead whatever
// of it touches the machine ends on the spot: nothing is told, nothing undone.
type run struct {
	m    *machine
	no   int
	dead atomic.Bool
	gone chan struct{}
	// up is when it began to answer, in nanoseconds since the machine's start; 0: not yet.
	up     atomic.Int64
	ctx    context.Context
	cancel context.CancelFunc

	ledger     *store.Ledger
	pods       *sandbox.Pods
	containers *container.Containers
	reconciler *reconcile.Reconciler
	eye        *eye
	conns      []*fake.Shim // under the machine's lock
}

type sealed string

func (s sealed) Marshal() ([]byte, error) { return []byte(s), nil }

func openSealed(b []byte) (store.Sealed, error) { return sealed(b), nil }

// launch makes the parts as the daemon does.
func launch(m *machine, no int, e *eye) *run {
	r := &run{m: m, no: no, gone: make(chan struct{}), eye: e}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	log := slog.New(&diary{r: r})
	var lost []store.Lost
	var err error
	r.ledger, lost, err = store.Open(store.Config{Dir: filepath.Join(m.root, "ledger"), Copies: filepath.Join(m.state, "records"), Boot: fmt.Sprint("boot", m.boot), OpenPod: openSealed, OpenContainer: openSealed,
		Disk: disk{r}, Log: log, Trace: r.trace()})
	for _, l := range lost {
		if !m.isExempt(filepath.Base(l.Path)) {
			m.violated("recovery", "a good record is lost: %v", l)
		}
	}
	if err != nil {
		m.violated("recovery", "open ledger: %v", err)
		return r
	}
	rt := shimclient.Runtime{Name: "runc", Path: "/bin/shim", Options: map[string]any{"Root": m.handlerDir}}
	r.pods = sandbox.New(sandbox.Config{Ledger: r.ledger, Host: host{r}, Networks: networks{r}, Namespaces: namespaces{r}, Kernel: kernel{r},
		Handlers: handlers{rt}, Handler: func(string) (sandbox.Handler, error) { return sandbox.Handler{Runtime: rt, Pause: m.pause}, nil },
		Plan:     func(p *store.Pod) (*plan.Pod, error) { return podPlan(p.Name.Name, p.Name.Attempt), nil },
		StateDir: m.state, CgroupDriver: "cgroupfs", CgroupParent: "/crid", Log: log})
	r.containers = container.New(container.Config{Ledger: r.ledger, Shims: r.pods, Handlers: handlers{rt}, Images: images{r}, Users: users,
		Kernel: kernel{r}, Follow: func(*logs.Log, logs.Stream, string) (container.Tail, error) { return tail{r}, nil },
		StateDir: m.state, RootDir: m.root, CgroupDriver: "cgroupfs", CgroupParent: "/crid", MaxLogLine: 1 << 14, Log: log})
	r.pods.Members = r.containers
	r.reconciler = reconcile.New(reconcile.Config{Ledger: r.ledger, Lost: lost, Pods: r.pods, Containers: r.containers, Networks: networks{r},
		Images: images{r}, Shims: host{r}, Kernel: kernel{r}, Runtimes: []shimclient.Runtime{rt}, StateDir: m.state, RootDir: m.root,
		CgroupParent: "/crid", Log: log})
	return r
}

// serve does what the daemon does, in that order.
func (r *run) serve() {
	if r.reconciler == nil {
		return // it did not come up
	}
	r.m.note("%d: crid starts", r.no)
	r.reconciler.Recover(r.ctx)
	r.alive()
	r.up.Store(int64(time.Since(r.m.began)) + 1)
	r.m.note("%d: crid answers", r.no)
	r.m.Deaf(false)
	go r.reconciler.Hear(r.ctx, r.m.Events())
	go r.reconciler.Audit(r.ctx)
	go r.reconciler.LookAtNamespaces() // as the watch of the mount table begins with
	go r.reconciler.Settle(r.ctx)
	go r.eye.follow(r)
}

// kill is SIGKILL.
func (r *run) kill() {
	r.m.note("%d: crid is killed", r.no)
	r.dead.Store(true)
	close(r.gone)
	r.cancel()
	r.m.Deaf(true)
	// The kernel closes its connections, and shims hear of it a little later.
	go func() {
		time.Sleep(r.m.between(time.Millisecond, time.Second))
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		for _, s := range r.conns {
			_ = s.Close()
		}
	}()
}

// bury ends the goroutines of a dead run, at the end of a seed.
func (r *run) bury() {
	r.dead.Store(true)
	r.cancel()
	if r.reconciler == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.containers.Close(ctx)
	r.pods.Close(ctx)
	r.ledger.Close()
}

// alive ends the calling goroutine if the run is dead.
func (r *run) alive() {
	if r.dead.Load() {
		runtime.Goexit()
	}
}

// takes lets time pass before something happens.
func (r *run) takes(what, id string, low, high time.Duration) {
	r.alive()
	time.Sleep(r.m.by(what, id).between(low, high))
	r.alive()
	r.eye.look(r)
}

// step is a call of the kernel that may take a moment.
func (r *run) step(what, id string) error {
	r.takes(what, id, 10*time.Microsecond, 2*time.Millisecond)
	return nil
}

var errInjected = errors.New("injected")

// call is a call of something slow that may fail before or after its effect.
func (r *run) call(ctx context.Context, what, id string, effect func()) error {
	d := r.m.by(what, id)
	r.takes(what, id, 10*time.Microsecond, 5*time.Millisecond)
	before, after := r.m.mishap(d), r.m.mishap(d)
	if before {
		if d.chance(0.5) {
			r.m.note("%d:   %s %s fails", r.no, what, short(id))
			return errInjected
		}
		r.m.note("%d:   %s %s is slow", r.no, what, short(id))
		t := time.NewTimer(d.between(time.Millisecond, 20*time.Second))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			r.alive()
			return ctx.Err()
		}
		r.alive()
	}
	effect()
	r.takes(what, id, 10*time.Microsecond, 5*time.Millisecond)
	if after {
		r.m.note("%d:   %s %s fails after its effect", r.no, what, short(id))
		return errInjected
	}
	return nil
}

type handlers struct{ rt shimclient.Runtime }

func (h handlers) Runtime(string) (shimclient.Runtime, error) { return h.rt, nil }
func (handlers) Kernel(string) containerplan.Kernel           { return containerplan.Kernel{} }

// tail is an output stream that has ended.
type tail struct{ *run }

func (t tail) Drain(context.Context) error {
	t.takes("drain", "", time.Microsecond, time.Millisecond)
	return nil
}

// disk is the page cache: what was written before a kill of crid stays.
type disk struct{ *run }

func (d disk) Replace(path string, content []byte) error {
	d.takes("write", filepath.Base(path), 10*time.Microsecond, time.Millisecond)
	d.m.mu.Lock()
	full := d.m.full
	d.m.mu.Unlock()
	if d.isCopy(path) {
		return os.WriteFile(path, content, 0o600) // on a tmpfs: never full, gone with the machine
	}
	if full {
		_ = os.WriteFile(path+".new", content[:len(content)/2], 0o600)
		return &os.PathError{Op: "write", Path: path, Err: unix.ENOSPC}
	}
	before, _ := os.ReadFile(path)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	d.takes("write", filepath.Base(path), time.Microsecond, 100*time.Microsecond)
	err := os.Rename(path+".new", path)
	d.m.wrote(path, before, content)
	if s := string(content); strings.Contains(s, `"state":{"phase":4`) || strings.Contains(s, `"state":{"phase":5`) {
		d.eye.saved(filepath.Base(path), d.no)
	}
	d.takes("write", filepath.Base(path), time.Microsecond, 100*time.Microsecond)
	return err
}

func (d disk) Remove(path string) error {
	d.takes("unlink", filepath.Base(path), 10*time.Microsecond, time.Millisecond)
	if d.isCopy(path) {
		return os.RemoveAll(path)
	}
	_ = os.Remove(path + ".new")
	if before, err := os.ReadFile(path); err == nil {
		d.m.wrote(path, before, nil)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d.takes("unlink", filepath.Base(path), time.Microsecond, 100*time.Microsecond)
	return nil
}

func (d disk) isCopy(path string) bool { return strings.HasPrefix(path, d.m.state+"/records/") }

// diary keeps crid's log among the lines of the machine.
type diary struct {
	r     *run
	attrs string
}

func (d *diary) Enabled(_ context.Context, l slog.Level) bool { return keepLog && l >= slog.LevelInfo }
func (d *diary) WithGroup(string) slog.Handler                { return d }
func (d *diary) WithAttrs(as []slog.Attr) slog.Handler {
	n := *d
	for _, a := range as {
		n.attrs += " " + a.String()
	}
	return &n
}

func (d *diary) Handle(_ context.Context, rec slog.Record) error {
	line := rec.Message + d.attrs
	rec.Attrs(func(a slog.Attr) bool { line += " " + a.Key + "=" + cut(a.Value.String()); return true })
	d.r.m.note("%d:     log: %s", d.r.no, line)
	return nil
}

func cut(s string) string {
	if len(s) == 64 && store.ValidID(s) {
		return short(s)
	}
	return s
}

// trace keeps every step of the law, when somebody looks at a seed.
func (r *run) trace() func(trace.Step) {
	if !keepLog && !keepSteps {
		return nil
	}
	return func(s trace.Step) {
		r.m.note("%d:   %s %s%s -> %s owes %q", r.no, short(s.ID), s.Event, s.Input, s.Now, s.Owes)
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		r.m.steps = append(r.m.steps, taken{s, r.no})
	}
}
