package streaming

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/moby/spdystream/spdy"

	"github.com/crid-project/crid/container/stdio"
)

// A client that opens more streams than it announced, at a time when nobody waits for any.
func TestSuperfluousStreamsLeaveNothingBehind(t *testing.T) {
	s := start(t, &fakeRuntime{exec: func(ctx context.Context, _ string, req stdio.ExecRequest) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}})
	m := message{id: "c1", cmd: []string{"x"}, out: true}
	routines := runtime.NumGoroutine()
	for range 20 {
		conn, err := upgrade(mustURL(t)(s.Exec(m)), http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"v4.channel.k8s.io"}})
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, conn); close(read) }()
		framer, err := spdy.NewFramer(conn, conn)
		if err != nil {
			t.Fatal(err)
		}
		for i, kind := range []string{"error", "stdout", "stdout", "stderr", "stdin", "error", "what"} {
			id := spdy.StreamId(2*i + 1)
			frame := &spdy.SynStreamFrame{StreamId: id, Headers: http.Header{"streamType": {kind}}}
			if err := framer.WriteFrame(frame); err != nil {
				break // refused already
			}
			_ = framer.WriteFrame(&spdy.HeadersFrame{StreamId: id, Headers: http.Header{"x": {"y"}}})
		}
		time.Sleep(10 * time.Millisecond) // they arrive; some are never answered
		conn.Close()
		<-read
	}
	eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= routines })
}

// A client that asks for many connections and leaves at once.
func TestForwardsAbandonedInTheMakingLeaveNothingBehind(t *testing.T) {
	s := start(t, &fakeRuntime{netns: func(string) (string, error) { return "", errTest }})
	routines := runtime.NumGoroutine()
	for range 20 {
		conn, err := upgrade(mustURL(t)(s.PortForward(message{id: "p1"})), http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"portforward.k8s.io"}})
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, conn); close(read) }()
		framer, err := spdy.NewFramer(conn, conn)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			frame := &spdy.SynStreamFrame{StreamId: spdy.StreamId(2*i + 1), Headers: http.Header{"streamType": {"data"}, "port": {"80"}, "requestID": {strconv.Itoa(i)}}}
			if framer.WriteFrame(frame) != nil {
				break
			}
		}
		conn.Close()
		<-read
	}
	eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= routines })
}
