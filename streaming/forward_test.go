package streaming

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/websocket"
	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// listen serves one function per connection on the loopback of this test's network.
func listen(t testing.TB, l net.Listener, handle func(net.Conn)) int {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// forwarding is a client's port-forward session.
type forwarding struct {
	httpstream.Connection
	raw  net.Conn
	next int
}

// forwarders open such a session in the two ways that clients have.
var forwarders = map[string]func(u string) (*forwarding, error){
	"spdy": func(u string) (*forwarding, error) {
		raw, c, err := spdyDial(u, portforward.ProtocolV1Name)
		return &forwarding{Connection: c, raw: raw}, err
	},
	"spdy in a websocket": func(u string) (*forwarding, error) {
		ws, err := websocketDial(u, portforward.WebsocketsSPDYTunnelingPortForwardV1)
		if err != nil {
			return nil, err
		}
		ws.PayloadType = websocket.BinaryFrame
		c, err := spdy.NewClientConnection(ws)
		return &forwarding{Connection: c, raw: ws}, err
	},
}

// dial forwards one connection, as kubectl does.
func (f *forwarding) dial(t testing.TB, port int) (data, fail httpstream.Stream) {
	t.Helper()
	f.next++
	open := func(kind string) (httpstream.Stream, error) {
		h := http.Header{}
		h.Set(portforward.StreamType, kind)
		h.Set(portforward.PortHeader, strconv.Itoa(port))
		h.Set(portforward.PortForwardRequestIDHeader, strconv.Itoa(f.next))
		return f.CreateStream(h)
	}
	fail, err := open(portforward.StreamTypeError)
	if err != nil {
		t.Fatal(err)
	}
	fail.Close() // we only read
	// The server may have tried the port, failed and reset the stream before we hear that it was made.
	data, _ = open(portforward.StreamTypeData)
	return data, fail
}

func eachForwarder(t *testing.T, run func(t *testing.T, open func() *forwarding)) {
	for name, forwarder := range forwarders {
		t.Run(name, func(t *testing.T) {
			s := start(t, &fakeRuntime{})
			run(t, func() *forwarding {
				f, err := forwarder(mustURL(t)(s.PortForward(message{id: "p1"})))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
				return f
			})
		})
	}
}

func TestForwardBytesBothWays(t *testing.T) {
	port := listen(t, must(net.Listen("tcp4", "127.0.0.1:0")), echo)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	eachForwarder(t, func(t *testing.T, open func() *forwarding) {
		f := open()
		for range 3 { // several, one after another, over one session
			data, fail := f.dial(t, port)
			go func() {
				_, _ = data.Write(big)
				data.Close()
			}()
			if got, err := io.ReadAll(data); err != nil || !bytes.Equal(got, big) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if msg, _ := io.ReadAll(fail); len(msg) > 0 {
				t.Errorf("error stream: %s", msg)
			}
		}
	})
}

func TestForwardFindsIPv6OnlyServers(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("needs IPv6 on loopback: ", err)
	}
	port := listen(t, l, echo)
	eachForwarder(t, func(t *testing.T, open func() *forwarding) {
		data, _ := open().dial(t, port)
		_, _ = data.Write([]byte("six"))
		data.Close()
		if got, _ := io.ReadAll(data); string(got) != "six" {
			t.Errorf("got %q", got)
		}
	})
}

// The client ends its request first, the answer comes much later: nothing may be cut off.
func TestForwardClientHalfCloses(t *testing.T) {
	port := listen(t, must(net.Listen("tcp4", "127.0.0.1:0")), func(c net.Conn) {
		request, _ := io.ReadAll(c) // until the client's end
		time.Sleep(700 * time.Millisecond)
		fmt.Fprintf(c, "answer to %s", request)
	})
	eachForwarder(t, func(t *testing.T, open func() *forwarding) {
		data, _ := open().dial(t, port)
		_, _ = data.Write([]byte("question"))
		data.Close()
		if got, _ := io.ReadAll(data); string(got) != "answer to question" {
			t.Errorf("got %q", got)
		}
	})
}

// The other order: the pod ends first and still takes what the client sends.
func TestForwardPodHalfCloses(t *testing.T) {
	got := make(chan string, 1)
	port := listen(t, must(net.Listen("tcp4", "127.0.0.1:0")), func(c net.Conn) {
		fmt.Fprint(c, "banner")
		_ = c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	eachForwarder(t, func(t *testing.T, open func() *forwarding) {
		data, _ := open().dial(t, port)
		if banner, _ := io.ReadAll(data); string(banner) != "banner" {
			t.Errorf("got %q", banner)
		}
		time.Sleep(700 * time.Millisecond)
		_, _ = data.Write([]byte("still here"))
		data.Close()
		select {
		case b := <-got:
			if b != "still here" {
				t.Errorf("the pod got %q", b)
			}
		case <-time.After(5 * time.Second):
			t.Error("the pod never saw the client's end")
		}
	})
}

func TestForwardToAClosedPortTellsTheClient(t *testing.T) {
	l := must(net.Listen("tcp4", "127.0.0.1:0"))
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	eachForwarder(t, func(t *testing.T, open func() *forwarding) {
		_, fail := open().dial(t, port)
		msg, _ := io.ReadAll(fail)
		if !strings.Contains(string(msg), "nothing in the pod answers on localhost port "+strconv.Itoa(port)) {
			t.Errorf("error stream: %q", msg)
		}
	})
}

func TestForwardToAPodThatIsGone(t *testing.T) {
	s := start(t, &fakeRuntime{netns: func(pod string) (string, error) { return "", errTest }})
	f, err := forwarders["spdy"](mustURL(t)(s.PortForward(message{id: "p1"})))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, fail := f.dial(t, 80)
	if msg, _ := io.ReadAll(fail); !strings.Contains(string(msg), errTest.Error()) {
		t.Errorf("error stream: %q", msg)
	}
}

// F95: the client vanishes while connections are forwarded.
func TestForwardVanishedClientsLeaveNothingBehind(t *testing.T) {
	port := listen(t, must(net.Listen("tcp4", "127.0.0.1:0")), echo)
	for name, forwarder := range forwarders {
		t.Run(name, func(t *testing.T) {
			s := start(t, &fakeRuntime{})
			routines := runtime.NumGoroutine()
			for range 100 {
				f, err := forwarder(mustURL(t)(s.PortForward(message{id: "p1"})))
				if err != nil {
					t.Fatal(err)
				}
				data, _ := f.dial(t, port)
				_, _ = data.Write([]byte("x"))
				_, _ = io.ReadFull(data, make([]byte, 1))
				f.raw.Close()
				f.Close()
			}
			eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= routines })
			eventually(t, "sessions forgotten", func() bool { _, n := s.lobby.counts(); return n == 0 })
		})
	}
}

// podNetwork makes a network namespace with loopback up and serves in it; it returns the namespace's path and the port.
func podNetwork(t *testing.T, network, address string) (path string, port int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	type made struct {
		ns  *os.File
		l   net.Listener
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with its namespace
		var m made
		defer func() { done <- m }()
		if m.err = unix.Unshare(unix.CLONE_NEWNET); m.err != nil {
			return
		}
		if m.err = loopbackUp(); m.err != nil {
			return
		}
		if m.ns, m.err = os.Open("/proc/thread-self/ns/net"); m.err != nil {
			return
		}
		m.l, m.err = net.Listen(network, address)
	}()
	m := <-done
	if errors.Is(m.err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN: makes a network namespace")
	}
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { m.ns.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", m.ns.Fd()), listen(t, m.l, echo)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

func TestForwardIntoThePodsNetwork(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			path, port := podNetwork(t, "tcp", address)
			s := start(t, &fakeRuntime{netns: func(string) (string, error) { return path, nil }})
			f, err := forwarders["spdy"](mustURL(t)(s.PortForward(message{id: "p1"})))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			data, fail := f.dial(t, port)
			_, _ = data.Write([]byte("inside"))
			data.Close()
			got, _ := io.ReadAll(data)
			msg, _ := io.ReadAll(fail)
			if string(got) != "inside" || len(msg) > 0 {
				t.Errorf("got %q, error stream %q", got, msg)
			}
			if conn, err := dialPod(t.Context(), "", int32(port)); err == nil {
				conn.Close()
				t.Error("the node's network answers on the pod's port")
			}
		})
	}
}

// Threads that entered a pod's network must come back or end: any goroutine might run on them next.
func TestDialingLeavesNoThreadInThePodsNetwork(t *testing.T) {
	path, port := podNetwork(t, "tcp4", "127.0.0.1:0")
	pod, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			p := int32(port)
			if i%2 == 0 {
				p = 1 // refused
			}
			if conn, err := dialPod(t.Context(), path, p); err == nil {
				conn.Close()
			} else if i%2 != 0 {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	eventually(t, "no thread in "+pod, func() bool {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && ns == pod {
				return false
			}
		}
		return true
	})
}

func TestDialingABadNamespaceFails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: enters namespaces")
	}
	for _, path := range []string{"/no/such/namespace", "/dev/null", "/proc/self/ns/uts"} {
		if conn, err := dialPod(t.Context(), path, 80); err == nil {
			conn.Close()
			t.Errorf("%s: dialled", path)
		}
	}
}

// halfStream is a client's stream made of two pipes, with SPDY's half close.
type halfStream struct {
	io.Reader
	w     *io.PipeWriter
	reset func()
}

func (h halfStream) Write(p []byte) (int, error) { return h.w.Write(p) }
func (h halfStream) Close() error                { return h.w.Close() }
func (h halfStream) Reset() error                { h.reset(); return nil }

// halfDeadPod has ended its sending and takes everything.
type halfDeadPod struct {
	net.Conn
	got int
}

func (*halfDeadPod) Read([]byte) (int, error) { return 0, io.EOF }
func (h *halfDeadPod) Write(p []byte) (int, error) {
	h.got += len(p)
	return len(p), nil
}
func (*halfDeadPod) Close() error { return nil }

// The pod has closed for its part and the client stays: it may send as long as it does, and ends when it falls silent.
func TestForwardSilentClientAfterThePodsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, fromClient := io.Pipe()
		toClient, out := io.Pipe()
		stream := halfStream{in, out, func() { in.CloseWithError(errTest); out.CloseWithError(errTest) }}
		pod := &halfDeadPod{}
		done := make(chan struct{})
		begin := time.Now()
		go func() { splice(context.Background(), pod, stream); close(done) }()
		if _, err := io.ReadAll(toClient); err != nil {
			t.Error(err)
		}
		for range 6 {
			time.Sleep(oneWay / 2)
			if _, err := fromClient.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		<-done
		if took := time.Since(begin); took < 4*oneWay || took > 5*oneWay || pod.got != 6 {
			t.Errorf("took %v, the pod got %d bytes", took, pod.got)
		}
	})
}
