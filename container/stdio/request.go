package stdio

import (
	"context"
	"io"
	"sync"
	"time"
)

// Size is a terminal's size in character cells.
type Size struct {
	Width, Height uint16
}

// ExecRequest is one command to be run inside a running container.
type ExecRequest struct {
	// Cmd is the argument vector. Exec itself runs the OCI process it is given; Cmd is for the caller that builds it.
	Cmd []string
	// TTY gives the process a terminal. Its output is then one stream, Stdout; Stderr is not used.
	TTY bool
	// Stdin is copied to the process until EOF; nil means no standard input. A Read that is blocked when Exec returns is
	// the caller's to end: Exec closes Stdin if it is an io.Closer, and otherwise leaves it.
	Stdin io.Reader
	// Stdout and Stderr take the output; nil discards it. A blocked Write holds the process back, as a pipe would.
	Stdout, Stderr io.Writer
	// Resize carries terminal sizes; nil or closed means none. Only the newest counts.
	Resize <-chan Size
	// Timeout ends the process with SIGKILL; zero means none. It counts from the call.
	Timeout time.Duration
	// Enter is asked before the shim runs the OCI runtime, and what it answers is called when that has returned; an error ends
	// the exec. nil: nobody is asked.
	Enter func(ctx context.Context) (leave func(), err error)
	// Left is told, at most once and perhaps long after the return, of an exec that could not be ended because its shim did
	// not answer: its directory stays, and it is to be given to [EndLeft] later. nil: it goes with its container.
	Left func(execID string)
}

// AttachRequest is one client that wants to see, and perhaps feed, a running container.
type AttachRequest struct {
	// TTY tells that the container has a terminal: one output stream, resizes are passed on.
	TTY bool
	// Stdin is copied to the container's standard input; nil means that the client only watches.
	Stdin io.Reader
	// Stdout and Stderr take what the container writes from now on; nil discards it.
	Stdout, Stderr io.Writer
	// Resize carries terminal sizes; nil or closed means none. Only the newest counts.
	Resize <-chan Size
}

// MaxSyncOutput is how much of each stream ExecSync keeps, in bytes: the largest message that a kubelet accepts.
// The rest is read and thrown away (CVE-2022-31030).
const MaxSyncOutput = 16 << 20

// Capped is a writer that keeps the first Max bytes and discards the rest, without ever failing or blocking. The zero
// value keeps MaxSyncOutput bytes. It is safe for concurrent use: an output that is given up on may still be writing.
type Capped struct {
	// Max is the number of bytes kept; zero means MaxSyncOutput. Not to be changed after the first Write.
	Max int

	mu      sync.Mutex
	kept    []byte
	dropped int64
}

// Write implements io.Writer. It reports every byte as written, kept or not, so that the process is never held back.
func (c *Capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := min(len(p), c.max()-len(c.kept))
	c.grow(keep)
	c.kept = append(c.kept, p[:keep]...)
	c.dropped += int64(len(p) - keep)
	return len(p), nil
}

// grow makes room for n more bytes, doubling, but never past the cap as append itself would.
func (c *Capped) grow(n int) {
	need := len(c.kept) + n
	if need <= cap(c.kept) {
		return
	}
	bigger := make([]byte, len(c.kept), min(max(2*cap(c.kept), need, 512), max(c.max(), need)))
	copy(bigger, c.kept)
	c.kept = bigger
}

func (c *Capped) max() int {
	if c.Max == 0 {
		return MaxSyncOutput
	}
	return c.Max
}

// Bytes returns what was kept. What is written later does not change the returned slice.
func (c *Capped) Bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept[:len(c.kept):len(c.kept)]
}

// Dropped returns how many bytes were discarded.
func (c *Capped) Dropped() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}
