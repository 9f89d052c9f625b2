package store

import (
	"testing"

	"github.com/crid-project/crid/store/lifecycle"
)

// life takes a container from its making to its end.
func life(t *testing.T, l *Ledger, n int) {
	t.Helper()
	l.AddContainer(member(n, 9))
	step := func(e lifecycle.Event, also ...func(*Container)) {
		_, err := l.StepContainer(id(n), e, also...)
		must(t, err)
	}
	step(lifecycle.Made{})
	l.AnnounceCreated(id(n))
	step(lifecycle.AskStart{})
	step(lifecycle.LaunchBegun{})
	step(lifecycle.StartDone{}, func(c *Container) { c.StartedAt = 50 })
	step(lifecycle.SeenExited{Code: 3, Source: lifecycle.Kernel, Empty: true, At: 60})
	step(lifecycle.AskRemove{})
	step(lifecycle.ReapDone{})
	must(t, l.EraseContainer(bounded(t), id(n)))
}

func drained(s *Subscription) (out []Notice) {
	for n := range s.Notices {
		out = append(out, n)
	}
	return out
}

func TestASubscriberHearsAllInOrder(t *testing.T) {
	l := ledger(t)
	s := l.Subscribe(10)
	life(t, l, 1)
	s.Cancel()
	s.Cancel() // idempotent
	got := drained(s)
	want := []lifecycle.Notice{lifecycle.NoticeCreated, lifecycle.NoticeStarted, lifecycle.NoticeStopped, lifecycle.NoticeDeleted}
	if len(got) != len(want) || s.Overrun() {
		t.Fatalf("heard %v, overrun %v", got, s.Overrun())
	}
	for i, n := range got {
		if n.Kind != want[i] || n.Container.ID != id(1) || n.At == 0 {
			t.Errorf("notice %d is %v of %s at %d", i, n.Kind, n.Container.ID, n.At)
		}
	}
	if got[1].At != 50 || got[2].At != 60 || got[2].Container.State.Exit.Code != 3 {
		t.Errorf("started at %d, stopped at %d with %+v", got[1].At, got[2].At, got[2].Container.State.Exit)
	}
	if got[0].Container.State.Phase != lifecycle.Created {
		t.Errorf("the snapshot of an older notice shows %v", got[0].Container.State.Phase)
	}
}

// One consumer that sleeps costs itself, not the others and not the containers.
func TestASlowSubscriberIsCutOff(t *testing.T) {
	l := ledger(t)
	slow, brisk, deaf := l.Subscribe(1), l.Subscribe(100), l.Subscribe(0)
	for n := 1; n <= 3; n++ {
		life(t, l, n)
	}
	if got := drained(slow); len(got) != 1 || !slow.Overrun() {
		t.Errorf("the slow one heard %d and overrun is %v", len(got), slow.Overrun())
	}
	if got := drained(deaf); len(got) != 0 || !deaf.Overrun() {
		t.Errorf("the deaf one heard %d and overrun is %v", len(got), deaf.Overrun())
	}
	if l.CutOff() != 2 {
		t.Errorf("%d were cut off", l.CutOff())
	}
	slow.Cancel() // after being cut off: no second close
	brisk.Cancel()
	if got := drained(brisk); len(got) != 12 || brisk.Overrun() {
		t.Errorf("the brisk one heard %d of 12", len(got))
	}
}

func TestAnUnbornContainerIsNotAnnounced(t *testing.T) {
	l := ledger(t)
	s := l.Subscribe(10)
	l.AddContainer(member(1, 9))
	_, err := l.StepContainer(id(1), lifecycle.MakeFailed{})
	must(t, err)
	must(t, l.EraseContainer(bounded(t), id(1)))
	s.Cancel()
	if got := drained(s); len(got) != 0 {
		t.Errorf("announced %v", got)
	}
}
