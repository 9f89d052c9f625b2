package streaming

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// serveForwards serves port-forward over SPDY: each connection is a pair of streams, data and error, that name a port and
// a request. For the reason that serveSPDY has it is not the library's: that one keeps goroutines for ever when a client
// leaves while it makes streams.
func (s *Server) serveForwards(w http.ResponseWriter, r *http.Request, c *call) {
	if _, err := httpstream.Handshake(r, w, portforward.SupportedProtocols); err != nil {
		return // and the client has been told
	}
	arrivals, over := make(chan httpstream.Stream), make(chan struct{})
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		if _, err := portOf(stream); err != nil {
			return err
		}
		select {
		case arrivals <- stream:
			return nil
		case <-over:
			return errors.New("the session has ended")
		}
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	defer close(over)
	conn.SetIdleTimeout(s.idle)
	f := newForwarder(r.Context(), s.runtime)
	waiting := make(map[string]httpstream.Stream) // by request, for the other half of their pairs
	for {
		select {
		case <-conn.CloseChan():
			return
		case <-r.Context().Done():
			return
		case st := <-arrivals:
			id := requestOf(st)
			other, ok := waiting[id]
			switch {
			case !ok && len(waiting) >= maxForwards, ok && kindOf(other) == kindOf(st):
				_ = st.Reset()
				conn.RemoveStreams(st)
			case !ok:
				waiting[id] = st
			default:
				delete(waiting, id)
				data, fail := other, st
				if kindOf(data) != portforward.StreamTypeData {
					data, fail = fail, data
				}
				go forwardPair(r.Context(), f, conn, c.id, data, fail)
			}
		}
	}
}

// forwardPair forwards one connection. An error is told, and both streams are reset.
func forwardPair(ctx context.Context, f *forwarder, conn httpstream.Connection, pod string, data, fail httpstream.Stream) {
	defer conn.RemoveStreams(data, fail)
	port, _ := portOf(data) // was checked at its arrival
	if err := f.PortForward(ctx, pod, "", port, data); err != nil {
		_, _ = fmt.Fprintf(fail, "forward port %d: %v", port, err)
		_ = data.Reset()
		_ = fail.Reset()
		return
	}
	_ = data.Close()
	_ = fail.Close()
}

func kindOf(st httpstream.Stream) string { return st.Headers().Get(portforward.StreamType) }

// portOf checks a stream's headers.
func portOf(st httpstream.Stream) (int32, error) {
	if kind := kindOf(st); kind != portforward.StreamTypeData && kind != portforward.StreamTypeError {
		return 0, fmt.Errorf("stream type %.20q is neither data nor error", kind)
	}
	port, err := strconv.ParseUint(st.Headers().Get(portforward.PortHeader), 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("port %.20q is not between 1 and 65535", st.Headers().Get(portforward.PortHeader))
	}
	return int32(port), nil
}

// requestOf returns which request a stream belongs to. Clients of the first days send none: there the error stream comes
// first, and the data stream's number is the next but one.
func requestOf(st httpstream.Stream) string {
	if id := st.Headers().Get(portforward.PortForwardRequestIDHeader); id != "" {
		return id
	}
	n := int(st.Identifier())
	if kindOf(st) == portforward.StreamTypeData {
		n -= 2
	}
	return "stream " + strconv.Itoa(n)
}
