package stdio

import (
	"context"
	"time"
)

// resizeTimeout bounds one resize call; a shim that hangs delays the next size, nothing else.
const resizeTimeout = 5 * time.Second

// followSizes hands sizes to set until the channel closes or ctx ends. At most one call is under way, and while it is,
// newer sizes replace each other: a flood of resizes costs as many calls as the shim can answer, and the sender never
// waits for the shim. (CVE-2022-23471: a sender whose receiver had gone waited for ever; here the receiver stays until ctx
// ends, and the sender is told by the same ctx.) Errors are dropped: a process that has just ended has no terminal.
func followSizes(ctx context.Context, sizes <-chan Size, set func(context.Context, Size) error) {
	var (
		next    Size
		waiting bool
		idle    = make(chan struct{}, 1)
	)
	idle <- struct{}{}
	for {
		ready := idle
		if !waiting {
			ready = nil
			if sizes == nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				sizes = nil
				continue
			}
			next, waiting = size, true
		case <-ready:
			waiting = false
			go func(size Size) {
				call, cancel := context.WithTimeout(ctx, resizeTimeout)
				defer cancel()
				_ = set(call, size)
				idle <- struct{}{}
			}(next)
		}
	}
}
