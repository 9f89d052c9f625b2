package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// doubled writes each record twice: first the copy, then the record. A copy
// that cannot be written is no error, but it goes, for it would be of an older
// state than the record.
type doubled struct {
	Disk
	dir, copies string
}

func (d doubled) Replace(path string, content []byte) error {
	if copied, ok := d.copyOf(path); ok {
		if err := d.Disk.Replace(copied, content); err != nil {
			_ = d.Disk.Remove(copied)
		}
	}
	return d.Disk.Replace(path, content)
}

func (d doubled) Remove(path string) error {
	if copied, ok := d.copyOf(path); ok {
		_ = d.Disk.Remove(copied) // first: a copy without its record would bring it back
	}
	return d.Disk.Remove(path)
}

func (d doubled) copyOf(path string) (string, bool) {
	rel, ok := strings.CutPrefix(path, d.dir+"/")
	return filepath.Join(d.copies, rel), ok
}

// kind tells how the records of one kind are read.
type kind[T any] struct {
	dir, copies string // copies: empty if there are none
	id          func(*T) string
	version     func(*T) uint64
	boot        func(*T) string
	open        func(*found[T]) error // opens the configuration and checks what else must hold
}

// found is a record that was read.
type found[T any] struct {
	path string
	decoded[T]
	stale bool // what lies at path is another, older one, or none
}

// readAll reads every record of a kind. Of a record and its copy the newer one
// counts, and whichever can be read: the copy is ahead where the disk was full
// when crid died.
func readAll[T any](l *Ledger, k kind[T]) (ok []found[T], lost []Lost) {
	names, err := namesIn(k.dir)
	if err != nil {
		lost = append(lost, Lost{Path: k.dir, Why: err.Error()})
	}
	var copies []string
	if k.copies != "" {
		copies, _ = namesIn(k.copies)
	}
	for _, name := range names {
		path := filepath.Join(k.dir, name)
		if len(name) != 64 || !ValidID(name) {
			lost = append(lost, l.lose(path, errors.New("not named like a record")))
			continue
		}
		f, err := k.read(path, name)
		copied, spare := k.spare(name, copies)
		switch {
		case err == nil && (!spare || k.version(copied.record) <= k.version(f.record)):
		case spare:
			f, f.path, f.stale = copied, path, true
		}
		if err != nil {
			one := l.lose(path, err)
			one.Restored = spare
			lost = append(lost, one)
		}
		if err == nil || spare {
			ok = append(ok, f)
		}
	}
	for _, name := range copies {
		if slices.Contains(names, name) {
			continue
		}
		f, spare := k.spare(name, copies)
		if !spare || k.boot(f.record) != l.cfg.Boot {
			_ = os.Remove(filepath.Join(k.copies, name)) // of an earlier boot, or unreadable
			continue
		}
		f.path, f.stale = filepath.Join(k.dir, name), true
		l.cfg.Log.Error("a record is gone; its copy is used", "path", f.path)
		ok = append(ok, f)
	}
	return ok, lost
}

// read reads one record and has it opened.
func (k kind[T]) read(path, id string) (f found[T], err error) {
	f.path = path
	if f.decoded, err = readRecord[T](path); err != nil {
		return f, err
	}
	if k.id(f.record) != id {
		return f, errors.New("its id is not its name")
	}
	return f, k.open(&f)
}

// spare reads the copy of a record, if there is one that can be read.
func (k kind[T]) spare(id string, copies []string) (found[T], bool) {
	if len(id) != 64 || !ValidID(id) || !slices.Contains(copies, id) {
		return found[T]{}, false
	}
	f, err := k.read(filepath.Join(k.copies, id), id)
	return f, err == nil
}

// namesIn lists a folder, without what a crash cut short, which it removes.
func namesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".new") {
			path := filepath.Join(dir, e.Name())
			_ = os.Remove(path) // a folder stays, and is told of
			if _, err := os.Lstat(path); err != nil {
				continue
			}
		}
		names = append(names, e.Name())
	}
	return names, err
}
