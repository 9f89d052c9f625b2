package reconcile

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/store/lifecycle"
)

// settleMounts is how long a change of the mount table is waited on before the
// pins are looked at: a pod start changes it a dozen times.
const settleMounts = 500 * time.Millisecond

// WatchMounts looks at the pods' pinned namespaces whenever the kernel says that
// the mount table has changed, until the context ends: somebody may unmount one
// from outside. An idle node costs nothing.
func (r *Reconciler) WatchMounts(ctx context.Context) error {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(wake)
	stop := context.AfterFunc(ctx, func() { _, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer stop()
	// The kernel reports a change by an error condition, once for each poll.
	both := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}, {Fd: int32(wake), Events: unix.POLLIN}}
	r.LookAtNamespaces() // what went before there was anybody to be told
	for ctx.Err() == nil {
		if _, err := unix.Poll(both, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return err
		}
		// What changed is rarely one mount alone. Further changes during the wait
		// are reported by the next poll, so a busy node looks twice a second.
		if _, err := unix.Poll(both[1:], int(settleMounts.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if ctx.Err() == nil {
			r.LookAtNamespaces()
		}
	}
	// The caller's AfterFunc has to be done with the eventfd before it closes.
	if !stop() {
		time.Sleep(time.Millisecond)
	}
	return nil
}

// LookAtNamespaces tells the law of ready pods whose namespaces are gone.
func (r *Reconciler) LookAtNamespaces() {
	for _, p := range r.Ledger.Pods() {
		if p.State.Phase != lifecycle.Ready {
			continue
		}
		if gone := r.Pods.LostNamespace(p); gone != "" {
			r.repaired("lost-namespace", "pod", p.ID, "namespace", gone)
			r.Pods.Broken(p.ID, "a namespace of it is gone: "+gone)
		}
	}
}
