package memory

import (
	"context"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// gcPercent trades a little processor time in a burst for half the heap: an
	// idle daemon collects next to nothing.
	gcPercent = 50
	// tidyEvery is how often memory that a burst left is looked for, tidyFrom
	// how much of it is worth a collection.
	tidyEvery = 20 * time.Second
	tidyFrom  = 3 << 20
)

// Tidy gives memory back that a burst of pods or a pull has left, until
// the context ends. The Go runtime would do so too, over many minutes.
func Tidy(ctx context.Context) {
	debug.SetGCPercent(gcPercent)
	keepWithin()
	t := time.NewTicker(tidyEvery)
	defer t.Stop()
	var before uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		keepWithin()
		spare, allocated := spareMemory()
		// Only when it is quiet: what is allocated now is what was a while ago.
		if quiet := allocated-before < 1<<20; quiet && spare > tidyFrom {
			debug.FreeOSMemory()
			_, allocated = spareMemory()
		}
		before = allocated
	}
}

// keepWithin has the garbage collector work harder beyond half of the memory that
// crid's cgroup may use, if there is a limit: the other half is for shims, OCI
// runtimes and plugins, which are in the same group. GOMEMLIMIT, if it is set,
// is the operator's word.
func keepWithin() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	limit := int64(math.MaxInt64)
	if most := memoryLimit(string(text), "/sys/fs/cgroup"); most < math.MaxInt64/4 {
		limit = max(most/2, leastHeap)
	}
	debug.SetMemoryLimit(limit)
}

// leastHeap is never gone below: collecting all the time would be worse.
const leastHeap = 32 << 20

// memoryLimit answers the smallest limit, in bytes, of the memory cgroups of a
// process, by the text of its /proc/PID/cgroup; [math.MaxInt64] for none. Groups
// that are not to be seen have none.
func memoryLimit(groups, mount string) int64 {
	least := int64(math.MaxInt64)
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		root, file := mount, "memory.max"
		if slices.Contains(strings.Split(f[1], ","), "memory") {
			root, file = filepath.Join(mount, "memory"), "memory.limit_in_bytes"
		} else if f[1] != "" {
			continue
		}
		for dir := path.Clean("/" + f[2]); ; dir = path.Dir(dir) {
			text, err := os.ReadFile(filepath.Join(root, dir, file))
			if n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil {
				least = min(least, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// spareMemory answers how many bytes of heap are in no use but not given back,
// and how many bytes were ever allocated.
func spareMemory() (spare, allocated uint64) {
	s := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	v := func(i int) uint64 {
		if s[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return s[i].Value.Uint64()
	}
	garbage := uint64(0)
	if objects, live := v(3), v(4); objects > live {
		garbage = objects - live
	}
	return v(0) + v(1) + garbage, v(2)
}
