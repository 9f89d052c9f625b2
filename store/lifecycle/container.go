package lifecycle

// Phase is where a container is between its creation and its end.
type Phase uint8

// The phases. A container moves forward only, with one exception: a start that
// provably never ran the workload leaves Starting for Created again.
const (
	// Making: CreateContainer is under way; the name is taken, nobody is shown it.
	Making Phase = iota
	// Created: it has a name, a record and a writable layer, and no process.
	Created
	// Starting: a start was asked for; the workload may or may not run yet.
	Starting
	// Running: the workload was started and the kernel has not said it is gone.
	Running
	// Exited: the kernel said that it is gone. Never entered on less.
	Exited
	// Removing: nothing of it lives and its traces are being erased.
	Removing
	// Gone: erased, name and all.
	Gone
)

// Stop is how far a stop has escalated. It only ever grows.
type Stop uint8

// The rungs of a stop.
const (
	// NotAsked: nobody wants it stopped.
	NotAsked Stop = iota
	// TermOwed: the stop signal has to be sent.
	TermOwed
	// Termed: the stop signal was delivered and the grace period runs.
	Termed
	// Killing: SIGKILL is owed until nothing of it lives.
	Killing
)

// Source says where an exit code came from.
type Source uint8

// The sources, best first.
const (
	// NoSource: not exited.
	NoSource Source = iota
	// Kernel: the wait status, from a pidfd or /proc.
	Kernel
	// Shim: the shim's Wait or State.
	Shim
	// Assumed: nobody could tell; 137 because it was being killed, else 255.
	Assumed
	// Runtime: the workload never ran; crid or the OCI runtime says why.
	Runtime
)

// Codes that are not the workload's own.
const (
	// CodeKilled is 128 + SIGKILL.
	CodeKilled = 137
	// CodeUnknown is shown when nobody can tell the true code.
	CodeUnknown = 255
	// CodeStartFailed is shown for a container whose start failed.
	CodeStartFailed = 128
)

const sigkill = 9

// Exit is how a container ended. It is set once, on entering Exited.
type Exit struct {
	// Code is the exit code as CRI shows it: 128+n after signal n.
	Code int32 `json:"code"`
	// Signal is the signal that ended it, 0 if none or not known.
	Signal uint8 `json:"signal,omitempty"`
	// Source says who told the code.
	Source Source `json:"source,omitempty"`
	// OOM is true if the main process was killed for want of memory.
	OOM bool `json:"oom,omitempty"`
	// At is when it ended, Unix nanoseconds.
	At int64 `json:"at,omitempty"`
	// Message says why a start failed; empty otherwise.
	Message string `json:"message,omitempty"`
}

// Container is the state of one container. It is a value: comparing two says
// whether anything changed. The zero value is a container being made.
type Container struct {
	Phase Phase `json:"phase"`
	Stop  Stop  `json:"stop,omitempty"`
	// KillAt is when Termed turns into Killing, in the nanoseconds that
	// [AskStop] and [Due] count in. Later stops only make it earlier.
	KillAt int64 `json:"kill_at,omitempty"`
	// RemoveAsked: to be removed as soon as nothing of it lives.
	RemoveAsked bool `json:"remove_asked,omitempty"`
	// Launching: the effects of a start may have begun. It is on record before
	// they do, so that a crash in between is looked into and never guessed at.
	Launching bool `json:"launching,omitempty"`
	// Dirty: shim, kernel or disk may hold something of a task: Reap is owed
	// once nothing lives.
	Dirty bool `json:"dirty,omitempty"`
	// InitGone: the main process ended but others of its cgroup still live.
	InitGone bool `json:"init_gone,omitempty"`
	// Orphan: the shim that could tell and act is gone, or knows no such task.
	Orphan bool `json:"orphan,omitempty"`
	// Unborn: its making failed; nobody was ever shown it.
	Unborn bool `json:"unborn,omitempty"`
	// Exit is how it ended; with InitGone already, and for good from Exited on.
	Exit Exit `json:"exit,omitzero"`
}

// Visible reports whether CRI lists the container at all.
func (c Container) Visible() bool { return c.Phase != Making && c.Phase != Gone && !c.Unborn }

// Alive reports whether a process of the container may exist.
func (c Container) Alive() bool { return c.Phase == Starting || c.Phase == Running }

// Step answers the state after the event. An error means that the request is
// refused and the state is unchanged; sightings and completions are never
// refused, at most they change nothing.
func (c Container) Step(e Event) (Container, error) {
	if c.Phase == Gone {
		if _, ask := e.(request); ask {
			return c, refuse(ErrGone, "it has been removed")
		}
		return c, nil
	}
	return e.on(c)
}

// Event is what can happen to a container: a request, the completion of work
// that was owed, or a sighting of the world.
type Event interface {
	on(Container) (Container, error)
}

// request marks the events that may be refused.
type request interface{ isRequest() }

type (
	// AskStart asks for the workload to run. Refused unless it is Created; a
	// second one while the first is under way changes nothing.
	AskStart struct{}
	// AskStop asks for an end: the stop signal at once, SIGKILL at KillAt.
	// KillAt at or before Now means SIGKILL without a stop signal. A further
	// AskStop can only bring KillAt forward.
	AskStop struct{ Now, KillAt int64 }
	// AskRemove asks for everything of it to vanish, killing it first if it
	// lives. Never refused: removal is what always works.
	AskRemove struct{}

	// Made says that the container is complete and can be shown.
	Made struct{}
	// MakeFailed says that it never will be: what was made of it is erased.
	MakeFailed struct{}
	// LaunchBegun says that the effects of the start are about to begin.
	LaunchBegun struct{}
	// StartDone says that the workload runs (or ran).
	StartDone struct{}
	// StartFailed says that the workload did not run and will not.
	StartFailed struct {
		At      int64
		Message string
		OOM     bool
	}
	// TermDone says that the stop signal was delivered.
	TermDone struct{}
	// Due says what time it is; a grace period that is over turns to Killing.
	Due struct{ Now int64 }
	// ReapDone says: no process, no task, no shim entry, no mount, no cgroup.
	ReapDone struct{}
	// EraseDone says that record, layers and files are gone.
	EraseDone struct{}

	// SeenExited: the kernel says that the main process is gone.
	SeenExited struct {
		// Code, Signal and Source as in Exit; Source NoSource: nobody can tell.
		Code   int32
		Signal uint8
		Source Source
		// OOMKill: the cgroup counted an out-of-memory kill.
		OOMKill bool
		// Empty: no process is left in the cgroup either.
		Empty bool
		At    int64
	}
	// SeenNeverRan: after a restart, the start that was under way has provably
	// not run the workload.
	SeenNeverRan struct{}
	// SeenRunning: after a restart, the start that was under way did its work.
	SeenRunning struct{}
	// SeenNoTask: the shim does not know the task. Says nothing about the process.
	SeenNoTask struct{}
	// SeenShimGone: the shim process is dead; what is left of the pod must go too.
	SeenShimGone struct{}
)

func (AskStart) isRequest()  {}
func (AskStop) isRequest()   {}
func (AskRemove) isRequest() {}

func (AskStart) on(c Container) (Container, error) {
	switch {
	case c.RemoveAsked:
		return c, refuse(ErrState, "it is being removed")
	case c.Phase == Making:
		return c, refuse(ErrState, "it is still being created")
	case c.Phase == Starting || c.Phase == Running:
		return c, nil // joins the start under way, or finds it done
	case c.Phase != Created:
		return c, refuse(ErrState, "it has already exited; create a new one")
	}
	c.Phase = Starting
	return c, nil
}

func (e AskStop) on(c Container) (Container, error) {
	if !c.Alive() {
		return c, nil
	}
	if c.Stop == NotAsked {
		c.Stop, c.KillAt = TermOwed, e.KillAt
	}
	c.KillAt = min(c.KillAt, e.KillAt)
	return Due{e.Now}.on(c)
}

func (AskRemove) on(c Container) (Container, error) {
	c.RemoveAsked = true
	if c.Alive() {
		c.Stop = Killing
	}
	return c.settle(), nil
}

func (Made) on(c Container) (Container, error) {
	if c.Phase == Making {
		c.Phase = Created
	}
	return c.settle(), nil
}

func (MakeFailed) on(c Container) (Container, error) {
	if c.Phase == Making {
		c.Phase, c.RemoveAsked, c.Unborn = Removing, true, true
	}
	return c, nil
}

func (LaunchBegun) on(c Container) (Container, error) {
	if c.Phase == Starting && !c.Dirty {
		c.Launching, c.Dirty = true, true
	}
	return c, nil
}

func (StartDone) on(c Container) (Container, error) {
	if c.Phase == Starting {
		c.Phase, c.Launching = Running, false
	}
	return c, nil
}

func (e StartFailed) on(c Container) (Container, error) {
	if c.Phase != Starting {
		return c, nil
	}
	return c.exit(Exit{Code: CodeStartFailed, Source: Runtime, At: e.At, Message: e.Message, OOM: e.OOM}), nil
}

func (TermDone) on(c Container) (Container, error) {
	if c.Stop == TermOwed {
		c.Stop = Termed
	}
	return c, nil
}

func (e Due) on(c Container) (Container, error) {
	if (c.Stop == TermOwed || c.Stop == Termed) && e.Now >= c.KillAt {
		c.Stop = Killing
	}
	return c, nil
}

func (ReapDone) on(c Container) (Container, error) {
	if !c.Launching && c.Phase != Running {
		c.Dirty = false
	}
	return c.settle(), nil
}

func (EraseDone) on(c Container) (Container, error) {
	if c.Phase == Removing && !c.Dirty {
		c.Phase = Gone
	}
	return c, nil
}

func (e SeenExited) on(c Container) (Container, error) {
	if !c.Alive() || (c.Phase == Starting && !c.Launching) {
		return c, nil
	}
	if !c.InitGone {
		c.InitGone, c.Exit = true, c.judge(e)
	}
	if !e.Empty {
		return c, nil
	}
	return c.exit(c.Exit), nil
}

// judge says how a container ended: with what code when nobody can tell, and
// whether the lack of memory ended it. A kill that we owed is ours, and the
// out-of-memory kill of a child is not the container's.
func (c Container) judge(e SeenExited) Exit {
	x := Exit{Code: e.Code, Signal: e.Signal, Source: e.Source, At: e.At}
	if e.Source == NoSource {
		x.Source, x.Code = Assumed, CodeUnknown
		if c.Stop == Killing {
			x.Code, x.Signal = CodeKilled, sigkill
		}
	}
	bySIGKILL := x.Signal == sigkill || (x.Source == Shim && x.Code == CodeKilled)
	x.OOM = e.OOMKill && bySIGKILL && c.Stop != Killing
	return x
}

func (SeenNeverRan) on(c Container) (Container, error) {
	if c.Phase != Starting {
		return c, nil
	}
	c.Phase, c.Launching, c.Stop, c.KillAt = Created, false, NotAsked, 0
	return c.settle(), nil
}

func (SeenRunning) on(c Container) (Container, error) { return StartDone{}.on(c) }

func (SeenNoTask) on(c Container) (Container, error) {
	if c.Phase == Running {
		c.Orphan = true
	}
	return c, nil
}

func (SeenShimGone) on(c Container) (Container, error) {
	if c.Alive() {
		c.Orphan, c.Stop = true, Killing
	}
	return c, nil
}

// exit enters Exited, once.
func (c Container) exit(x Exit) Container {
	c.Phase, c.Exit, c.Launching, c.InitGone = Exited, x, false, false
	return c.settle()
}

// settle goes on to Removing where that was asked for and nothing lives.
func (c Container) settle() Container {
	if c.RemoveAsked && (c.Phase == Created || c.Phase == Exited) {
		c.Phase = Removing
	}
	return c
}
