package streaming

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// serveTunnel serves port-forward in the way that clients have used since Kubernetes 1.31: a WebSocket whose binary
// messages are the bytes of a SPDY connection. The library knows SPDY only as an upgrade of its own, so it is given one
// that ends in the WebSocket.
func (s *Server) serveTunnel(w http.ResponseWriter, r *http.Request, c *call) {
	websocket.Server{
		Handshake: func(config *websocket.Config, _ *http.Request) error {
			if !slices.Contains(config.Protocol, portforward.WebsocketsSPDYTunnelingPortForwardV1) {
				return fmt.Errorf("no protocol in common: client offers %q, server speaks %q", config.Protocol, portforward.WebsocketsSPDYTunnelingPortForwardV1)
			}
			config.Protocol = []string{portforward.WebsocketsSPDYTunnelingPortForwardV1}
			return nil
		},
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			inner := r.Clone(r.Context())
			inner.Header = http.Header{
				httpstream.HeaderConnection:      {httpstream.HeaderUpgrade},
				httpstream.HeaderUpgrade:         {spdy.HeaderSpdy31},
				httpstream.HeaderProtocolVersion: {portforward.PortForwardV1Name},
			}
			s.serveForwards(&upgraded{conn: ws, header: http.Header{}}, inner, c)
		},
	}.ServeHTTP(w, r)
}

// upgraded is the response to a request that has been upgraded already: what is written to it goes nowhere, and taking it
// over gives the connection.
type upgraded struct {
	conn   net.Conn
	header http.Header
}

func (u *upgraded) Header() http.Header         { return u.header }
func (u *upgraded) WriteHeader(int)             {}
func (u *upgraded) Write(p []byte) (int, error) { return len(p), nil }

func (u *upgraded) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return u.conn, bufio.NewReadWriter(bufio.NewReader(u.conn), bufio.NewWriter(u.conn)), nil
}
