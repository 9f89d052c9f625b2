package container

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// counters is a kernel that knows nothing but how many out-of-memory kills each
// cgroup has counted; a cgroup that is missing is gone.
type counters struct {
	Kernel
	kills map[string]uint64
}

type counter struct {
	Cgroup
	n  uint64
	ok bool
}

func (k counters) Cgroup(path string) Cgroup {
	n, ok := k.kills[path]
	return counter{n: n, ok: ok}
}

func (c counter) OOMKills() (uint64, error) {
	if !c.ok {
		return 0, fmt.Errorf("gone: %w", errdefs.ErrNotFound)
	}
	return c.n, nil
}

// Systemd has removed the scope before anybody could read its counter: what
// counts is what the pod's slice has counted for cgroups that are gone.
func TestOutOfMemoryOfAScopeThatIsGone(t *testing.T) {
	const slice = "/pod.slice"
	for name, test := range map[string]struct {
		own, sibling string
		base         uint64 // when the container was made
		kills        map[string]uint64
		siblingState lifecycle.Container
		want         bool
	}{
		"the scope is there and says so":                          {own: "a.scope", kills: map[string]uint64{"/a.scope": 1, "": 1}, want: true},
		"the scope is there and has none, whatever the slice has": {own: "a.scope", kills: map[string]uint64{"/a.scope": 0, "": 5}},
		"gone, and the slice has counted one":                     {own: "a.scope", kills: map[string]uint64{"": 1}, want: true},
		"gone, and nothing was counted":                           {own: "a.scope", kills: map[string]uint64{"": 0}},
		"gone, and what was counted was before its time":          {own: "a.scope", base: 3, kills: map[string]uint64{"": 3}},
		"gone, with one before and one since":                     {own: "a.scope", base: 3, kills: map[string]uint64{"": 4}, want: true},
		"gone, but a living neighbour has counted it": {own: "a.scope", sibling: "b.scope", kills: map[string]uint64{"": 1, "/b.scope": 1},
			siblingState: lifecycle.Container{Phase: lifecycle.Running}},
		"gone, but it was the neighbour's end": {own: "a.scope", sibling: "b.scope", kills: map[string]uint64{"": 1},
			siblingState: lifecycle.Container{Phase: lifecycle.Exited, Exit: lifecycle.Exit{OOM: true, Source: lifecycle.Kernel, At: 500}}},
		"the slice is gone, too":                  {own: "a.scope", kills: nil},
		"no scope: only its own counter is asked": {own: "a", kills: map[string]uint64{"": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			open := func([]byte) (store.Sealed, error) { return noConfig{}, nil }
			l, _, err := store.Open(store.Config{Dir: filepath.Join(t.TempDir(), "ledger"), Boot: "boot", OpenPod: open, OpenContainer: open, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			add := func(letter, cgroup string, state lifecycle.Container) *store.Container {
				v, isNew := l.AddContainer(&store.Container{ID: strings.Repeat(letter, 64), PodID: strings.Repeat("f", 64), Name: store.ContainerName{Name: letter},
					Config: noConfig{}, State: state, Cgroup: slice + "/" + cgroup, CreatedAt: 50, StartedAt: 100, OOMBase: test.base})
				if !isNew {
					t.Fatal("it is there already")
				}
				return v
			}
			v := add("a", test.own, lifecycle.Container{Phase: lifecycle.Running})
			if test.sibling != "" {
				add("b", test.sibling, test.siblingState)
			}
			k := counters{kills: map[string]uint64{}}
			for path, n := range test.kills {
				k.kills[slice+path] = n
			}
			c := New(Config{Ledger: l, StateDir: t.TempDir(), Kernel: k, Log: slog.New(slog.DiscardHandler)})
			if got := c.outOfMemory(v); got != test.want {
				t.Errorf("out of memory: %v", got)
			}
		})
	}
}
