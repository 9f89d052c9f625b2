package lifecycle

import (
	"errors"
	"strings"
	"testing"
)

// A story tells what happens to one container, event by event, and what the law
// says after each: the phase, what is owed, what is announced.
type story struct {
	t    *testing.T
	c    Container
	said []Notice
}

func tell(t *testing.T) *story { return &story{t: t} }

func (s *story) when(e Event) *story {
	s.t.Helper()
	old := s.c
	next, err := s.c.Step(e)
	if err != nil {
		s.t.Fatalf("%T is refused in %+v: %v", e, s.c, err)
	}
	s.said = append(s.said, Announce(old, next)...)
	s.c = next
	return s
}

func (s *story) refuses(e Event, want error) *story {
	s.t.Helper()
	next, err := s.c.Step(e)
	if !errors.Is(err, want) {
		s.t.Fatalf("%T in %v: got error %v, want %v", e, s.c.Phase, err, want)
	}
	if next != s.c {
		s.t.Fatalf("%T was refused and changed the state", e)
	}
	return s
}

func (s *story) is(p Phase, owed Work) *story {
	s.t.Helper()
	if s.c.Phase != p || s.c.Owes() != owed {
		s.t.Fatalf("got %v owing %q, want %v owing %q (%+v)", s.c.Phase, s.c.Owes(), p, owed, s.c)
	}
	return s
}

func (s *story) announced(want ...string) *story {
	s.t.Helper()
	var got []string
	for _, n := range s.said {
		got = append(got, n.String())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		s.t.Fatalf("announced %v, want %v", got, want)
	}
	return s
}

func (s *story) ended(want Exit) *story {
	s.t.Helper()
	if s.c.Exit != want {
		s.t.Fatalf("exit %+v, want %+v", s.c.Exit, want)
	}
	return s
}

func running(t *testing.T) *story {
	return tell(t).when(Made{}).when(AskStart{}).when(LaunchBegun{}).when(StartDone{}).is(Running, 0)
}

func TestAContainerLivesAndIsRemoved(t *testing.T) {
	tell(t).is(Making, 0).
		when(Made{}).is(Created, 0).
		when(AskStart{}).is(Starting, Launch).
		when(LaunchBegun{}).is(Starting, Launch).
		when(StartDone{}).is(Running, 0).
		when(SeenExited{Code: 3, Source: Kernel, Empty: true, At: 9}).is(Exited, Reap).
		ended(Exit{Code: 3, Source: Kernel, At: 9}).
		when(ReapDone{}).is(Exited, 0).
		when(AskRemove{}).is(Removing, Erase).
		when(EraseDone{}).is(Gone, 0).
		announced("started", "stopped", "deleted").
		refuses(AskStart{}, ErrGone).refuses(AskStop{}, ErrGone).refuses(AskRemove{}, ErrGone)
}

func TestAStopEscalates(t *testing.T) {
	running(t).
		when(AskStop{Now: 100, KillAt: 200}).is(Running, Term).
		when(TermDone{}).is(Running, 0).
		when(Due{Now: 199}).is(Running, 0).
		when(Due{Now: 200}).is(Running, Kill).
		when(SeenExited{Code: 137, Signal: 9, Source: Kernel, Empty: true}).is(Exited, Reap)
}

// containerd never sends the stop signal again and forgets that it was not
// delivered; a second stop could also prolong the first.
func TestASecondStopOnlyShortens(t *testing.T) {
	running(t).when(AskStop{Now: 0, KillAt: 1000}).when(TermDone{}).
		when(AskStop{Now: 1, KillAt: 5000}).when(Due{Now: 1000}).is(Running, Kill)
	running(t).when(AskStop{Now: 0, KillAt: 1000}).when(TermDone{}).
		when(AskStop{Now: 1, KillAt: 10}).is(Running, 0).when(Due{Now: 10}).is(Running, Kill)
	running(t).when(AskStop{Now: 0, KillAt: 1000}).when(AskStop{Now: 5, KillAt: 5}).is(Running, Kill)
}

func TestAStopSignalThatWasNotDeliveredIsStillOwed(t *testing.T) {
	running(t).when(AskStop{Now: 0, KillAt: 1000}).is(Running, Term).
		when(AskStop{Now: 1, KillAt: 1000}).is(Running, Term)
}

// The permanent zombie: the shim says NotFound, the record says RUNNING, stop
// "succeeds" and remove refuses. Here a missing task is no end and no obstacle.
func TestAShimThatKnowsNoTaskEndsNothing(t *testing.T) {
	running(t).when(SeenNoTask{}).is(Running, 0).
		when(AskStop{Now: 5, KillAt: 5}).is(Running, Kill).
		when(SeenExited{Code: 137, Signal: 9, Source: Kernel, Empty: true}).is(Exited, Reap).
		when(ReapDone{}).when(AskRemove{}).is(Removing, Erase)
}

func TestADeadShimTakesItsContainers(t *testing.T) {
	s := running(t).when(SeenShimGone{}).is(Running, Kill)
	s.when(SeenExited{Empty: true, At: 7}).is(Exited, Reap).ended(Exit{Code: 137, Signal: 9, Source: Assumed, At: 7})
}

func TestNobodyCanTellTheCode(t *testing.T) {
	running(t).when(SeenExited{Empty: true, At: 7}).ended(Exit{Code: 255, Source: Assumed, At: 7})
}

func TestExitedWaitsForTheCgroupToEmpty(t *testing.T) {
	running(t).
		when(SeenExited{Code: 4, Source: Kernel, At: 10}).is(Running, Kill).
		when(SeenExited{Code: 9, Source: Shim, At: 20, Empty: true}).is(Exited, Reap).
		ended(Exit{Code: 4, Source: Kernel, At: 10}).
		announced("started", "stopped")
}

func TestOOMKilledIsOfTheMainProcessOnly(t *testing.T) {
	oom := func(stop bool, e SeenExited) bool {
		s := running(t)
		if stop {
			s.when(AskStop{Now: 1, KillAt: 1})
		}
		e.Empty, e.OOMKill = true, true
		return s.when(e).c.Exit.OOM
	}
	for _, tc := range []struct {
		name string
		stop bool
		e    SeenExited
		want bool
	}{
		{"main process killed", false, SeenExited{Code: 137, Signal: 9, Source: Kernel}, true},
		{"main process killed, told by the shim", false, SeenExited{Code: 137, Source: Shim}, true},
		{"a child was killed, main exits 0", false, SeenExited{Code: 0, Source: Kernel}, false},
		{"a child was killed, main says exit 137", false, SeenExited{Code: 137, Source: Kernel}, false},
		{"a child was killed, we kill main", true, SeenExited{Code: 137, Signal: 9, Source: Kernel}, false},
	} {
		if got := oom(tc.stop, tc.e); got != tc.want {
			t.Errorf("%s: OOM %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestAFailedStart(t *testing.T) {
	tell(t).when(Made{}).when(AskStart{}).when(LaunchBegun{}).
		when(StartFailed{At: 5, Message: "no such file"}).is(Exited, Reap).
		ended(Exit{Code: CodeStartFailed, Source: Runtime, At: 5, Message: "no such file"}).
		announced("stopped").
		refuses(AskStart{}, ErrState)
}

// A crash during a start: the workload must not run twice, and a start that
// provably did not happen can be asked for again.
func TestAStartThatACrashCutShort(t *testing.T) {
	begun := func() *story { return tell(t).when(Made{}).when(AskStart{}).when(LaunchBegun{}) }
	begun().when(SeenRunning{}).is(Running, 0).announced("started")
	begun().when(SeenExited{Code: 2, Source: Shim, Empty: true}).is(Exited, Reap).announced("started", "stopped")
	begun().when(SeenNeverRan{}).is(Created, Reap).
		when(AskStart{}).is(Starting, Reap).refusesNothing().
		when(ReapDone{}).is(Starting, Launch)
	tell(t).when(Made{}).when(AskStart{}).when(SeenNeverRan{}).is(Created, 0)
}

func (s *story) refusesNothing() *story { return s }

func TestRemoveOfARunningContainerKillsIt(t *testing.T) {
	running(t).when(AskRemove{}).is(Running, Kill).
		refuses(AskStart{}, ErrState).
		when(SeenExited{Code: 137, Signal: 9, Source: Kernel, Empty: true}).is(Removing, Reap).
		when(ReapDone{}).is(Removing, Erase).when(EraseDone{}).is(Gone, 0).
		announced("started", "stopped", "deleted")
}

func TestAMakingThatFailsWasNeverThere(t *testing.T) {
	s := tell(t).when(MakeFailed{}).is(Removing, Erase)
	if s.c.Visible() {
		t.Fatal("it is shown")
	}
	s.when(EraseDone{}).is(Gone, 0).announced()
}

func TestARemovalDuringTheMaking(t *testing.T) {
	tell(t).when(AskRemove{}).is(Making, 0).when(Made{}).is(Removing, Erase)
}

func TestStopOfWhatDoesNotRunIsASuccess(t *testing.T) {
	tell(t).when(Made{}).when(AskStop{Now: 1, KillAt: 1}).is(Created, 0)
	running(t).when(SeenExited{Empty: true}).when(AskStop{Now: 1, KillAt: 1}).is(Exited, Reap)
}

func TestAPodLivesAndIsRemoved(t *testing.T) {
	p := Pod{}
	step := func(e PodEvent, phase PodPhase, owed Work) {
		t.Helper()
		next, err := p.Step(e)
		if err != nil {
			t.Fatalf("%T: %v", e, err)
		}
		p = next
		if p.Phase != phase || p.Owes() != owed {
			t.Fatalf("after %T: %v owing %q, want %v owing %q", e, p.Phase, p.Owes(), phase, owed)
		}
	}
	step(PodHold{HoldsNS | HoldsNet | HoldsShim}, PodMaking, 0)
	step(PodMade{}, Ready, 0)
	step(AskPodStop{}, Stopping, EndMembers)
	step(MembersDone{}, Stopping, EndSandbox|FreeNet)
	step(PodFreed{HoldsShim}, Stopping, FreeNet)
	step(PodFreed{HoldsNet}, Stopping, Unpin)
	step(PodFreed{HoldsNS}, Stopped, 0)
	step(AskPodStop{}, Stopped, 0)
	step(AskPodRemove{}, PodRemoving, EndMembers)
	step(MembersDone{Erased: true}, PodRemoving, ErasePod)
	step(PodErased{}, PodGone, 0)
}

func TestNamespacesGoAfterTheNetwork(t *testing.T) {
	p := Pod{Phase: Stopping, MembersEnded: true, Holds: HoldsNS | HoldsNet}
	if p.Owes().Has(Unpin) {
		t.Fatal("the namespace would go before CNI DEL, which leaves rules behind")
	}
}

func TestAPodWhoseShimDied(t *testing.T) {
	p := Pod{Phase: Ready, Holds: HoldsNS | HoldsNet | HoldsShim}
	p, _ = p.Step(SeenPodBroken{Why: WhyShim})
	if p.Phase != Broken || p.Owes() != EndSandbox {
		t.Fatalf("%v owing %q", p.Phase, p.Owes())
	}
	p, _ = p.Step(AskPodStop{})
	if p.Owes() != EndMembers {
		t.Fatalf("stop owes %q", p.Owes())
	}
}

func TestAMakingThatFailsGivesEverythingBack(t *testing.T) {
	p, _ := Pod{}.Step(PodHold{HoldsNS | HoldsNet | HoldsShim})
	p, _ = p.Step(PodMakeFailed{})
	p, _ = p.Step(MembersDone{})
	if p.Visible() || p.Owes() != EndSandbox|FreeNet {
		t.Fatalf("visible %v, owes %q", p.Visible(), p.Owes())
	}
	if _, err := p.Step(PodHold{HoldsNet}); !errors.Is(err, ErrState) {
		t.Fatalf("holds more while it goes: %v", err)
	}
}
