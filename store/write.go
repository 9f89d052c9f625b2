package store

import (
	"context"
	"fmt"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/store/lifecycle"
)

func (l *Ledger) savePod(c *cell[Pod]) {
	c.save(func(p *Pod) error { return writeRecord(l.cfg.Disk, l.podPath(p.ID), p, p.Config, c.unknown) }, l.stop)
}

func (l *Ledger) saveContainer(c *cell[Container]) {
	c.save(func(v *Container) error {
		return writeRecord(l.cfg.Disk, l.containerPath(v.ID), v, v.Config, c.unknown)
	}, l.stop)
}

// FlushPod waits until the pod's record is on disk (in the page cache: see
// writeRecord). An error is that of the attempt; the writing is retried until
// it succeeds.
func (l *Ledger) FlushPod(ctx context.Context, id string) error {
	c, err := l.podCell(id)
	if err != nil {
		return err
	}
	l.savePod(c)
	return flushError(c.flush(ctx))
}

// FlushContainer is FlushPod for a container.
func (l *Ledger) FlushContainer(ctx context.Context, id string) error {
	c, err := l.containerCell(id)
	if err != nil {
		return err
	}
	l.saveContainer(c)
	return flushError(c.flush(ctx))
}

// ErasePod removes the record from disk, frees the name, and then lets the
// event that says so pass. Idempotent.
func (l *Ledger) ErasePod(ctx context.Context, id string) error {
	c, err := l.podCell(id)
	if err != nil {
		return nil //nolint:nilerr // it is gone already
	}
	if c.cur.Load().State.Owes() != lifecycle.ErasePod {
		return fmt.Errorf("erase pod sandbox %s: %w", id, lifecycle.ErrState)
	}
	if err := erase(ctx, c, l.cfg.Disk, l.podPath(id)); err != nil {
		return err
	}
	if err := failpoint.At("m3"); err != nil {
		return err
	}
	l.mu.Lock()
	name := c.cur.Load().Name
	delete(l.pods, id)
	if l.podNames[name] == id {
		delete(l.podNames, name)
	}
	l.relist()
	l.mu.Unlock()
	failpoint.Pass("m4")
	_, _ = l.stepPod(c, lifecycle.PodErased{})
	return nil
}

// EraseContainer is ErasePod for a container.
func (l *Ledger) EraseContainer(ctx context.Context, id string) error {
	c, err := l.containerCell(id)
	if err != nil {
		return nil //nolint:nilerr // it is gone already
	}
	if c.cur.Load().State.Owes() != lifecycle.Erase {
		return fmt.Errorf("erase container %s: %w", id, lifecycle.ErrState)
	}
	if err := erase(ctx, c, l.cfg.Disk, l.containerPath(id)); err != nil {
		return err
	}
	if err := failpoint.At("r4"); err != nil {
		return err
	}
	l.mu.Lock()
	v := c.cur.Load()
	delete(l.containers, id)
	if k := (containerKey{v.PodID, v.Name}); l.containerNames[k] == id {
		delete(l.containerNames, k)
	}
	l.relist()
	l.mu.Unlock()
	failpoint.Pass("r5")
	_, _ = l.stepContainer(c, lifecycle.EraseDone{})
	return nil
}

func erase[T any](ctx context.Context, c *cell[T], disk Disk, path string) error {
	if err := c.drop(ctx); err != nil {
		return fmt.Errorf("remove record: %w", err)
	}
	return disk.Remove(path)
}

// Unsaved answers how many records differ from what is on disk because writing
// failed, and one of the reasons.
func (l *Ledger) Unsaved() (n int, why error) {
	for _, c := range *l.podList.Load() {
		if err := c.unsaved(); err != nil {
			n, why = n+1, err
		}
	}
	for _, c := range *l.containerList.Load() {
		if err := c.unsaved(); err != nil {
			n, why = n+1, err
		}
	}
	return n, why
}
