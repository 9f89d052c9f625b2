package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/store/lifecycle"
)

// Lost is a record that could not be read and lies in quarantine.
type Lost struct {
	// Path is where it was, Why what is wrong with it.
	Path, Why string
	// Restored is true if its copy (Config.Copies) is used instead.
	Restored bool
}

// Open reads the ledger of an earlier run. It fails only if the folder cannot
// be made and read at all; single records that cannot be read are moved to
// quarantine and answered. A record left half written by a crash is ignored:
// the one before it still lies there.
func Open(cfg Config) (*Ledger, []Lost, error) {
	l := &Ledger{cfg: cfg, stop: make(chan struct{}), pods: map[string]*cell[Pod]{}, containers: map[string]*cell[Container]{},
		podNames: map[PodName]string{}, containerNames: map[containerKey]string{}}
	if l.cfg.Log == nil {
		l.cfg.Log = slog.Default()
	}
	if l.cfg.Disk == nil {
		l.cfg.Disk = realDisk{}
	}
	for _, d := range []string{cfg.Dir, l.podDir(), l.containerDir()} {
		if err := os.MkdirAll(d, folderPerm); err != nil && !isFullOrReadOnly(err) {
			return nil, nil, fmt.Errorf("make ledger folder: %w", err)
		}
	}
	if cfg.Copies != "" {
		for _, sub := range []string{"pods", "containers"} {
			_ = os.MkdirAll(filepath.Join(cfg.Copies, sub), folderPerm) // without them there is the record alone
		}
		l.cfg.Disk = doubled{Disk: l.cfg.Disk, dir: cfg.Dir, copies: cfg.Copies}
	}
	pods, lost := readAll(l, l.podKind())
	for _, f := range pods {
		l.recoverPod(f)
	}
	containers, more := readAll(l, l.containerKind())
	for _, f := range containers {
		l.recoverContainer(f)
	}
	l.mu.Lock()
	l.relist()
	l.mu.Unlock()
	return l, append(lost, more...), nil
}

func (l *Ledger) podKind() kind[Pod] {
	return kind[Pod]{dir: l.podDir(), copies: l.copiesOf("pods"), id: func(p *Pod) string { return p.ID },
		version: func(p *Pod) uint64 { return p.Version }, boot: func(p *Pod) string { return p.Boot },
		open: func(f *found[Pod]) (err error) {
			if f.record.Config, err = l.cfg.OpenPod(f.config); err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			return nil
		}}
}

func (l *Ledger) containerKind() kind[Container] {
	return kind[Container]{dir: l.containerDir(), copies: l.copiesOf("containers"), id: func(v *Container) string { return v.ID },
		version: func(v *Container) uint64 { return v.Version }, boot: func(v *Container) string { return v.Boot },
		open: func(f *found[Container]) (err error) {
			if !ValidID(f.record.PodID) {
				return errors.New("its pod has no valid id")
			}
			if f.record.Config, err = l.cfg.OpenContainer(f.config); err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			return nil
		}}
}

func (l *Ledger) copiesOf(sub string) string {
	if l.cfg.Copies == "" {
		return ""
	}
	return filepath.Join(l.cfg.Copies, sub)
}

// lose moves a record to quarantine. If even that fails it stays where it is
// and is not used.
func (l *Ledger) lose(path string, why error) Lost {
	l.quarantined.Add(1)
	err := quarantine(path, l.lostDir())
	l.cfg.Log.Error("record quarantined", "path", path, "why", why, "moved", err == nil)
	return Lost{Path: path, Why: why.Error()}
}

func (l *Ledger) recoverPod(f found[Pod]) {
	p := f.record
	c := newCell(p)
	c.unknown = f.unknown
	l.pods[p.ID] = c
	if f.stale {
		c.gen = 1
		l.savePod(c)
	}
	if other, taken := l.podNames[p.Name]; taken && !better(p.State.Phase <= lifecycle.Ready, p.CreatedAt, l.pods[other].cur.Load()) {
		l.cfg.Log.Error("two pod records with one name", "pod", p.ID, "kept", other)
		return
	}
	l.podNames[p.Name] = p.ID
}

// better reports whether the new one of two records of one name is to have it:
// the one that is ready, else the newer.
func better(ready bool, created int64, other *Pod) bool {
	if r := other.State.Phase <= lifecycle.Ready; r != ready {
		return ready
	}
	return created > other.CreatedAt
}

func (l *Ledger) recoverContainer(f found[Container]) {
	v := f.record
	c := newCell(v)
	c.unknown = f.unknown
	l.containers[v.ID] = c
	if f.stale {
		c.gen = 1
		l.saveContainer(c)
	}
	k := containerKey{v.PodID, v.Name}
	if id, taken := l.containerNames[k]; taken {
		other := l.containers[id].cur.Load()
		if v.State.Alive() == other.State.Alive() && v.CreatedAt < other.CreatedAt || !v.State.Alive() && other.State.Alive() {
			l.cfg.Log.Error("two container records with one name", "container", v.ID, "kept", id)
			return
		}
	}
	l.containerNames[k] = v.ID
}

// Quarantined answers how many records this run moved to quarantine.
func (l *Ledger) Quarantined() int64 { return l.quarantined.Load() }

// InQuarantine answers the paths of all quarantined records, of earlier runs too.
func (l *Ledger) InQuarantine() []string {
	entries, err := os.ReadDir(l.lostDir())
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, filepath.Join(l.lostDir(), e.Name()))
	}
	return out
}

func isFullOrReadOnly(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EEXIST)
}

// flushError says what to do when a record cannot be written.
func flushError(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("the disk of crid's root directory is full, free some space: %w: %w", err, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("cannot write to crid's root directory: %w: %w", err, errdefs.ErrUnavailable)
}
