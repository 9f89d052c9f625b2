package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/store/lifecycle"
)

// Lost is a record that could not be read and lies in quarantine.
type Lost struct {
	// Path is where it was, Why what is wrong with it.
	Path, Why string
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
	var lost []Lost
	pods, more := readAll[Pod](l, l.podDir())
	lost = append(lost, more...)
	for _, f := range pods {
		if why := l.recoverPod(f); why != nil {
			lost = append(lost, l.lose(f.path, why))
		}
	}
	containers, more := readAll[Container](l, l.containerDir())
	lost = append(lost, more...)
	for _, f := range containers {
		if why := l.recoverContainer(f); why != nil {
			lost = append(lost, l.lose(f.path, why))
		}
	}
	l.mu.Lock()
	l.relist()
	l.mu.Unlock()
	return l, lost, nil
}

type found[T any] struct {
	path string
	id   string
	decoded[T]
}

func readAll[T any](l *Ledger, dir string) (ok []found[T], lost []Lost) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			lost = append(lost, Lost{dir, err.Error()})
		}
		return nil, lost
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasSuffix(e.Name(), ".new") {
			_ = os.Remove(path) // a write that a crash cut short; a folder stays and is reported below
			if _, err := os.Lstat(path); err != nil {
				continue
			}
		}
		if len(e.Name()) != 64 || !ValidID(e.Name()) {
			lost = append(lost, l.lose(path, errors.New("not named like a record")))
			continue
		}
		d, err := readRecord[T](path)
		if err != nil {
			lost = append(lost, l.lose(path, err))
			continue
		}
		ok = append(ok, found[T]{path, e.Name(), d})
	}
	return ok, lost
}

// lose moves a record to quarantine. If even that fails it stays where it is
// and is not used.
func (l *Ledger) lose(path string, why error) Lost {
	l.quarantined.Add(1)
	err := quarantine(path, l.lostDir())
	l.cfg.Log.Error("record quarantined", "path", path, "why", why, "moved", err == nil)
	return Lost{path, why.Error()}
}

func (l *Ledger) recoverPod(f found[Pod]) error {
	p := f.record
	if p.ID != f.id {
		return errors.New("its id is not its name")
	}
	config, err := l.cfg.OpenPod(f.config)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	p.Config = config
	c := newCell(p)
	c.unknown = f.unknown
	l.pods[p.ID] = c
	if other, taken := l.podNames[p.Name]; taken && !better(p.State.Phase <= lifecycle.Ready, p.CreatedAt, l.pods[other].cur.Load()) {
		l.cfg.Log.Error("two pod records with one name", "pod", p.ID, "kept", other)
		return nil
	}
	l.podNames[p.Name] = p.ID
	return nil
}

// better reports whether the new one of two records of one name is to have it:
// the one that is ready, else the newer.
func better(ready bool, created int64, other *Pod) bool {
	if r := other.State.Phase <= lifecycle.Ready; r != ready {
		return ready
	}
	return created > other.CreatedAt
}

func (l *Ledger) recoverContainer(f found[Container]) error {
	v := f.record
	if v.ID != f.id {
		return errors.New("its id is not its name")
	}
	if !ValidID(v.PodID) {
		return errors.New("its pod has no valid id")
	}
	config, err := l.cfg.OpenContainer(f.config)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	v.Config = config
	c := newCell(v)
	c.unknown = f.unknown
	l.containers[v.ID] = c
	k := containerKey{v.PodID, v.Name}
	if id, taken := l.containerNames[k]; taken {
		other := l.containers[id].cur.Load()
		if v.State.Alive() == other.State.Alive() && v.CreatedAt < other.CreatedAt || !v.State.Alive() && other.State.Alive() {
			l.cfg.Log.Error("two container records with one name", "container", v.ID, "kept", id)
			return nil
		}
	}
	l.containerNames[k] = v.ID
	return nil
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
