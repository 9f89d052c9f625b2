package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/store/lifecycle"
)

// disky is a cell of an int with a disk that can be told to fail, to hang, and
// what was written.
type disky struct {
	*cell[int]
	mu      sync.Mutex
	fail    error
	written []int
	tries   int
	hang    chan struct{}
	stop    chan struct{}
}

func newDisky() *disky {
	return &disky{cell: newCell(new(int)), stop: make(chan struct{})}
}

func (d *disky) write(v *int) error {
	if d.hang != nil {
		<-d.hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries++
	if d.fail != nil {
		return d.fail
	}
	d.written = append(d.written, *v)
	return nil
}

func (d *disky) set(v int) {
	_, _ = d.change(func(p *int) error { *p = v; return nil }, nil)
	d.save(d.write, d.stop)
}

func (d *disky) repair() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = nil
}

func (d *disky) state() (tries int, written []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tries, append([]int(nil), d.written...)
}

func TestFlushAnswersWhenItIsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		d.hang = make(chan struct{})
		d.set(1)
		done := make(chan error, 1)
		go func() { done <- d.flush(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("flush answered %v before the write was over", err)
		default:
		}
		close(d.hang)
		must(t, <-done)
		if _, w := d.state(); len(w) != 1 || w[0] != 1 {
			t.Errorf("on disk is %v", w)
		}
	})
}

func TestManyChangesBecomeFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		d.hang = make(chan struct{})
		for v := 1; v <= 100; v++ {
			d.set(v)
		}
		close(d.hang)
		must(t, d.flush(t.Context()))
		if n, w := d.state(); w[len(w)-1] != 100 || n > 2 {
			t.Errorf("%d writes for 100 changes, the last is %d", n, w[len(w)-1])
		}
	})
}

// A change that comes while an older one is written is not taken for written.
func TestFlushCoversTheNewestChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		d.hang = make(chan struct{})
		d.set(1)
		synctest.Wait() // the writer has taken 1
		d.set(2)
		done := make(chan error, 1)
		go func() { done <- d.flush(t.Context()) }()
		synctest.Wait()
		d.hang <- struct{}{}
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("flush was content with the older state")
		default:
		}
		d.hang <- struct{}{}
		must(t, <-done)
		if _, w := d.state(); w[len(w)-1] != 2 {
			t.Errorf("on disk is %v", w)
		}
	})
}

func TestAFailedWriteIsToldAndRepeatedUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		d.fail = errors.New("disk on fire")
		d.set(1)
		if err := d.flush(t.Context()); err == nil || err.Error() != "disk on fire" {
			t.Fatalf("flush answered %v", err)
		}
		if d.unsaved() == nil {
			t.Error("it does not count as unsaved")
		}
		time.Sleep(time.Minute)
		if n, _ := d.state(); n < 10 || n > 40 {
			t.Errorf("%d attempts in a minute", n)
		}
		d.repair()
		time.Sleep(6 * time.Second)
		if _, w := d.state(); len(w) != 1 {
			t.Errorf("nobody asked, and it was not written by itself: %v", w)
		}
		if err := d.unsaved(); err != nil {
			t.Errorf("unsaved still: %v", err)
		}
		must(t, d.flush(t.Context()))
	})
}

func TestAFlushDoesNotWaitForThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		d.fail = errors.New("full")
		d.set(1)
		time.Sleep(time.Minute) // pauses are 5 s now
		d.repair()
		start := time.Now()
		must(t, d.flush(t.Context()))
		if took := time.Since(start); took > 0 {
			t.Errorf("took %v", took)
		}
		d.mu.Lock()
		d.fail = errors.New("full again")
		d.mu.Unlock()
		d.set(2)
		time.Sleep(time.Minute)
		start = time.Now()
		if err := d.flush(t.Context()); err == nil {
			t.Error("no error of a disk that is full again")
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("the error took %v", took)
		}
		close(d.stop)
	})
}

func TestFlushEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		d.hang = make(chan struct{})
		d.set(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("answered %v", err)
		}
		close(d.hang) // the writing goes on
		must(t, d.flush(t.Context()))
	})
}

func TestDropWaitsForTheWriteUnderWayAndEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		d.hang = make(chan struct{})
		d.set(1)
		synctest.Wait() // it is being written
		done := make(chan error, 1)
		go func() { done <- d.drop(t.Context()) }()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("dropped while the file may still be written: it would come back")
		default:
		}
		close(d.hang)
		must(t, <-done)
		d.set(2)
		synctest.Wait()
		if _, w := d.state(); len(w) != 1 {
			t.Errorf("written after it was dropped: %v", w)
		}

		p := newDisky()
		p.fail = errors.New("full")
		p.set(1)
		time.Sleep(time.Minute)
		start := time.Now()
		must(t, p.drop(t.Context()))
		if took := time.Since(start); took > 0 {
			t.Errorf("a pause after a failed write held the removal up for %v", took)
		}
	})
}

func TestAClosedLedgerKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		d.fail = errors.New("full")
		d.set(1)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- d.drop(t.Context()) }()
		close(d.stop)
		synctest.Wait()
		select {
		case err := <-done:
			must(t, err)
		default:
			t.Error("still waiting for a writer that is gone")
		}
	})
}

func TestWaitSeesEveryChangeAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisky()
		got := make(chan int, 1)
		go func() {
			v, _ := d.wait(t.Context(), func(v *int) bool { return *v >= 3 })
			got <- *v
		}()
		for v := range 4 {
			synctest.Wait()
			d.set(v)
		}
		if v := <-got; v != 3 {
			t.Errorf("woke at %d", v)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v, err := d.wait(ctx, func(*int) bool { return false }); !errors.Is(err, context.DeadlineExceeded) || *v != 3 {
			t.Errorf("%v with %d", err, *v)
		}
	})
}

// smallDisk mounts a tmpfs of 64 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	needsRoot(t, "mounts a tmpfs")
	dir := t.TempDir()
	if err := unix.Mount("store-test", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,mode=0700"); err != nil {
		t.Skip("needs root: cannot mount a tmpfs: " + err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill takes all space of a disk.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() { must(t, os.Remove(path)) }
}

func TestAFullDisk(t *testing.T) {
	disk := smallDisk(t)
	dir := filepath.Join(disk, "ledger")
	kept(t, dir, 1)
	l, _ := open(t, dir)
	free := fill(t, disk)

	// What is about to cause an effect is told that the intent is not on record.
	l.AddPod(pod(2))
	err := l.FlushPod(bounded(t), id(2))
	if !errors.Is(err, errdefs.ErrResourceExhausted) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("flush on a full disk: %v", err)
	}
	// What happened has happened: it shows, saved or not.
	_, err = l.UpdateContainer(id(101), func(c *Container) { c.LogPath = strings.Repeat("x", 5000) })
	must(t, err)
	if err := l.FlushContainer(bounded(t), id(101)); err == nil {
		t.Error("a flush succeeded without space")
	}
	if c, _ := l.Container(id(101)); len(c.LogPath) != 5000 {
		t.Error("the change does not show")
	}
	if n, why := l.Unsaved(); n != 2 || !errors.Is(why, unix.ENOSPC) {
		t.Errorf("unsaved: %d, %v", n, why)
	}
	// The disk holds the state before, whole; a start works too.
	other, lost := open(t, dir)
	if len(lost) > 0 || len(other.Pods()) != 1 {
		t.Errorf("started on a full disk: lost %v, pods %v", lost, other.Pods())
	}
	// And nothing needs to be asked for once there is space.
	free()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if n, _ := l.Unsaved(); n == 0 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("%d records are unsaved long after there was space", n)
		}
	}
	l.Close()
	other.Close()
	again, lost := open(t, dir)
	if c, _ := again.Container(id(101)); len(lost) > 0 || len(again.Pods()) != 2 || len(c.LogPath) != 5000 {
		t.Errorf("lost %v, pods %d", lost, len(again.Pods()))
	}
}

func TestAFullDiskDoesNotKeepAPodFromGoing(t *testing.T) {
	disk := smallDisk(t)
	dir := filepath.Join(disk, "ledger")
	kept(t, dir, 1)
	l, _ := open(t, dir)
	fill(t, disk)
	for _, e := range []lifecycle.Event{lifecycle.AskRemove{}} {
		_, err := l.StepContainer(id(101), e)
		must(t, err)
	}
	start := time.Now()
	must(t, l.EraseContainer(bounded(t), id(101)))
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := os.Lstat(filepath.Join(dir, "containers", id(101))); err == nil {
		t.Error("the record is left, and would bring the container back")
	}
}

func TestAReadOnlyDisk(t *testing.T) {
	disk := smallDisk(t)
	dir := filepath.Join(disk, "ledger")
	kept(t, dir, 2)
	must(t, os.WriteFile(filepath.Join(dir, "pods", id(1)), []byte("bad"), 0o600))
	must(t, unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""))

	l, lost := open(t, dir)
	if len(lost) != 1 || len(l.Pods()) != 1 || len(l.Containers()) != 2 {
		t.Fatalf("lost %v, %d pods: what can be read has to be shown", lost, len(l.Pods()))
	}
	if err := l.FlushPod(bounded(t), id(2)); err != nil {
		t.Errorf("nothing has changed, and yet flush says %v", err)
	}
	_, err := l.UpdatePod(id(2), func(p *Pod) { p.Cgroup = "/x" })
	must(t, err)
	if err := l.FlushPod(bounded(t), id(2)); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("flush: %v", err)
	}
}

func TestAFolderThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, _, err := Open(config(filepath.Join(file, "ledger"))); err == nil {
		t.Error("opened below a file")
	}
}

// Everybody at once: for the race detector, and no change may be lost.
func TestConcurrentSteps(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	const pods, writers, rounds = 4, 4, 50
	for n := 1; n <= pods; n++ {
		l.AddPod(pod(n))
		l.AddContainer(member(100+n, n))
	}
	var wg, readers sync.WaitGroup
	var over atomic.Bool
	for range 2 {
		readers.Go(func() {
			for !over.Load() {
				for _, p := range l.Pods() {
					_ = len(p.IPs)
				}
				l.Members(id(1))
				_, _ = l.Pod(id(2)[:64])
				l.Unsaved()
				s := l.Subscribe(1)
				s.Cancel()
			}
		})
	}
	for w := range writers {
		wg.Go(func() {
			for r := range rounds {
				n := 1 + (w+r)%pods
				_, _ = l.UpdatePod(id(n), func(p *Pod) { p.IPs = append(append([]string(nil), p.IPs...), "x") })
				_, _ = l.StepContainer(id(100+n), lifecycle.Made{}, func(c *Container) { c.GID++ })
				if r%10 == 0 {
					_ = l.FlushPod(bounded(t), id(n))
				}
				extra := pod(1000 + w*rounds + r)
				l.AddPod(extra)
			}
		})
	}
	wg.Wait()
	over.Store(true)
	readers.Wait()
	sum, gids := 0, int64(0)
	for n := 1; n <= pods; n++ {
		must(t, l.FlushPod(bounded(t), id(n)))
		must(t, l.FlushContainer(bounded(t), id(100+n)))
	}
	l.Close()
	again, _ := open(t, dir)
	for n := 1; n <= pods; n++ {
		p, err := again.Pod(id(n))
		must(t, err)
		c, err := again.Container(id(100 + n))
		must(t, err)
		sum, gids = sum+len(p.IPs), gids+c.GID
	}
	if sum != writers*rounds || gids != writers*rounds {
		t.Errorf("of %d changes %d and %d are on disk", writers*rounds, sum, gids)
	}
}

func BenchmarkStepAndFlush(b *testing.B) {
	l, _ := open(b, b.TempDir())
	l.AddPod(pod(1))
	for b.Loop() {
		_, _ = l.UpdatePod(id(1), func(p *Pod) { p.CreatedAt++ })
		if err := l.FlushPod(context.Background(), id(1)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen500(b *testing.B) {
	dir := b.TempDir()
	kept(b, dir, 250)
	for b.Loop() {
		l, lost := open(b, dir)
		if len(lost) > 0 || len(l.Pods()) != 250 {
			b.Fatal(fmt.Sprint(lost))
		}
	}
}
