package streaming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// serveSPDY serves exec and attach over SPDY in the v4 protocol, which every client since 2016 speaks. The library's own
// server, which also speaks v1 to v3, keeps goroutines for ever for a client that makes more streams than it announced;
// whoever may exec through an API server could fill the daemon with them.
func (s *Server) serveSPDY(w http.ResponseWriter, r *http.Request, a *adapter, c *call) {
	if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
		return // and the client has been told
	}
	arrivals, complete := make(chan arrival), make(chan struct{})
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
		select {
		case arrivals <- arrival{stream, replied}:
			return nil
		case <-complete:
			return errors.New("not one of the streams that were announced")
		}
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	conn.SetIdleTimeout(s.idle)
	ctx, cancel := context.WithTimeout(r.Context(), s.creation)
	streams, err := collect(ctx, arrivals, c.streams)
	close(complete) // whatever still comes is refused at once
	cancel()
	if err != nil {
		s.log.Debug("client made no streams", "error", err)
		return
	}
	var (
		in        io.Reader
		out, err2 io.WriteCloser
		resize    <-chan remotecommand.TerminalSize
	)
	if st, ok := streams[remotecommand.StreamTypeStdin]; ok && c.streams.Stdin {
		in = st
	}
	if st, ok := streams[remotecommand.StreamTypeStdout]; ok && c.streams.Stdout {
		out = st
	}
	if st, ok := streams[remotecommand.StreamTypeStderr]; ok && c.streams.Stderr {
		err2 = st
	}
	if st, ok := streams[remotecommand.StreamTypeResize]; ok && c.streams.TTY {
		resize = decodeSizes(r.Context(), st)
	}
	status, _ := json.Marshal(statusOf(c.verb, a.run(r.Context(), c, in, out, err2, resize))) // plain strings and numbers
	_, _ = streams[remotecommand.StreamTypeError].Write(status)
}

// arrival is a stream that a client makes; it may be written to once it has been replied to.
type arrival struct {
	httpstream.Stream
	replied <-chan struct{}
}

// collect waits for the streams that o asks for. One that it does not ask for is accepted, and not used, if it is of a
// known type and the first of it.
func collect(ctx context.Context, arrivals <-chan arrival, o remotecommand.Options) (map[string]arrival, error) {
	missing := map[string]bool{
		remotecommand.StreamTypeError:  true,
		remotecommand.StreamTypeStdin:  o.Stdin,
		remotecommand.StreamTypeStdout: o.Stdout,
		remotecommand.StreamTypeStderr: o.Stderr,
		remotecommand.StreamTypeResize: o.TTY,
	}
	needed := 0
	for _, asked := range missing {
		if asked {
			needed++
		}
	}
	streams := make(map[string]arrival)
	for needed > 0 {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d streams missing: %w", needed, ctx.Err())
		case st := <-arrivals:
			kind := st.Headers().Get(remotecommand.StreamType)
			asked, known := missing[kind]
			if _, twice := streams[kind]; twice || !known {
				return nil, fmt.Errorf("stream of type %.20q is unknown or made twice", kind)
			}
			streams[kind] = st
			if asked {
				needed--
			}
		}
	}
	for _, st := range streams {
		select {
		case <-st.replied:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return streams, nil
}
