package sim

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/cni/netns"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/image/user"
	"github.com/crid-project/crid/shimclient/fake"
	"github.com/crid-project/crid/shimclient/pidfd"
)

// kernel is the machine as one run of crid sees it.
type kernel struct{ *run }

func (k kernel) Identify(pid int) (pidfd.Process, error) {
	k.alive()
	return k.m.Identify(pid)
}

func (k kernel) Open(p pidfd.Process) (container.Proc, error) {
	k.alive()
	q, err := k.m.Open(p)
	if err != nil {
		return nil, err
	}
	return proc{k.run, q}, nil
}

func (k kernel) Watch(p container.Proc, fn func()) error {
	q, ok := p.(proc)
	if !ok {
		return errors.New("not a process of this kernel")
	}
	k.alive()
	k.m.Watch(q.fake(), func() {
		k.takes("watch", fmt.Sprint(q.p.Process().Pid), time.Microsecond, time.Millisecond)
		fn()
	})
	return nil
}

func (k kernel) Now() int64 {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	return int64(time.Since(k.m.booted)) + 1
}

func (k kernel) RuntimeInit(pid int) bool {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	w := k.m.inits[pid]
	return w != nil && w.begun == 0
}

// proc is one process, held by one run.
type proc struct {
	*run
	p *fake.Process
}

func (p proc) fake() *fake.Process    { return p.p }
func (p proc) Process() pidfd.Process { return p.p.Process() }
func (p proc) Exited() bool           { return p.p.Exited() }
func (p proc) Close() error           { return nil }

func (p proc) Status() (pidfd.Status, bool) { return p.p.Status() }

func (p proc) Signal(sig unix.Signal) error {
	p.alive()
	p.m.note("%d:   signal %d to pid %d", p.no, sig, p.p.Process().Pid)
	p.m.mu.Lock()
	w := p.m.inits[p.p.Process().Pid]
	p.m.mu.Unlock()
	if w == nil {
		p.m.violated("I5", "signal %d to pid %d, which is a stranger", sig, p.p.Process().Pid)
	} else {
		p.eye.kills(w)
	}
	return p.p.Signal(sig)
}

// cgroups

type cg struct {
	*run
	path string
}

func (k kernel) Cgroup(path string) container.Cgroup { return cg{k.run, path} }

func (k kernel) MakeCgroup(path string) error {
	k.takes("cgroup", path, time.Microsecond, time.Millisecond)
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	k.m.group(path)
	return nil
}

func (k kernel) CgroupChildren(path string) []string {
	k.alive()
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	var out []string
	for p := range k.m.cgroups {
		if rest, ok := strings.CutPrefix(p, path+"/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (c cg) Populated() (bool, error) {
	c.alive()
	return len(c.m.inside(c.path)) > 0, nil
}

func (c cg) Procs() ([]int, error) {
	c.alive()
	var out []int
	for _, p := range c.m.inside(c.path) {
		out = append(out, p.Process().Pid)
	}
	slices.Sort(out)
	return out, nil
}

func (c cg) Kill() error {
	c.takes("cgroup", c.path, time.Microsecond, time.Millisecond)
	for _, p := range c.m.inside(c.path) {
		c.m.mu.Lock()
		w := c.m.inits[p.Process().Pid]
		c.m.mu.Unlock()
		if w != nil {
			c.eye.kills(w)
		}
		_ = p.Signal(unix.SIGKILL)
	}
	return c.Thaw() // as what it froze for it
}

func (c cg) Thaw() error {
	c.alive()
	for _, p := range c.m.inside(c.path) {
		p.Freeze(false)
	}
	return nil
}

func (c cg) OOMKills() (uint64, error) {
	c.alive()
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if g := c.m.cgroups[c.path]; g != nil {
		return g.ooms, nil
	}
	return 0, nil
}

func (c cg) Remove(ctx context.Context) error {
	for range 12 {
		c.takes("cgroup", c.path, time.Microsecond, 50*time.Millisecond)
		if len(c.m.inside(c.path)) == 0 {
			c.m.mu.Lock()
			defer c.m.mu.Unlock()
			for p := range c.m.cgroups {
				if p == c.path || strings.HasPrefix(p, c.path+"/") {
					delete(c.m.cgroups, p)
				}
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return unix.EBUSY
}

// mounts

func (k kernel) Mount(_ []image.Mount, target string) error {
	if err := k.step("mount", target); err != nil {
		return err
	}
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	k.m.mounts[target] = true
	return nil
}

func (k kernel) Mounts(path string) ([]string, error) {
	k.alive()
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	var out []string
	for _, set := range []map[string]bool{k.m.mounts, k.m.pins} {
		for p := range set {
			if p == path || strings.HasPrefix(p, path+"/") {
				out = append(out, p)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

func (k kernel) Unmount(path string) error {
	if err := k.step("unmount", path); err != nil {
		return err
	}
	at, _ := k.Mounts(path)
	for _, p := range at {
		id := ownerOf(k.m.state, p)
		if q := k.m.livesOf(id); q != nil {
			k.m.violated("I6", "unmount of %s under the living pid %d", p, q.Process().Pid)
		}
		if c := k.m.livesIn(id); c != "" {
			k.m.violated("I6", "unmount of %s under the living container %s", p, short(c))
		}
		k.m.mu.Lock()
		delete(k.m.mounts, p)
		delete(k.m.pins, p)
		k.m.mu.Unlock()
	}
	return nil
}

// ownerOf is the id in a path below the state folder: pods/ID/…, containers/ID/…
func ownerOf(state, path string) string {
	rel, err := filepath.Rel(state, path)
	if err != nil {
		return ""
	}
	parts := strings.Split(rel, "/")
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}

// namespaces

type namespaces struct{ *run }

func (n namespaces) New(dir string, spec netns.Spec) (netns.Pinned, error) {
	if err := n.step("netns", dir); err != nil {
		return netns.Pinned{}, err
	}
	p := netns.Paths(dir, spec)
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	for _, path := range []string{p.Net, p.IPC, p.UTS} {
		if path != "" {
			n.m.pins[path] = true
		}
	}
	return p, nil
}

func (n namespaces) PinPID(path string, init pidfd.Process) error {
	if err := n.step("pin", path); err != nil {
		return err
	}
	if p := n.m.Process(init.Pid); p == nil || p.Process() != init || p.Exited() {
		return unix.ESRCH
	}
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	n.m.pins[path] = true
	return nil
}

func (n namespaces) IsPinned(path string) (bool, error) {
	n.alive()
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	return n.m.pins[path], nil
}

func (n namespaces) Unpin(dir string) error {
	if err := n.step("unpin", dir); err != nil {
		return err
	}
	pod := ownerOf(n.m.state, dir)
	if c := n.m.livesIn(pod); c != "" {
		n.m.violated("I6", "the namespaces of pod %s go under the living container %s", short(pod), short(c))
	}
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	for p := range n.m.pins {
		if strings.HasPrefix(p, dir+"/") {
			delete(n.m.pins, p)
		}
	}
	return nil
}

// networks

type networks struct{ *run }

func (n networks) Prepare(a cni.Attachment) ([]byte, error) { return []byte("intent " + a.ID), nil }

func (n networks) Add(ctx context.Context, a cni.Attachment, _ []byte) (*cni.Result, error) {
	err := n.call(ctx, "cni-add", a.ID, func() {
		n.m.note("%d:   CNI ADD %s", n.no, short(a.ID))
		n.m.mu.Lock()
		defer n.m.mu.Unlock()
		n.m.nets[a.ID] = n.no
		n.m.adds[a.ID]++
	})
	if err != nil {
		return nil, err
	}
	return &cni.Result{IPs: []string{"10.0.0.1"}, Saved: []byte("saved " + a.ID)}, nil
}

func (n networks) Del(ctx context.Context, a cni.Attachment, saved []byte) error {
	return n.call(ctx, "cni-del", a.ID, func() {
		n.m.note("%d:   CNI DEL %s", n.no, short(a.ID))
		if c := n.m.memberLives(a.ID); c != "" {
			n.m.violated("I6", "CNI DEL of pod %s under the living container %s", short(a.ID), short(c))
		}
		if len(saved) == 0 {
			n.m.violated("I7", "CNI DEL of pod %s without what was saved", short(a.ID))
		}
		n.m.mu.Lock()
		defer n.m.mu.Unlock()
		delete(n.m.nets, a.ID)
	})
}

func (n networks) GC(ctx context.Context, valid []cni.Attachment) error {
	return n.call(ctx, "cni-gc", "", func() {
		keep := map[string]bool{}
		for _, a := range valid {
			keep[a.ID] = true
		}
		n.m.mu.Lock()
		defer n.m.mu.Unlock()
		for id, by := range n.m.nets {
			if !keep[id] && by != n.no { // what this process has attached counts as valid
				delete(n.m.nets, id)
			}
		}
	})
}

// images

type images struct{ *run }

func (images) Resolve(string) (image.Image, error) { return image.Image{ID: "sha256:aa"}, nil }

func (i images) PrepareRootfs(ctx context.Context, id string, _ image.Image, _ image.RootfsOptions) (image.Rootfs, error) {
	err := i.call(ctx, "rootfs", id, func() {
		i.m.mu.Lock()
		defer i.m.mu.Unlock()
		i.m.rootfs[id] = true
	})
	return image.Rootfs{Mounts: []image.Mount{{Type: "overlay", Source: "overlay"}}}, err
}

func (i images) RemoveRootfs(ctx context.Context, id string) error {
	return i.call(ctx, "rootfs-rm", id, func() {
		if p := i.m.livesOf(id); p != nil {
			i.m.violated("I6", "the writable layer of %s goes under the living pid %d", short(id), p.Process().Pid)
		}
		i.m.mu.Lock()
		defer i.m.mu.Unlock()
		delete(i.m.rootfs, id)
	})
}

func (i images) Rootfses() []string {
	i.alive()
	i.m.mu.Lock()
	defer i.m.mu.Unlock()
	var out []string
	for id := range i.m.rootfs {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func (images) MountImage(context.Context, string, image.Image, string, string) error { return nil }
func (images) UnmountImage(context.Context, string) error                            { return nil }

func users(string, string, user.Want) (user.Resolved, error) { return user.Resolved{}, nil }
