package shimclient_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/crid-project/crid/shimclient"
)

// The test binary is also a shim, of the kind that TEST_SHIM names.
func TestMain(m *testing.M) {
	if role := os.Getenv("TEST_SHIM"); role != "" {
		playShim(role)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func playShim(role string) {
	action := os.Args[len(os.Args)-1]
	switch action {
	case "-v":
		playVersion(role)
	case "start":
		playStart(role)
	case "delete":
		playDelete(role)
	default:
		playServer(role)
	}
}

func playVersion(role string) {
	switch role {
	case "old":
		fmt.Println("shim:\n  Version:  1.7.27\n  Revision: abc")
	case "new":
		fmt.Println("shim:\n  Version:  v2.4.2+unknown")
	case "v-hangs":
		time.Sleep(time.Hour)
	case "kata":
		fmt.Println("Kata Containers containerd shim: id: kata, version: 3.20.0") // its own, not containerd's
	}
}

func argument(flag string) string { return os.Args[slices.Index(os.Args, flag)+1] }

func playStart(role string) {
	input, _ := io.ReadAll(os.Stdin)
	fmt.Fprintln(os.Stderr, "a warning that is no part of the answer")
	socket := filepath.Join(filepath.Dir(os.Getenv("TTRPC_ADDRESS")), "t")
	switch role {
	case "garbage":
		fmt.Print("\xff\xfe\x00 garbage")
	case "empty":
	case "flood":
		for range 20 << 10 {
			fmt.Print(strings.Repeat("x", 1024))
		}
	case "chatty-failure":
		fmt.Fprint(os.Stderr, "no such thing", strings.Repeat("!", 1<<20))
		os.Exit(1)
	case "hang":
		// A child that holds the pipes must not be waited for either.
		exec.Command("/bin/sleep", "1000").Start()
		time.Sleep(time.Hour)
	case "abstract":
		fmt.Print("@somewhere")
	case "vsock":
		fmt.Print(`{"version":3,"address":"vsock://3:1024","protocol":"ttrpc"}`)
	case "grpc":
		fmt.Printf(`{"version":3,"address":"unix://%s","protocol":"grpc"}`, socket)
	case "version9":
		fmt.Printf(`{"version":9,"address":"unix://%s","protocol":"ttrpc"}`, socket)
	case "liar":
		fmt.Printf("unix://%s", socket) // nobody listens there
	case "mute":
		spawnServer(socket)
		fmt.Printf("unix://%s", socket)
	case "old", "kata", "shy":
		var options anypb.Any
		if err := proto.Unmarshal(input, &options); err != nil || options.TypeUrl != "runtimeoptions.v1.Options" {
			fmt.Fprintf(os.Stderr, "type with url %s: not found", options.TypeUrl)
			os.Exit(1)
		}
		spawnServer(socket)
		fmt.Printf("unix://%s\n", socket)
	case "json":
		spawnServer(socket)
		fmt.Printf(`{"version":3,"address":"unix://%s","protocol":"ttrpc"}`, socket)
	default:
		var params bootstrap.BootstrapParams
		if err := proto.Unmarshal(input, &params); err != nil || params.InstanceID != argument("-id") || params.Namespace != argument("-namespace") {
			fmt.Fprint(os.Stderr, "bootstrap parameters do not match command-line arguments")
			os.Exit(1)
		}
		if f := argument("-address") + ".env"; role == "new" {
			os.WriteFile(f, []byte(strings.Join(os.Environ(), "\n")), 0o600)
		}
		spawnServer(socket)
		out, _ := proto.Marshal(&bootstrap.BootstrapResult{Version: 3, Address: "unix://" + socket, Protocol: "ttrpc"})
		os.Stdout.Write(out)
	}
}

func spawnServer(socket string) {
	cmd := exec.Command(os.Args[0], append(slices.Clone(os.Args[1:len(os.Args)-1]), "-socket", socket)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Start()
	for {
		// Not a look at the file: it is there a moment before anybody listens.
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func playDelete(role string) {
	switch role {
	case "delete-hangs":
		child := exec.Command("/bin/sleep", "1000")
		child.Stdout = os.Stdout
		child.Start()
		os.WriteFile("child", []byte(fmt.Sprint(child.Process.Pid)), 0o600)
		time.Sleep(time.Hour)
	case "delete-fails":
		fmt.Fprint(os.Stderr, "boom")
		os.Exit(3)
	}
}

// playServer is the lasting process of a shim. It drops every connection after
// State, and ends by Shutdown or by itself.
func playServer(role string) {
	time.AfterFunc(time.Minute, func() { os.Exit(1) })
	path := argument("-socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		os.Exit(1)
	}
	if role == "mute" {
		select {}
	}
	// As the runc shim does: it waits here until somebody has the fifo open.
	logs, err := os.OpenFile("log", os.O_WRONLY, 0)
	if err != nil {
		os.Exit(1)
	}
	signal.Ignore(syscall.SIGPIPE)
	service := "containerd.task.v3.Task"
	if role == "old" || role == "kata" || role == "shy" {
		service = "containerd.task.v2.Task"
	}
	drop := &droppingListener{Listener: l}
	server, _ := ttrpc.NewServer()
	server.RegisterService(service, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Connect": func(context.Context, func(any) error) (any, error) {
			fmt.Fprintf(logs, "level=warning msg=\"connection %d\"\n", drop.accepted)
			if role == "shy" {
				return nil, status.Error(codes.FailedPrecondition, "container must be created")
			}
			return &task.ConnectResponse{ShimPid: uint32(os.Getpid()), TaskPid: uint32(drop.accepted)}, nil
		},
		"State": func(context.Context, func(any) error) (any, error) {
			drop.last.Close()
			return &task.StateResponse{}, nil
		},
		"Shutdown": func(context.Context, func(any) error) (any, error) {
			os.Exit(0)
			return &emptypb.Empty{}, nil
		},
	}})
	server.Serve(context.Background(), drop)
}

type droppingListener struct {
	net.Listener
	last     net.Conn
	accepted int
}

func (l *droppingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.last = c
		l.accepted++
	}
	return c, err
}

// stage is a host for a shim of the given role.
func stage(t *testing.T, role string) (*shimclient.Host, shimclient.Launch) {
	t.Helper()
	return stageWithLog(t, role, slog.Default())
}

func stageWithLog(t *testing.T, role string, log *slog.Logger) (*shimclient.Host, shimclient.Launch) {
	t.Helper()
	dir, err := os.MkdirTemp("", "crid") // short, for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	host, err := shimclient.NewHost(shimclient.HostConfig{
		State: dir, Address: filepath.Join(dir, "a"), SearchPaths: []string{"/opt/a", "/opt/b"}, Env: []string{"TEST_SHIM=" + role}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	bundle := filepath.Join(dir, "b", "pod1")
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	l := shimclient.Launch{ID: "pod1", Bundle: bundle, Runtime: shimclient.Runtime{
		Name: role, Type: "io.containerd.test.v1", Path: os.Args[0],
		Options: map[string]any{"ConfigPath": "/etc/test.toml"},
	}}
	t.Cleanup(func() { host.Kill(context.Background(), host.Predict(l)) })
	return host, l
}
