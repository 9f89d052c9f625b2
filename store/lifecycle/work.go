package lifecycle

import (
	"errors"
	"fmt"
	"strings"
)

// Work is a set of things owed to the world. Each is idempotent but Launch,
// which the law owes at most once in the life of a container, and each is named
// by its postcondition.
type Work uint16

// The work of a container.
const (
	// Launch: the workload runs. Never retried by itself.
	Launch Work = 1 << iota
	// Term: the stop signal has been delivered to the main process.
	Term
	// Kill: no process of the container lives.
	Kill
	// Reap: no process, no task, no shim entry, no mount, no cgroup.
	Reap
	// Erase: no record, no writable layer, no file; the name is free.
	Erase
)

// The work of a pod.
const (
	// EndMembers: no container of the pod lives, and with Removing none is left.
	EndMembers Work = 1 << (iota + 8)
	// EndSandbox: no sandbox task, no shim, no socket of it.
	EndSandbox
	// FreeNet: CNI DEL succeeded.
	FreeNet
	// Unpin: no pinned namespace, no mount of the pod. Only after FreeNet.
	Unpin
	// ErasePod: no record, no file; the name is free.
	ErasePod
)

// Has reports whether all of x is in w.
func (w Work) Has(x Work) bool { return w&x == x }

var workNames = []struct {
	w    Work
	name string
}{{Launch, "launch"}, {Term, "term"}, {Kill, "kill"}, {Reap, "reap"}, {Erase, "erase"},
	{EndMembers, "end-members"}, {EndSandbox, "end-sandbox"}, {FreeNet, "free-net"}, {Unpin, "unpin"}, {ErasePod, "erase-pod"}}

func (w Work) String() string {
	var s []string
	for _, n := range workNames {
		if w.Has(n.w) {
			s = append(s, n.name)
		}
	}
	return strings.Join(s, "+")
}

// Split answers the single works of w, in the order in which they are declared.
func (w Work) Split() []Work {
	var out []Work
	for _, n := range workNames {
		if w.Has(n.w) {
			out = append(out, n.w)
		}
	}
	return out
}

// Owes answers what the container still owes the world.
func (c Container) Owes() Work {
	switch c.Phase {
	case Created:
		if c.Dirty {
			return Reap
		}
	case Starting:
		if c.InitGone {
			return Kill
		}
		if c.Launching || !c.Dirty {
			return Launch
		}
		return Reap // what an earlier attempt left goes first
	case Running:
		switch {
		case c.InitGone || c.Stop == Killing:
			return Kill
		case c.Stop == TermOwed:
			return Term
		}
	case Exited:
		if c.Dirty {
			return Reap
		}
	case Removing:
		if c.Dirty {
			return Reap
		}
		return Erase
	case Making, Gone:
	}
	return 0
}

// Notice is a container event as CRI knows them.
type Notice uint8

// The notices.
const (
	NoticeCreated Notice = iota
	NoticeStarted
	NoticeStopped
	NoticeDeleted
)

// Announce answers the CRI events between two states of one container. Created
// is announced by whoever makes the record, for there is no state before it.
func Announce(old, now Container) []Notice {
	var n []Notice
	ran := now.Phase == Running || (ended(now) && now.Exit.Source != Runtime)
	if old.Phase == Starting && ran {
		n = append(n, NoticeStarted)
	}
	if ended(now) && !ended(old) && old.Alive() {
		n = append(n, NoticeStopped)
	}
	if now.Phase == Gone && old.Phase != Gone && !now.Unborn {
		n = append(n, NoticeDeleted)
	}
	return n
}

func ended(c Container) bool { return c.Phase >= Exited }

// Why a request is refused. The server turns them into gRPC codes.
var (
	// ErrGone: there is no such thing any more.
	ErrGone = errors.New("gone")
	// ErrState: it is not in a state in which this can be asked of it.
	ErrState = errors.New("wrong state")
)

func refuse(kind error, why string) error { return fmt.Errorf("%s: %w", why, kind) }

// String names of phases and rungs, for logs and verbose status.
func (p Phase) String() string {
	return name([]string{"making", "created", "starting", "running", "exited", "removing", "gone"}, int(p))
}

func (s Stop) String() string {
	return name([]string{"not-asked", "term-owed", "termed", "killing"}, int(s))
}

func (s Source) String() string {
	return name([]string{"", "kernel", "shim", "assumed", "runtime"}, int(s))
}

func (n Notice) String() string {
	return name([]string{"created", "started", "stopped", "deleted"}, int(n))
}

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}
