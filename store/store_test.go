package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/crid-project/crid/store/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sealed is a configuration of the tests'.
type sealed string

func (s sealed) Marshal() ([]byte, error) { return []byte(s), nil }

func unseal(b []byte) (Sealed, error) {
	if string(b) == "unreadable" {
		return nil, fmt.Errorf("cannot parse %q", b)
	}
	return sealed(b), nil
}

const boot = "boot-1"

// id answers a valid id that is easy to tell from others.
func id(n int) string { return fmt.Sprintf("%064x", n) }

func config(dir string) Config {
	return Config{Dir: dir, Boot: boot, OpenPod: unseal, OpenContainer: unseal, Log: slog.New(slog.DiscardHandler)}
}

// open opens the ledger in dir and closes it at the end of the test.
func open(t testing.TB, dir string) (*Ledger, []Lost) {
	t.Helper()
	l, lost, err := Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, lost
}

func ledger(t testing.TB) *Ledger {
	t.Helper()
	l, lost := open(t, filepath.Join(t.TempDir(), "ledger"))
	if len(lost) > 0 {
		t.Fatalf("an empty ledger lost %v", lost)
	}
	return l
}

func pod(n int) *Pod {
	return &Pod{ID: id(n), Name: PodName{Name: fmt.Sprint("pod", n), Namespace: "default", UID: fmt.Sprint("uid", n)}, Handler: "runc",
		Config: sealed("pod config"), CreatedAt: int64(n)}
}

func member(n, of int) *Container {
	return &Container{ID: id(n), PodID: id(of), Name: ContainerName{Name: fmt.Sprint("c", n)}, Config: sealed("container config"),
		CreatedAt: int64(n), ImageID: "sha256:abc"}
}

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kept makes a ledger with pods 1..pods, each with container 100+n, flushed.
func kept(t testing.TB, dir string, pods int) {
	t.Helper()
	l, _ := open(t, dir)
	for n := 1; n <= pods; n++ {
		l.AddPod(pod(n))
		l.AddContainer(member(100+n, n))
		_, err := l.StepPod(id(n), lifecycle.PodMade{})
		must(t, err)
		_, err = l.StepContainer(id(100+n), lifecycle.Made{})
		must(t, err)
		must(t, l.FlushPod(bounded(t), id(n)))
		must(t, l.FlushContainer(bounded(t), id(100+n)))
	}
	l.Close()
}

func TestARecordComesBackAsItWas(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	p := pod(1)
	p.Net, p.IPs, p.NetNS, p.Shim = []byte("saved"), []string{"10.0.0.1"}, "/ns", ShimRef{ID: id(1), Process: Process{Pid: 7, StartTime: 9}}
	l.AddPod(p)
	l.AddContainer(member(2, 1))
	_, err := l.StepContainer(id(2), lifecycle.Made{}, func(c *Container) { c.LogPath, c.Groups = "/log", []int64{1, 2} })
	must(t, err)
	must(t, l.FlushPod(bounded(t), id(1)))
	must(t, l.FlushContainer(bounded(t), id(2)))
	l.Close()

	again, lost := open(t, dir)
	if len(lost) > 0 {
		t.Fatalf("lost %v", lost)
	}
	got, err := again.Pod(id(1))
	must(t, err)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", p) || got.Boot != boot {
		t.Errorf("pod came back as\n%+v, was\n%+v", got, p)
	}
	c, err := again.Container(id(2))
	must(t, err)
	if c.State.Phase != lifecycle.Created || c.LogPath != "/log" || len(c.Groups) != 2 || c.Config != sealed("container config") {
		t.Errorf("container came back as %+v", c)
	}
	if st, err := os.Stat(filepath.Join(dir, "pods", id(1))); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: records hold secrets of the environment", st.Mode(), err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "pods", id(1)+".new")); err == nil {
		t.Error("the temporary file is left")
	}
}

func TestSnapshotsDoNotChange(t *testing.T) {
	l := ledger(t)
	l.AddPod(pod(1))
	before, err := l.Pod(id(1))
	must(t, err)
	after, err := l.StepPod(id(1), lifecycle.PodMade{}, func(p *Pod) { p.IPs = []string{"10.0.0.1"} })
	must(t, err)
	_, err = l.UpdatePod(id(1), func(p *Pod) { p.NetNS = "/other" })
	must(t, err)
	if before.State.Phase != lifecycle.PodMaking || before.IPs != nil || before.NetNS != "" {
		t.Errorf("a snapshot taken before the change has changed: %+v", before)
	}
	if after.State.Phase != lifecycle.Ready || after.NetNS != "" {
		t.Errorf("a snapshot changed later: %+v", after)
	}
	if now, _ := l.Pod(id(1)); now.Version != 2 || now.NetNS != "/other" {
		t.Errorf("newest is %+v", now)
	}
}

func TestARefusedStepChangesNothing(t *testing.T) {
	l := ledger(t)
	l.AddContainer(member(1, 9))
	called := false
	v, err := l.StepContainer(id(1), lifecycle.AskStart{}, func(*Container) { called = true })
	if err == nil || called || v.Version != 0 {
		t.Errorf("err %v, also called %v, version %d", err, called, v.Version)
	}
}

func TestAStepThatChangesNothingIsNoNewVersion(t *testing.T) {
	l := ledger(t)
	l.AddContainer(member(1, 9))
	if v, err := l.StepContainer(id(1), lifecycle.SeenShimGone{}); err != nil || v.Version != 0 {
		t.Errorf("version %d, %v", v.Version, err)
	}
}

func TestANameIsTakenOnceAndFreedByErase(t *testing.T) {
	l := ledger(t)
	l.AddPod(pod(1))
	twin := pod(1)
	twin.ID = id(2)
	if got, mine := l.AddPod(twin); mine || got.ID != id(1) {
		t.Fatalf("the name was given twice: %v %v", got.ID, mine)
	}
	c := member(101, 1)
	l.AddContainer(c)
	same := member(102, 1)
	same.Name = c.Name
	if got, mine := l.AddContainer(same); mine || got.ID != id(101) {
		t.Fatalf("the container's name was given twice: %v", got.ID)
	}
	elsewhere := member(103, 2)
	elsewhere.Name = c.Name
	if _, mine := l.AddContainer(elsewhere); !mine {
		t.Fatal("another pod may use the same container name")
	}
	if err := l.ErasePod(bounded(t), id(1)); err == nil {
		t.Fatal("a pod was erased that owes more than that")
	}
	gone := goneOf(t, l)
	must(t, l.FlushPod(bounded(t), id(1)))
	for _, e := range []lifecycle.PodEvent{lifecycle.AskPodRemove{}, lifecycle.MembersDone{}, lifecycle.MembersDone{Erased: true}} {
		_, err := l.StepPod(id(1), e)
		must(t, err)
	}
	for range 2 {
		must(t, l.ErasePod(bounded(t), id(1)))
	}
	if p := <-gone; p == nil || p.State.Phase != lifecycle.PodGone {
		t.Errorf("who waits for the end saw %+v", p)
	}
	if _, err := os.Lstat(l.podPath(id(1))); err == nil {
		t.Error("the record is left")
	}
	if _, mine := l.AddPod(twin); !mine {
		t.Error("the name is not free")
	}
	for _, e := range []lifecycle.Event{lifecycle.Made{}, lifecycle.AskRemove{}} {
		_, err := l.StepContainer(id(101), e)
		must(t, err)
	}
	must(t, l.EraseContainer(bounded(t), id(101)))
	must(t, l.EraseContainer(bounded(t), id(101)))
	if _, mine := l.AddContainer(same); !mine {
		t.Error("the container's name is not free")
	}
}

func goneOf(t *testing.T, l *Ledger) <-chan *Pod {
	t.Helper()
	out, ctx := make(chan *Pod, 1), bounded(t)
	go func() {
		p, _ := l.WaitPod(ctx, id(1), func(p *Pod) bool { return p.State.Phase == lifecycle.PodGone })
		out <- p
	}()
	// The waiter has the cell once it is asked for; a fast erase would make it ErrNotFound.
	time.Sleep(10 * time.Millisecond)
	return out
}

func TestIDsMayBeShortened(t *testing.T) {
	l := ledger(t)
	for _, s := range []string{"aa11", "aa12", "bb"} {
		p := pod(1)
		p.ID, p.Name.Name = s+strings.Repeat("0", 64-len(s)), s
		l.AddPod(p)
	}
	for _, tc := range []struct{ ask, want, fails string }{
		{"aa11", "aa11", ""},
		{"bb", "bb", ""},
		{"b", "bb", ""},
		{"aa1", "", "ambiguous"},
		{"cc", "", "not found"},
		{"", "", "empty"},
		{"../../etc", "", "not found"},
		{"AA11", "", "not found"},
		{strings.Repeat("a", 65), "", "not found"},
	} {
		p, err := l.Pod(tc.ask)
		switch {
		case tc.fails == "" && (err != nil || !strings.HasPrefix(p.ID, tc.want)):
			t.Errorf("%q: %v %v", tc.ask, p, err)
		case tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)):
			t.Errorf("%q: error %v, want %q", tc.ask, err, tc.fails)
		}
	}
	if got := l.Pods(); len(got) != 3 {
		t.Errorf("%d pods", len(got))
	}
}

func TestAFullIDIsNotAmbiguous(t *testing.T) {
	l := ledger(t)
	long, short := pod(1), pod(2)
	short.ID = "ab"
	long.ID = "ab" + strings.Repeat("0", 62)
	l.AddPod(long)
	l.AddPod(short)
	if p, err := l.Pod("ab"); err != nil || p.ID != "ab" {
		t.Errorf("%v %v", p, err)
	}
}

func TestListsShowTheNewestFirst(t *testing.T) {
	l := ledger(t)
	for _, n := range []int{2, 3, 1} {
		l.AddPod(pod(n))
		l.AddContainer(member(100+n, n))
	}
	if p, c := l.Pods(), l.Containers(); p[0].ID != id(3) || p[2].ID != id(1) || c[0].ID != id(103) {
		t.Errorf("pods %v %v %v, containers from %v", p[0].Name, p[1].Name, p[2].Name, c[0].Name)
	}
	if m := l.Members(id(2)); len(m) != 1 || m[0].ID != id(102) {
		t.Errorf("members %v", m)
	}
}

func TestNewIDsAreValidAndDiffer(t *testing.T) {
	a, b := NewID(), NewID()
	if len(a) != 64 || !ValidID(a) || a == b {
		t.Errorf("%s %s", a, b)
	}
}
