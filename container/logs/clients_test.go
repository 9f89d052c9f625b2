package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate is a client that reads when it is told to.
type gate struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	open chan struct{} // nil: always
	slow time.Duration
}

func (g *gate) Write(p []byte) (int, error) {
	if g.open != nil {
		if _, ok := <-g.open; !ok {
			return 0, io.ErrClosedPipe
		}
	}
	time.Sleep(g.slow)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}

func TestClientsSeeEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	l := open(t, path, Options{TTY: true})
	out, errs := fifo(t), fifo(t)
	w1, gone1 := shim(t, out)
	w2, gone2 := shim(t, errs)
	both, slow, first := &gate{}, &gate{slow: 2 * time.Millisecond}, &gate{}
	var stderr gate
	a := l.Subscribe(both, &stderr) // before anything is followed
	tail1, tail2 := follow(t, l, Stdout, out), follow(t, l, Stderr, errs)
	b := l.Subscribe(slow, nil)
	c := l.Subscribe(first, nil)
	var want strings.Builder
	for i := range 20000 {
		line := fmt.Sprintf("line %d %s\r\n", i, strings.Repeat("x", 100)) // 2 MB, beyond the queue
		want.WriteString(line)
		put(t, w1, line)
		if i == 10 {
			for first.String() == "" {
				time.Sleep(time.Millisecond)
			}
			c.Cancel()
			c.Cancel()
			within(t, "a cancelled client", c.Done())
		}
	}
	put(t, w2, "warning")
	gone1()
	gone2()
	within(t, "stdout", tail1.Done())
	within(t, "stderr", tail2.Done())
	within(t, "the fast client", a.Done())
	within(t, "the slow client", b.Done())
	if both.String() != want.String() || stderr.String() != "warning" {
		t.Errorf("the fast client got %d bytes of %d and %q", len(both.String()), want.Len(), stderr.String())
	}
	if slow.String() != want.String() {
		t.Errorf("the slow client got %d bytes of %d", len(slow.String()), want.Len())
	}
	if a.Err() != nil || b.Err() != nil || c.Err() != nil || l.Counters().ClientsCut != 0 {
		t.Errorf("%v %v %v", a.Err(), b.Err(), c.Err())
	}
	if n := len(entries(t, path)); n != 20001 {
		t.Errorf("%d entries", n)
	}
	late := l.Subscribe(both, nil) // the container is gone
	within(t, "a late client", late.Done())
}

func TestAHungClientStopsNeitherContainerNorLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	l := open(t, path, Options{Patience: 100 * time.Millisecond})
	in := fifo(t)
	w, gone := shim(t, in)
	tail := follow(t, l, Stdout, in)
	hung, well := &gate{open: make(chan struct{})}, &gate{}
	a, b := l.Subscribe(hung, nil), l.Subscribe(well, nil)
	line := strings.Repeat("x", 99) + "\n"
	for range 20000 {
		put(t, w, line)
	}
	gone()
	within(t, "the stream", tail.Done())
	within(t, "the other client", b.Done())
	if n := len(entries(t, path)); n != 20000 {
		t.Errorf("%d entries", n)
	}
	if len(well.String()) != 2000000 {
		t.Errorf("the other client got %d bytes", len(well.String()))
	}
	if !errors.Is(a.Err(), ErrSlowClient) || l.Counters().ClientsCut != 1 {
		t.Errorf("%v, %+v", a.Err(), l.Counters())
	}
	close(hung.open) // its connection is closed
	within(t, "the hung client", a.Done())
}

// A client must not delay the news that the container has exited.
func TestAHungClientDoesNotDelayDrain(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "0.log"), Options{Patience: time.Hour})
	in := fifo(t)
	w, gone := shim(t, in)
	tail := follow(t, l, Stdout, in)
	hung := &gate{open: make(chan struct{})}
	s := l.Subscribe(hung, nil)
	line := strings.Repeat("x", 99) + "\n"
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range 5000 {
			put(t, w, line)
		}
		gone()
	}()
	for l.Counters().Entries < 2000 { // the queue is full, the container waits
		time.Sleep(time.Millisecond)
	}
	if err := tail.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, "the container", written)
	for over := false; !over; { // and the client reads on, and gets the rest
		select {
		case hung.open <- struct{}{}:
		case <-s.Done():
			over = true
		case <-time.After(20 * time.Second):
			t.Fatal("the client does not end")
		}
	}
	if len(hung.String()) != 500000 || s.Err() != nil {
		t.Errorf("got %d bytes, %v", len(hung.String()), s.Err())
	}
}

func TestAClientWhoseConnectionBreaks(t *testing.T) {
	l := open(t, "", Options{}) // no log file: attached only
	in := fifo(t)
	w, gone := shim(t, in)
	tail := follow(t, l, Stdout, in)
	broken := &gate{open: make(chan struct{})}
	close(broken.open)
	s := l.Subscribe(broken, nil)
	put(t, w, "hello\n")
	within(t, "the client", s.Done())
	if !errors.Is(s.Err(), io.ErrClosedPipe) {
		t.Error(s.Err())
	}
	for range 100 { // nobody looks on: discarded, not held up
		put(t, w, strings.Repeat("x", 10000)+"\n")
	}
	gone()
	within(t, "the stream", tail.Done())
}

func TestCloseEndsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	l := open(t, path, Options{})
	in := fifo(t)
	w, _ := shim(t, in)
	tail := follow(t, l, Stdout, in)
	client := &gate{}
	s := l.Subscribe(client, nil)
	put(t, w, "no end")
	for client.String() == "" {
		time.Sleep(time.Millisecond)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "the tail", tail.Done())
	within(t, "the client", s.Done())
	if es := entries(t, path); len(es) != 1 || es[0].tag != "P" {
		t.Errorf("%+v", es)
	}
	if _, err := l.Follow(Stdout, in); err == nil {
		t.Error("followed a closed log")
	}
	if err := l.Reopen(); err == nil {
		t.Error("reopened a closed log")
	}
	within(t, "a late client", l.Subscribe(client, nil).Done())
}
