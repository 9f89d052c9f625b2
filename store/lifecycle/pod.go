package lifecycle

// PodPhase is where a pod sandbox is between its making and its end.
type PodPhase uint8

// The phases of a pod. It moves forward only.
const (
	// PodMaking: RunPodSandbox is under way; not shown to anybody.
	PodMaking PodPhase = iota
	// Ready: SANDBOX_READY.
	Ready
	// Broken: something the pod stands on is gone (its shim, its namespaces);
	// SANDBOX_NOTREADY, waiting for the kubelet to stop it.
	Broken
	// Stopping: SANDBOX_NOTREADY; the members, the shim and the network go.
	Stopping
	// Stopped: SANDBOX_NOTREADY, and nothing of it is left but files.
	Stopped
	// PodRemoving: stopping if need be, then its files and its name go.
	PodRemoving
	// PodGone: erased.
	PodGone
)

// Holding is a set of what a pod may hold in the world. A bit is on record
// before the effect that it stands for.
type Holding uint8

// What a pod may hold.
const (
	// HoldsNS: pinned namespaces, the shm mount.
	HoldsNS Holding = 1 << iota
	// HoldsNet: a CNI ADD may have been sent.
	HoldsNet
	// HoldsShim: a shim may have been started.
	HoldsShim
)

// Pod is the state of one pod sandbox.
type Pod struct {
	Phase PodPhase `json:"phase"`
	// Holds is what has to be given back.
	Holds Holding `json:"holds,omitempty"`
	// MembersEnded: since the stop was asked for, no member lives any more.
	MembersEnded bool `json:"members_ended,omitempty"`
	// MembersErased: since the removal was asked for, no member is left.
	MembersErased bool `json:"members_erased,omitempty"`
	// Unborn: its making failed; nobody was ever shown it.
	Unborn bool `json:"unborn,omitempty"`
	// Why says what broke it; empty otherwise.
	Why string `json:"why,omitempty"`
}

// Visible reports whether CRI lists the pod at all.
func (p Pod) Visible() bool { return p.Phase != PodMaking && p.Phase != PodGone && !p.Unborn }

// PodEvent is what can happen to a pod.
type PodEvent interface{ on(Pod) (Pod, error) }

type (
	// PodHold says that an effect is about to be tried.
	PodHold struct{ What Holding }
	// PodMade says that the pod is complete. Refused if it was asked to go.
	PodMade struct{}
	// PodMakeFailed says that it will not be: roll back what it holds.
	PodMakeFailed struct{}
	// AskPodStop asks for the end of members, shim and network. Never refused.
	AskPodStop struct{}
	// AskPodRemove asks for all of it to vanish. Never refused.
	AskPodRemove struct{}
	// MembersDone says that no member lives, and, with Erased, none is left.
	MembersDone struct{ Erased bool }
	// PodFreed says that something held has been given back.
	PodFreed struct{ What Holding }
	// PodErased says that record and files are gone.
	PodErased struct{}
	// SeenPodBroken: the shim is dead or a namespace is gone.
	SeenPodBroken struct{ Why string }
	// SeenReboot: the machine was started anew; no process, namespace or mount is left.
	SeenReboot struct{}
)

// Step answers the state after the event; see [Container.Step].
func (p Pod) Step(e PodEvent) (Pod, error) {
	if p.Phase == PodGone {
		if _, made := e.(PodMade); made {
			return p, refuse(ErrGone, "the pod has been removed")
		}
		return p, nil
	}
	return e.on(p)
}

func (e PodHold) on(p Pod) (Pod, error) {
	if p.Phase != PodMaking {
		return p, refuse(ErrState, "the pod is not being made any more")
	}
	p.Holds |= e.What
	return p, nil
}

func (PodMade) on(p Pod) (Pod, error) {
	if p.Phase != PodMaking {
		return p, refuse(ErrState, "the pod was asked to go while it was made")
	}
	p.Phase = Ready
	return p, nil
}

func (PodMakeFailed) on(p Pod) (Pod, error) {
	if p.Phase == PodMaking {
		p.Phase, p.Unborn = PodRemoving, true
	}
	return p, nil
}

func (AskPodStop) on(p Pod) (Pod, error) {
	switch p.Phase {
	case Ready, Broken:
		p.Phase = Stopping
	case PodMaking:
		p.Phase, p.Unborn = PodRemoving, true // nobody has its id yet but a racing client
	case Stopping, Stopped, PodRemoving, PodGone:
	}
	return p, nil
}

func (AskPodRemove) on(p Pod) (Pod, error) {
	p.Unborn = p.Unborn || p.Phase == PodMaking
	p.Phase = PodRemoving
	return p, nil
}

func (e MembersDone) on(p Pod) (Pod, error) {
	if p.Phase == Stopping || p.Phase == PodRemoving {
		p.MembersEnded = true
		p.MembersErased = p.MembersErased || (e.Erased && p.Phase == PodRemoving)
	}
	return p.settle(), nil
}

func (e PodFreed) on(p Pod) (Pod, error) {
	p.Holds &^= e.What
	return p.settle(), nil
}

func (PodErased) on(p Pod) (Pod, error) {
	if p.Owes() == ErasePod {
		p.Phase = PodGone
	}
	return p, nil
}

func (e SeenPodBroken) on(p Pod) (Pod, error) {
	if p.Phase == Ready {
		p.Phase, p.Why = Broken, e.Why
	}
	return p, nil
}

func (SeenReboot) on(p Pod) (Pod, error) {
	switch p.Phase {
	case PodMaking:
		p.Phase, p.Unborn = PodRemoving, true
	case Ready, Broken:
		p.Phase, p.Why = Broken, "the node was rebooted"
	case Stopping, Stopped, PodRemoving, PodGone:
	}
	p.Holds &^= HoldsShim
	return p.settle(), nil
}

func (p Pod) settle() Pod {
	if p.Phase == Stopping && p.MembersEnded && p.Holds == 0 {
		p.Phase = Stopped
	}
	return p
}

// Owes answers what the pod still owes the world. The order is in it: members
// end before anything is taken from under them, the network is freed before its
// namespace goes, files go last.
func (p Pod) Owes() Work {
	var w Work
	switch p.Phase {
	case Stopping, PodRemoving:
	case Broken:
		// The members of a dead shim end by their own law; what is left of the
		// shim itself goes at once, the network when the kubelet stops the pod.
		if p.Holds&HoldsShim != 0 && p.Why == WhyShim {
			return EndSandbox
		}
		return 0
	case PodMaking, Ready, Stopped, PodGone:
		return 0
	}
	if !p.MembersEnded {
		return EndMembers
	}
	if p.Holds&HoldsShim != 0 {
		w |= EndSandbox
	}
	switch {
	case p.Holds&HoldsNet != 0:
		w |= FreeNet
	case p.Holds&(HoldsNS|HoldsShim) == HoldsNS:
		w |= Unpin
	}
	if w != 0 || p.Phase == Stopping {
		return w
	}
	if !p.MembersErased {
		return EndMembers
	}
	return ErasePod
}

// WhyShim is why a pod is Broken when its shim died.
const WhyShim = "its shim died"

func (p PodPhase) String() string {
	return name([]string{"making", "ready", "broken", "stopping", "stopped", "removing", "gone"}, int(p))
}
