package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crid-project/crid/e2e/harness"
)

// table collects samples by row and party, rows in the order in which they came.
type table struct {
	parties []string
	rows    []string
	unit    map[string]string
	samples map[string]map[string][]float64
}

func newTable() *table {
	return &table{unit: map[string]string{}, samples: map[string]map[string][]float64{}}
}

func (t *table) add(row, unit, party string, value float64) {
	if t.samples[row] == nil {
		t.rows = append(t.rows, row)
		t.unit[row], t.samples[row] = unit, map[string][]float64{}
	}
	t.samples[row][party] = append(t.samples[row][party], value)
}

func (t *table) duration(row, party string, d time.Duration) {
	t.add(row, "ms", party, float64(d)/float64(time.Millisecond))
}

// memory adds the rows of a process: resident, proportional and anonymous.
func (t *table) memory(row, party string, pid int) error {
	m, err := rollup(pid)
	if err != nil {
		return err
	}
	for _, what := range []string{"Rss", "Pss", "Anonymous"} {
		t.add(row+": "+what, "MiB", party, m[what])
	}
	return nil
}

// helpers adds one row: the proportional memory of a daemon and of everything it keeps running for its pods.
func (t *table) helpers(row, party string, pid int, home *harness.Home) {
	var total float64
	for _, p := range append(home.Helpers(), pid) {
		if m, err := rollup(p); err == nil {
			total += m["Pss"]
		}
	}
	t.add(row+": Pss", "MiB", party, total)
}

// rollup reads /proc/PID/smaps_rollup, in MiB.
func rollup(pid int) (map[string]float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := map[string]float64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if fields := strings.Fields(rest); len(fields) == 2 && fields[1] == "kB" {
			n, err := strconv.ParseFloat(fields[0], 64)
			if err != nil {
				return nil, err
			}
			m[name] = n / 1024
		}
	}
	return m, lines.Err()
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func high(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)*9/10]
}

// String is the table: median and ninth decile of each party, and the ratio of the medians to those of the first.
func (t *table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-44s %4s", "", "n")
	for i, p := range t.parties {
		fmt.Fprintf(&b, " %12s %9s", p, "p90")
		if i > 0 {
			fmt.Fprintf(&b, " %6s", "ratio")
		}
	}
	b.WriteByte('\n')
	for _, row := range t.rows {
		first := t.samples[row][t.parties[0]]
		fmt.Fprintf(&b, "%-44s %4d", row, len(first))
		for i, p := range t.parties {
			v := t.samples[row][p]
			if len(v) == 0 {
				fmt.Fprintf(&b, " %12s %9s", "-", "-")
				continue
			}
			fmt.Fprintf(&b, " %8s %-3s %9s", number(median(v)), t.unit[row], number(high(v)))
			if i > 0 && len(first) > 0 {
				fmt.Fprintf(&b, " %6.2f", median(v)/median(first))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// number keeps three digits that mean something.
func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	default:
		return fmt.Sprintf("%.2f", f)
	}
}

func machine() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("?")
	}
	return fmt.Sprintf("%d CPUs, Linux %s, %s", runtime.NumCPU(), strings.TrimSpace(string(release)), runtime.Version())
}
