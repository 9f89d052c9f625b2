package streaming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"
)

// serveV5 serves exec and attach over v5.channel.k8s.io, which kubectl and crictl speak and the CRI library does not: the
// channels of v4, and a signal that closes one of them, without which a client cannot end its stdin.
func (s *Server) serveV5(w http.ResponseWriter, r *http.Request, a *adapter, c *call) {
	channels := make([]wsstream.ChannelType, remotecommand.StreamResize+1)
	open := func(n int, kind wsstream.ChannelType, wanted bool) {
		if wanted {
			channels[n] = kind
		}
	}
	open(remotecommand.StreamStdIn, wsstream.ReadChannel, c.streams.Stdin)
	open(remotecommand.StreamStdOut, wsstream.WriteChannel, c.streams.Stdout)
	open(remotecommand.StreamStdErr, wsstream.WriteChannel, c.streams.Stderr)
	open(remotecommand.StreamErr, wsstream.WriteChannel, true)
	open(remotecommand.StreamResize, wsstream.ReadChannel, c.streams.TTY)

	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: channels},
	})
	conn.SetIdleTimeout(s.idle)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		s.log.Debug("websocket upgrade failed", "error", err)
		return
	}
	defer conn.Close()
	pick := func(n int, wanted bool) io.ReadWriteCloser {
		if wanted {
			return streams[n]
		}
		return nil
	}
	var (
		in        io.Reader
		out, err2 io.WriteCloser
		resize    <-chan remotecommand.TerminalSize
	)
	if st := pick(remotecommand.StreamStdIn, c.streams.Stdin); st != nil {
		in = st
	}
	if st := pick(remotecommand.StreamStdOut, c.streams.Stdout); st != nil {
		out = st
	}
	if st := pick(remotecommand.StreamStdErr, c.streams.Stderr); st != nil {
		err2 = st
	}
	if c.streams.TTY {
		resize = decodeSizes(r.Context(), streams[remotecommand.StreamResize])
	}
	// An empty message tells the client that the connection stands, before the process says anything.
	_, _ = streams[firstOutput(c.streams)].Write(nil)

	status, _ := json.Marshal(statusOf(c.verb, a.run(r.Context(), c, in, out, err2, resize))) // plain strings and numbers
	_, _ = streams[remotecommand.StreamErr].Write(status)
}

// firstOutput is the lowest channel that the server writes to.
func firstOutput(o remotecommand.Options) int {
	switch {
	case o.Stdout:
		return remotecommand.StreamStdOut
	case o.Stderr:
		return remotecommand.StreamStdErr
	}
	return remotecommand.StreamErr
}

// decodeSizes reads the JSON objects of the resize channel. The stream ends with the connection.
func decodeSizes(ctx context.Context, from io.Reader) <-chan remotecommand.TerminalSize {
	to := make(chan remotecommand.TerminalSize)
	go func() {
		defer close(to)
		for d := json.NewDecoder(from); ; {
			var size remotecommand.TerminalSize
			if d.Decode(&size) != nil {
				_, _ = io.Copy(io.Discard, from) // or the connection's other channels would wait behind this one
				return
			}
			select {
			case to <- size:
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}

// status is what Kubernetes' API calls metav1.Status, as far as the protocol uses it.
type status struct {
	Metadata struct{}       `json:"metadata"`
	Status   string         `json:"status"`
	Message  string         `json:"message,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Details  *statusDetails `json:"details,omitempty"`
	Code     int            `json:"code,omitempty"`
}

type statusDetails struct {
	Causes []statusCause `json:"causes,omitempty"`
}

type statusCause struct {
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// statusOf words the end of a session for the client.
func statusOf(verb string, err error) status {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return status{Status: "Success"}
	case errors.As(err, &exit) && exit.Exited():
		return status{
			Status:  "Failure",
			Reason:  remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", exit),
			Details: &statusDetails{Causes: []statusCause{
				{Reason: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(exit.ExitStatus())},
			}},
		}
	}
	return status{
		Status:  "Failure",
		Reason:  "InternalError",
		Message: fmt.Sprintf("%s failed: %v", verb, err),
		Code:    http.StatusInternalServerError,
	}
}
