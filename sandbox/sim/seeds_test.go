package sim

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The number of seeds where none is given, and what time they may take.
const (
	fewSeeds  = 150
	manySeeds = 10_000
	longLane  = 5 * time.Minute // two processors of 2026 need half of it
	fewShrunk = 2               // of those that fail
	tellEvery = 30 * time.Second
)

// TestSeeds tries many seeds. Each process runs one after the other on one
// processor: two goroutines at once would make an order that no seed knows.
func TestSeeds(t *testing.T) {
	if os.Getenv("CRID_SIM_WORKER") != "" {
		work(t)
		return
	}
	n, limit := *manyUpTo, time.Duration(0)
	if n == 0 {
		n = fewSeeds
		if os.Getenv("CRID_MODEL") == "long" {
			n, limit = manySeeds, longLane
		}
	}
	ctx := t.Context()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	began := time.Now()
	tried, bad := crowd(ctx, t, n)
	took := time.Since(began)
	t.Logf("%d seeds in %v, %.0f in a second, %d failed", tried, took.Round(time.Millisecond), float64(tried)/took.Seconds(), len(bad))
	for i, b := range bad {
		if i == 10 {
			t.Errorf("and %d more", len(bad)-i)
			break
		}
		seed := strings.Fields(b)[0]
		again := "\n\tgo test ./sandbox/sim -run 'TestSeed$' -v -seed=" + seed
		if i < fewShrunk && os.Getenv("CRID_SIM_PLAIN") == "" {
			again = shrunk(t, seed)
		}
		t.Errorf("%.2000s%s", b, again)
	}
}

// crowd has seeds tried by several processes and answers how many were, and
// which failed: "SEED what".
func crowd(ctx context.Context, t *testing.T, n int) (tried int, bad []string) {
	t.Helper()
	workers := min(runtime.NumCPU(), n)
	began, told := time.Now(), time.Now()
	dir, err := os.MkdirTemp(memory(), "crid-sim-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSeeds$", "-test.timeout=0", //nolint:gosec // ourselves
				fmt.Sprintf("-seeds=%d", n), fmt.Sprintf("-from=%d", *firstOf+uint64(i)), "-faults="+*onlyFaults)
			cmd.Env = append(os.Environ(), fmt.Sprintf("CRID_SIM_WORKER=%d", workers), "CRID_SIM_DIR="+dir, "GOMAXPROCS=1", "GOGC=800")
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Error(err)
				return
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			last, ended := "", false
			var tail []string
			for sc := bufio.NewScanner(out); sc.Scan(); {
				line := sc.Text()
				f, ok := strings.CutPrefix(line, "SEED ")
				switch {
				case ok && strings.HasSuffix(f, " begins"):
					last = strings.Fields(f)[0]
				case ok:
					mu.Lock()
					tried++
					if !strings.HasSuffix(f, " holds") {
						bad = append(bad, f)
						fmt.Fprintln(os.Stderr, "FAILS", f)
					}
					if time.Since(told) > tellEvery {
						told = time.Now()
						fmt.Fprintf(os.Stderr, "%d of %d seeds in %v, %.0f in a second, %d failed\n", tried, n, told.Sub(began).Round(time.Second), float64(tried)/told.Sub(began).Seconds(), len(bad))
					}
					mu.Unlock()
				case line == "PASS":
					ended = true
				default:
					if tail = append(tail, line); len(tail) > 40 {
						tail = tail[1:]
					}
				}
			}
			_ = cmd.Wait()
			if !ended && ctx.Err() == nil {
				mu.Lock()
				bad = append(bad, last+" ended the process:\n"+strings.Join(tail, "\n"))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return tried, bad
}

// memory is where files cost least.
func memory() string {
	if dir := os.Getenv("CRID_SIM_DIR"); dir != "" {
		return dir
	}
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

// work is what each of the processes does: every so manieth seed.
func work(t *testing.T) {
	var every uint64
	if _, err := fmt.Sscan(os.Getenv("CRID_SIM_WORKER"), &every); err != nil {
		t.Fatal(err)
	}
	for seed := *firstOf; seed < *firstOf+uint64(*manyUpTo); seed += every { //nolint:gosec // not negative
		fmt.Printf("SEED %d begins\n", seed)
		if res := play(t, seed, given()); len(res.failed) > 0 {
			fmt.Printf("SEED %d %s\n", seed, strings.Join(res.failed, "; "))
		} else {
			fmt.Printf("SEED %d holds\n", seed)
		}
	}
}
