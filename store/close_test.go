package store

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowDisk takes that long for a record.
type slowDisk struct {
	takes   time.Duration
	written atomic.Int32
}

func (d *slowDisk) Replace(string, []byte) error {
	time.Sleep(d.takes)
	d.written.Add(1)
	return nil
}

func (d *slowDisk) Remove(string) error { return nil }

// Who closes the ledger may remove its folder: nothing is written behind his
// back. A disk that hangs holds him up for no longer than two seconds.
func TestCloseWaitsForAWriteUnderWay(t *testing.T) {
	for _, tc := range []struct {
		name         string
		takes, waits time.Duration
		written      int
	}{
		{"a slow disk", time.Second, time.Second, 1},
		{"a disk that hangs", time.Minute, 2 * time.Second, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				disk := &slowDisk{takes: tc.takes}
				cfg := config(dir)
				cfg.Disk = disk
				l, _, err := Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				l.AddPod(&Pod{ID: id(1), Name: PodName{Name: "a"}, Config: sealed("x")})
				if _, err := l.UpdatePod(id(1), func(p *Pod) { p.Cgroup = "/x" }); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // the write is under way
				began := time.Now()
				l.Close()
				l.Close()
				if took := time.Since(began); took != tc.waits || int(disk.written.Load()) != tc.written {
					t.Errorf("Close took %s, %d records were written; want %s and %d", took, disk.written.Load(), tc.waits, tc.written)
				}
				time.Sleep(tc.takes) // the disk comes back
			})
		})
	}
}
