package stdio

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crid-project/crid/failpoint"
)

const (
	// drainPatience is how long an output that somebody else still holds open is read after the process ended: time spent
	// waiting for bytes, not time spent handing them to the client. A background child may keep the pipe for ever.
	drainPatience = 1500 * time.Millisecond
	// silencePatience bounds the wait for a Write to a client that is given up.
	silencePatience = 100 * time.Millisecond
	// drainBytes is how much is read after the process ended. What it wrote itself is at most two full pipes (1 MiB each
	// at the kernel's default limit) and the shim's buffer; anything beyond that is a background child's.
	drainBytes = 4 << 20
)

var buffers sync.Pool

// takeBuffer takes a buffer from the pool; the caller puts it back.
func takeBuffer() *[]byte {
	if b, ok := buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 32<<10)
	return &b
}

// output copies one pipe to the client. The process's end changes the rules: see exited.
type output struct {
	from  *os.File
	to    io.Writer
	ended atomic.Bool // the process has

	turn chan struct{} // held while the client is written to; filled for good by silence
}

func newOutput(from *os.File, to io.Writer) *output {
	return &output{from: from, to: to, turn: make(chan struct{}, 1)}
}

// copy runs until EOF, until the pipe is closed, or until the time and bytes after exited are used up, which it reports
// as more. A client that fails (it has gone) does not end the copy: until somebody ends the process, it must not be held
// back.
func (o *output) copy() (more bool) {
	buf := takeBuffer()
	defer buffers.Put(buf)
	patience, allowance := drainPatience, drainBytes
	for {
		ended := o.ended.Load()
		start := time.Now()
		if ended {
			if patience <= 0 || allowance <= 0 {
				return true
			}
			_ = o.from.SetReadDeadline(start.Add(patience))
		}
		n, err := o.from.Read(*buf)
		if ended {
			patience -= time.Since(start)
			allowance -= n
		}
		if n > 0 {
			failpoint.Pass("e3")
			o.give((*buf)[:n])
		}
		// A deadline set by exited, while Read was waiting, only means: read on under the new rules. One of our own ends
		// the patience above.
		if err != nil && !os.IsTimeout(err) {
			return false
		}
	}
}

// give writes to the client, unless it has failed before or is to see nothing more.
func (o *output) give(p []byte) {
	if o.to == nil {
		return
	}
	select {
	case o.turn <- struct{}{}:
	default: // silenced
		return
	}
	if _, err := o.to.Write(p); err != nil {
		o.to = nil
	}
	<-o.turn
}

// silence makes sure that the client's writer is not used any more, for a caller that is about to take it back. A Write
// that is blocked is waited for until silencePatience; what it does after that is between the client and its connection.
func (o *output) silence() {
	t := time.NewTimer(silencePatience)
	defer t.Stop()
	select {
	case o.turn <- struct{}{}:
	case <-t.C:
	}
}

// discard reads on, for nobody, until EOF or close.
func (o *output) discard() {
	_ = o.from.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, onlyReader{o.from})
}

// exited tells that the process has ended: from now on waiting is bounded by drainPatience.
func (o *output) exited() {
	// In this order: the deadline wakes a Read that began under the old rules, and because it is set before ended is, it can
	// never overwrite the one that copy sets for itself.
	_ = o.from.SetReadDeadline(time.Now())
	o.ended.Store(true)
}
