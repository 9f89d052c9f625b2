package reconcile

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// names of the findings, sorted.
func (w *world) findings() (names []string) {
	for _, f := range w.Check() {
		if f.Message == "" || f.Severity != "warn" && f.Severity != "fail" {
			w.t.Errorf("finding %+v", f)
		}
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return names
}

func TestCheckSaysWhatDoesNotHold(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(w *world)
		want string // names of the findings
	}{
		{"an empty node", func(*world) {}, ""},
		{"a container that runs as it should", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
			w.member(11, 1, func(c *store.Container) { c.State.Phase, c.Init = lifecycle.Running, livingProcess(w.t) })
			w.bundle(11, "/x/"+id(11))
		}, ""},
		{"a zombie of ours: shown as running, and gone", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
			w.member(11, 1, func(c *store.Container) { c.State.Phase, c.Init = lifecycle.Running, dead() })
			w.bundle(11, "/x/"+id(11))
		}, "zombie"},
		{"its children live on: no zombie", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
			w.member(11, 1, func(c *store.Container) {
				c.State.Phase, c.State.InitGone, c.Init = lifecycle.Running, true, dead()
			})
			w.bundle(11, "/x/"+id(11))
		}, ""},
		{"a ghost: shown as exited, and alive", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
			w.member(11, 1, func(c *store.Container) { c.State.Phase, c.Init = lifecycle.Exited, livingProcess(w.t) })
		}, "ghost"},
		{"the pid belongs to somebody else now: no ghost", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
			w.member(11, 1, func(c *store.Container) {
				c.State.Phase, c.Init = lifecycle.Exited, livingProcess(w.t)
				c.Init.StartTime++
			})
		}, ""},
		{"a container without a pod", func(w *world) {
			w.member(11, 1, func(c *store.Container) { c.State.Phase = lifecycle.Exited })
		}, "no-pod"},
		{"a container without a bundle cannot be started", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
			w.member(11, 1, func(c *store.Container) { c.State.Phase = lifecycle.Created })
		}, "no-bundle"},
		{"it runs, and no shim knows it", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
			w.member(11, 1, func(c *store.Container) {
				c.State.Phase, c.State.Orphan, c.Init = lifecycle.Running, true, livingProcess(w.t)
			})
			w.bundle(11, "/x/"+id(11))
		}, "orphan"},
		{"a ready pod whose shim is dead", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase, p.Shim.Process = lifecycle.Ready, dead() })
		}, "no-shim"},
		{"a record that was lost", func(w *world) {
			w.Lost = []store.Lost{{Path: "/ledger/x", Why: "torn"}}
		}, "quarantine"},
		{"a record that was lost in an earlier run", func(w *world) {
			w.file(filepath.Join(w.ledgerDir, "quarantine", "x.0"), "torn")
		}, "quarantine"},
		{"a record that is not on disk", func(w *world) {
			w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
			if err := w.Ledger.FlushPod(w.t.Context(), id(1)); err != nil {
				w.t.Fatal(err)
			}
			// The temporary file's name is taken: no write can succeed.
			if err := os.MkdirAll(filepath.Join(w.ledgerDir, "pods", id(1)+".new", "x"), 0o700); err != nil {
				w.t.Fatal(err)
			}
			_, _ = w.Ledger.UpdatePod(id(1), func(p *store.Pod) { p.Cgroup = "/x" })
			_ = w.Ledger.FlushPod(w.t.Context(), id(1))
		}, "unsaved"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			tc.make(w)
			if got := strings.Join(w.findings(), " "); got != tc.want {
				t.Errorf("found %q, want %q: %+v", got, tc.want, w.Check())
			}
		})
	}
}

// The event of an exit was lost. The audit finds it, counts it, and the
// container is shown as what it is.
func TestTheAuditFindsWhatTheEventsMissed(t *testing.T) {
	w := newWorld(t)
	alive := livingProcess(t)
	synctest.Test(t, func(t *testing.T) {
		w.pod(1, func(p *store.Pod) { p.State.Phase = lifecycle.Stopped })
		w.member(11, 1, func(c *store.Container) { c.State.Phase, c.Init, c.Boot = lifecycle.Running, dead(), boot })
		w.member(12, 1, func(c *store.Container) { c.State.Phase, c.Init, c.Boot = lifecycle.Running, alive, boot })
		w.member(13, 1, func(c *store.Container) { c.State.Phase, c.Init, c.Boot = lifecycle.Running, dead(), boot })
		w.audit()
		time.Sleep(time.Second)
		// This one was only late: its event comes within the moment given to it.
		if _, err := w.Ledger.StepContainer(id(13), lifecycle.SeenExited{Code: 4, Source: lifecycle.Kernel, Empty: true, At: 9}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if c, _ := w.Ledger.Container(id(11)); c.State.Phase < lifecycle.Exited || c.State.Exit.Code != lifecycle.CodeUnknown {
			t.Errorf("the one whose exit was missed is %+v", c.State)
		}
		if c, _ := w.Ledger.Container(id(12)); c.State.Phase != lifecycle.Running {
			t.Errorf("the one that lives is %+v", c.State)
		}
		if c, _ := w.Ledger.Container(id(13)); c.State.Exit.Code != 4 {
			t.Errorf("the late one is %+v", c.State)
		}
		if len(w.repairs) != 1 || w.repairs[0] != "missed-exit" {
			t.Errorf("repairs: %v", w.repairs)
		}
		w.close()
	})
}

// After a reboot no process, namespace or mount of before is left, and a pid of
// before, even with its start time, is a stranger.
func TestAfterAReboot(t *testing.T) {
	w := newWorld(t)
	stranger := livingProcess(t)
	w.pod(1, func(p *store.Pod) {
		p.State = lifecycle.Pod{Phase: lifecycle.Ready, Holds: lifecycle.HoldsNS | lifecycle.HoldsNet | lifecycle.HoldsShim}
		p.Boot, p.NetNS, p.Pause, p.PauseInit, p.Shim.Process = "earlier boot", "/ns", true, stranger, stranger
	})
	for n, phase := range map[int]lifecycle.Phase{11: lifecycle.Running, 12: lifecycle.Created, 13: lifecycle.Exited, 14: lifecycle.Making} {
		w.member(n, 1, func(c *store.Container) {
			c.State.Phase, c.State.Dirty, c.Boot, c.Init = phase, phase != lifecycle.Making, "earlier boot", stranger
			if phase == lifecycle.Exited {
				c.State.Exit = lifecycle.Exit{Code: 3, Source: lifecycle.Kernel, At: 7}
			}
		})
	}
	w.Recover(t.Context())

	p, err := w.Ledger.Pod(id(1))
	if err != nil || p.State.Phase != lifecycle.Broken || p.State.Holds&lifecycle.HoldsShim != 0 {
		t.Errorf("pod is %+v, %v", p.State, err)
	}
	if p.State.Holds&lifecycle.HoldsNet == 0 {
		t.Error("the addresses are held still, and have to be given back")
	}
	if c, _ := w.Ledger.Container(id(11)); c.State.Phase != lifecycle.Exited || c.State.Exit.Code != lifecycle.CodeUnknown {
		t.Errorf("the running one is %+v", c.State)
	}
	if c, _ := w.Ledger.Container(id(13)); c.State.Exit.Code != 3 {
		t.Errorf("an exit of before has changed: %+v", c.State)
	}
	if c, _ := w.Ledger.Container(id(14)); c.State.Visible() {
		t.Error("a container that never was is shown")
	}
	if w.Settled() {
		t.Error("settled before anything was settled")
	}
	w.Settle(t.Context())
	if err := w.Pods.Remove(t.Context(), id(1)); err != nil {
		t.Fatal(err)
	}
	if n := len(w.Ledger.Pods()) + len(w.Ledger.Containers()); n != 0 {
		t.Errorf("%d records are left", n)
	}
	if w.index("del "+id(1)) < 0 {
		t.Error("the network was not given back")
	}
	if b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(stranger.Pid), "stat")); err != nil || !strings.Contains(string(b), "(sleep) S") {
		t.Errorf("the stranger was harmed: %s %v", b, err)
	}
	if !w.Settled() {
		t.Error("not settled")
	}
}
