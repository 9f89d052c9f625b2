package fake

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient/pidfd"
)

// Process is one process of a World. Its methods are those of a pidfd, which it
// is as well: it stays the same when its pid is given away.
type Process struct {
	w       *World
	ident   pidfd.Process
	program []string

	// Under the world's lock:
	ended   bool
	status  pidfd.Status
	begun   bool // the program runs; before, it is the OCI runtime's init
	dying   bool // ended but for what it waits for in its process namespace
	stuck   bool // in uninterruptible sleep
	killed  bool // SIGKILL is pending
	frozen  bool // its cgroup is, as of version 1: not even SIGKILL gets through
	termed  bool // SIGTERM is pending
	stopped bool // by SIGSTOP
	resumed chan struct{}
	reaped  bool        // nobody can open it any more
	holds   func() bool // somebody keeps it from ending
	onEnd   func()
	onCont  func()
	watches []func()
	done    chan struct{}
}

// spawn is called with the world's lock held. A pid of 0 takes the next.
func (w *World) spawn(pid int, program []string) *Process {
	if pid == 0 {
		w.lastPid++
		pid = w.lastPid
	}
	w.ticks++
	p := &Process{
		w: w, ident: pidfd.Process{Pid: pid, StartTime: w.ticks}, program: program,
		begun: true, done: make(chan struct{}),
	}
	w.procs[pid] = p
	return p
}

// Process names it, as pidfd.Handle.Process.
func (p *Process) Process() pidfd.Process { return p.ident }

// Program is what it runs.
func (p *Process) Program() []string { return p.program }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exited is as of a pidfd.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Status is how the process ended, as of a pidfd on a kernel that remembers.
func (p *Process) Status() (pidfd.Status, bool) {
	if !p.Exited() {
		return pidfd.Status{}, false
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.status, true
}

// Close is for the likeness with pidfd.Handle; the process does not mind.
func (p *Process) Close() error { return nil }

// Signal is as of a pidfd: ErrGone for the dead. SIGKILL kills at once unless
// the process is stuck; SIGTERM ends every program but "stubborn" with 143;
// SIGSTOP and SIGCONT stop and resume. Other signals are ignored.
func (p *Process) Signal(sig unix.Signal) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.signal(sig)
}

// signal is called with the world's lock held.
func (p *Process) signal(sig unix.Signal) error {
	if p.ended {
		return pidfd.ErrGone
	}
	switch sig {
	case unix.SIGKILL:
		p.killed = true
		if !p.stuck && !p.frozen {
			p.end(pidfd.Status{Raw: uint32(unix.SIGKILL)})
		}
	case unix.SIGTERM:
		p.termed = true
		p.heed()
	case unix.SIGSTOP:
		if !p.stopped {
			p.stopped, p.resumed = true, make(chan struct{})
		}
	case unix.SIGCONT:
		if p.stopped {
			p.stopped = false
			close(p.resumed)
			if p.onCont != nil {
				p.onCont()
			}
			p.heed()
		}
	default:
	}
	return nil
}

// heed has a pending SIGTERM take effect, if it can.
func (p *Process) heed() {
	switch {
	case !p.termed || len(p.program) == 0 || !p.runs():
	case !p.begun:
		p.end(pidfd.Status{Raw: 2 << 8}) // what is left of Go's runtime in an init that may not kill itself
	case p.program[0] != "stubborn":
		p.end(pidfd.Status{Raw: 143 << 8})
	}
}

// runs reports whether the process does anything.
func (p *Process) runs() bool { return !p.ended && !p.dying && !p.stuck && !p.stopped && !p.frozen }

// Freeze keeps the process from running, and signals from taking effect, or lets
// it go on.
func (p *Process) Freeze(frozen bool) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.freeze(frozen)
}

// freeze is called with the world's lock held.
func (p *Process) freeze(frozen bool) {
	p.frozen = frozen
	if frozen {
		return
	}
	if p.killed && !p.stuck {
		p.end(pidfd.Status{Raw: uint32(unix.SIGKILL)})
	}
	p.heed()
}

// Exit ends the process with a code of its own, if it runs: not while it is
// frozen, stopped or in a sleep that no signal ends.
func (p *Process) Exit(code int) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.runs() {
		p.end(pidfd.Status{Raw: uint32(code&0xff) << 8})
	}
}

// Stick puts the process into a sleep that no signal ends, or lets it go: a
// SIGKILL that came meanwhile takes effect then.
func (p *Process) Stick(stuck bool) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.stuck = stuck
	if stuck {
		return
	}
	if p.killed && !p.frozen {
		p.end(pidfd.Status{Raw: uint32(unix.SIGKILL)})
	}
	p.heed()
}

// end is called with the world's lock held. Idempotent.
func (p *Process) end(st pidfd.Status) {
	if p.ended || p.dying {
		return
	}
	p.status = st
	if p.holds != nil && p.holds() {
		p.dying = true
		return
	}
	p.finish()
}

// finish is the rest of the end, called with the world's lock held.
func (p *Process) finish() {
	p.ended = true
	if p.stopped {
		p.stopped = false
		close(p.resumed)
	}
	close(p.done)
	if p.w.hooks.Ended != nil {
		p.w.hooks.Ended(p)
	}
	for _, fn := range p.watches {
		go fn()
	}
	p.watches = nil
	if p.onEnd != nil {
		p.onEnd()
	} else {
		p.reaped = true // by the first process of the machine
	}
}

// Identify is pidfd.Identify: ErrGone for those who have ended, too.
func (w *World) Identify(pid int) (pidfd.Process, error) {
	p := w.Process(pid)
	if p == nil || p.Exited() {
		return pidfd.Process{}, fmt.Errorf("identify pid %d: %w", pid, pidfd.ErrGone)
	}
	return p.ident, nil
}

// Open is pidfd.Open: a process that has ended can be opened until its parent,
// a shim that is not stopped, has reaped it.
func (w *World) Open(id pidfd.Process) (*Process, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.procs[id.Pid]
	if p == nil || p.ident != id || p.reaped {
		return nil, fmt.Errorf("open %v: %w", id, pidfd.ErrGone)
	}
	return p, nil
}

// Reaped reports whether the pid's process is dead and waited for: the pid may
// be given away.
func (w *World) Reaped(pid int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.procs[pid]
	return p != nil && p.reaped
}

// Watch calls fn once, in a goroutine of its own, when the process has ended.
func (w *World) Watch(p *Process, fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.ended {
		go fn()
		return
	}
	p.watches = append(p.watches, fn)
}

// begin lets a program that ends by itself do so; with the lock held.
func (p *Process) begin() {
	p.begun = true
	if len(p.program) == 2 && p.program[0] == "exit" && p.runs() {
		code, _ := strconv.Atoi(p.program[1])
		p.end(pidfd.Status{Raw: uint32(code&0xff) << 8})
	}
}
