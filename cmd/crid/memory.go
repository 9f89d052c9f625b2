package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
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

// tidyMemory gives memory back that a burst of pods or a pull has left, until
// the context ends. The Go runtime would do so too, over many minutes.
func tidyMemory(ctx context.Context) {
	debug.SetGCPercent(gcPercent)
	t := time.NewTicker(tidyEvery)
	defer t.Stop()
	var before uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		spare, allocated := spareMemory()
		// Only when it is quiet: what is allocated now is what was a while ago.
		if quiet := allocated-before < 1<<20; quiet && spare > tidyFrom {
			debug.FreeOSMemory()
			_, allocated = spareMemory()
		}
		before = allocated
	}
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
