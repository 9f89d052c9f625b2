package cni

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// After the first change of a burst the directory is read this much later.
	settle = 100 * time.Millisecond
	// How often one looks where nothing tells: no directory yet, no more
	// inotify watches, a file that may be torn.
	poll = time.Second
	// How often one looks where changes are told, for those that are not (a
	// directory replaced by another mount).
	rarely = time.Minute
)

// Watch keeps the network as the configuration directory says, until ctx ends.
// A change is seen within a fraction of a second, without inotify within two.
func (n *Networks) Watch(ctx context.Context) {
	w := &watcher{n: n}
	defer w.close()
	w.arm()
	unsettled := n.Reload() //nolint:contextcheck // STATUS is asked in the background
	timer := time.NewTimer(w.pause(unsettled))
	defer timer.Stop()
	pending := false
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-w.events():
			if !ok || w.lost(ev) {
				w.close()
			}
			if !pending {
				pending = true
				timer.Reset(settle)
			}
		case _, ok := <-w.errors():
			// An overflow, or the end: what was missed is found by looking.
			if !ok {
				w.close()
			}
			if !pending {
				pending = true
				timer.Reset(settle)
			}
		case <-timer.C:
			pending = false
			w.arm()
			timer.Reset(w.pause(n.Reload())) //nolint:contextcheck // as above
		}
	}
}

// watcher is an inotify watch that may be there or not.
type watcher struct {
	n  *Networks
	fs *fsnotify.Watcher
}

// arm makes the watch if there is none. It is made before the directory is
// read, so that no change falls between.
func (w *watcher) arm() {
	if w.fs == nil {
		fs, err := fsnotify.NewWatcher()
		if err != nil {
			return
		}
		if err := fs.Add(w.n.cfg.ConfDir); err != nil {
			_ = fs.Close()
			return
		}
		w.fs = fs
	}
	if l := w.n.current.Load(); l != nil && l.list != nil {
		// Plugins of the network may have files of their own; adding twice is none.
		_ = w.fs.Add(filepath.Join(w.n.cfg.ConfDir, l.list.Name))
	}
}

func (w *watcher) close() {
	if w.fs != nil {
		_ = w.fs.Close()
		w.fs = nil
	}
}

// lost is true if the directory itself went away.
func (w *watcher) lost(ev fsnotify.Event) bool {
	return filepath.Clean(ev.Name) == filepath.Clean(w.n.cfg.ConfDir) && ev.Has(fsnotify.Remove|fsnotify.Rename)
}

func (w *watcher) events() <-chan fsnotify.Event {
	if w.fs == nil {
		return nil
	}
	return w.fs.Events
}

func (w *watcher) errors() <-chan error {
	if w.fs == nil {
		return nil
	}
	return w.fs.Errors
}

// pause is how long to wait if nothing happens.
func (w *watcher) pause(unsettled bool) time.Duration {
	if w.fs == nil || unsettled {
		return poll
	}
	return rarely
}
