// Package churn makes pods come and go by the thousand, several at a time, and measures whether the daemon keeps anything of them.
//
//	make churn             100 pods: nothing may be left
//	make churn N=5000      also: under 1 KiB of memory for each pod
package churn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crid-project/crid/e2e/harness"
)

// Options of a run.
type Options struct {
	Pods, Workers, Legs int // after each leg the memory is measured, while no pod is there
	Out                 io.Writer
}

// Sample is the daemon's size while no pod is there, after Pods have come and gone.
type Sample struct {
	Pods                     int
	Heap, Anonymous          float64 // bytes: live objects after a collection; resident memory that is no file's
	Threads, Files, Routines int
}

// Run makes the pods and gives a sample for each leg, the first one before all of them.
func Run(ctx context.Context, d *harness.Daemon, o Options) ([]Sample, error) {
	var samples []Sample
	done, start := 0, time.Now()
	for leg := range o.Legs + 1 {
		until := o.Pods * leg / o.Legs
		if err := many(ctx, d, done, until, o.Workers); err != nil {
			return samples, err
		}
		done = until
		s, err := measure(ctx, d, done)
		if err != nil {
			return samples, err
		}
		samples = append(samples, s)
		fmt.Fprintf(o.Out, "%7.1f s  %5d pods  heap %6.0f KiB  anonymous %6.0f KiB  %d threads  %d files  %d goroutines\n",
			time.Since(start).Seconds(), done, s.Heap/1024, s.Anonymous/1024, s.Threads, s.Files, s.Routines)
	}
	return samples, nil
}

// many makes the pods from one number to another.
func many(ctx context.Context, d *harness.Daemon, from, to, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	next.Store(int64(from))
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= to {
					return
				}
				if err := one(ctx, d, n); err != nil {
					cancel(fmt.Errorf("pod %d: %w", n, err))
				}
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// one is the life of a pod with two containers: one that runs until it is stopped, and one that ends by itself.
func one(ctx context.Context, d *harness.Daemon, n int) error {
	config := d.Home.Pod(fmt.Sprintf("churn-%d", n))
	pod, err := d.RunPod(ctx, config, "")
	if err != nil {
		return err
	}
	long, err := d.Run(ctx, pod, harness.Container("long"), config)
	if err != nil {
		return err
	}
	if _, err := d.Run(ctx, pod, harness.Container("short", "sh", "-c", "echo done"), config); err != nil {
		return err
	}
	r, err := d.Exec(ctx, long, "echo", "hello")
	if err != nil {
		return err
	}
	if string(r.GetStdout()) != "hello\n" || r.GetExitCode() != 0 {
		return fmt.Errorf("exec says %q and %d", r.GetStdout(), r.GetExitCode())
	}
	if err := d.StopContainer(ctx, long, 5); err != nil {
		return err
	}
	if err := d.RemovePodFully(ctx, pod); err != nil {
		return err
	}
	return d.Home.Forget(config)
}

// measure reads the daemon's size after its garbage is collected.
func measure(ctx context.Context, d *harness.Daemon, pods int) (Sample, error) {
	s := Sample{Pods: pods}
	var err error
	for range 2 { // what finalizers let go of is collected the second time
		if s.Heap, err = heap(ctx, d); err != nil {
			return s, err
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Pid()))
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "RssAnon: %f kB", &kib); n == 1 {
			s.Anonymous = kib * 1024
		}
		_, _ = fmt.Sscanf(line, "Threads: %d", &s.Threads)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.Pid()))
	s.Files = len(files)
	for thing, n := range d.Census(ctx) {
		if strings.HasPrefix(thing, "goroutine ") {
			s.Routines += n
		}
	}
	return s, err
}

// heap is what live objects take, after a collection.
func heap(ctx context.Context, d *harness.Daemon) (float64, error) {
	profile, err := d.Admin(ctx, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	defer profile.Close()
	lines := bufio.NewScanner(profile)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var bytes float64
		if n, _ := fmt.Sscanf(lines.Text(), "# HeapAlloc = %f", &bytes); n == 1 {
			return bytes, nil
		}
	}
	return 0, errors.Join(lines.Err(), errors.New("the heap profile does not tell how large the heap is"))
}

// Slope is how many bytes each pod adds: the least squares line through the samples, without the first fifth, in which pools and caches fill.
func Slope(samples []Sample, of func(Sample) float64) float64 {
	samples = samples[len(samples)/5:]
	var x, y, xx, xy float64
	n := float64(len(samples))
	for _, s := range samples {
		p, v := float64(s.Pods), of(s)
		x, y, xx, xy = x+p, y+v, xx+p*p, xy+p*v
	}
	if d := n*xx - x*x; d != 0 {
		return (n*xy - x*y) / d
	}
	return 0
}
