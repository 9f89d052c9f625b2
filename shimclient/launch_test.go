package shimclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

func TestBrokenShimsFailCleanlyAndInTime(t *testing.T) {
	for _, c := range []struct {
		role    string
		timeout time.Duration
		says    string
	}{
		{"garbage", 5 * time.Second, "not a unix:// path"},
		{"empty", 5 * time.Second, "printed no address"},
		{"flood", 10 * time.Second, "more than 1048576 bytes"},
		{"chatty-failure", 5 * time.Second, "no such thing"},
		{"hang", 500 * time.Millisecond, "deadline"},
		{"abstract", 5 * time.Second, "not a unix:// path"},
		{"vsock", 5 * time.Second, "not a unix:// path"},
		{"grpc", 5 * time.Second, "only ttrpc"},
		{"version9", 5 * time.Second, "version 9"},
		{"liar", 5 * time.Second, "unreachable"},
		{"mute", 3 * time.Second, "unreachable"},
	} {
		t.Run(c.role, func(t *testing.T) {
			t.Parallel()
			host, l := stage(t, c.role)
			ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
			defer cancel()
			began := time.Now()
			s, err := host.Launch(ctx, l)
			if err == nil {
				s.Close()
				t.Fatal("launched")
			}
			if !strings.Contains(err.Error(), c.says) || len(err.Error()) > 8192 {
				t.Fatalf("%d bytes: %.300v", len(err.Error()), err)
			}
			if took := time.Since(began); took > c.timeout+3*time.Second {
				t.Fatalf("took %v", took)
			}
			// Nothing is left, or a retry would meet it.
			if s, err := host.FindUnrecorded(t.Context(), host.Predict(l)); !errors.Is(err, errdefs.ErrNotFound) {
				s.Close()
				t.Fatalf("left behind: %v", err)
			}
		})
	}
}

func TestMissingShim(t *testing.T) {
	host, l := stage(t, "new")
	l.Runtime.Path = filepath.Join(t.TempDir(), "nothing")
	if _, err := host.Launch(t.Context(), l); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Fatal(err)
	}
	os.WriteFile(l.Runtime.Path, nil, 0o644)
	if _, err := host.Launch(t.Context(), l); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Fatal(err)
	}
	if _, err := shimclient.Resolve(l.Runtime); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := shimclient.Resolve(shimclient.Runtime{Type: "io.containerd.nosuch.v7"}); err == nil || !strings.Contains(err.Error(), "containerd-shim-nosuch-v7") {
		t.Fatal(err)
	}
}

func TestEveryDialect(t *testing.T) {
	for role, version := range map[string]int{
		"old":     2, // says 1.7, takes options, answers with a plain address
		"kata":    2, // says nothing that we know, takes options
		"json":    3, // says nothing, answers in JSON
		"unknown": 3, // says nothing, refuses options, takes parameters
		"new":     3,
		"shy":     2, // does not tell its pid
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			host, l := stage(t, role)
			for range 2 { // the second time without a probe
				s, err := host.Launch(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				if s.Ref().Version != version {
					t.Fatalf("%+v", s.Ref())
				}
				predicted := host.Predict(l)
				predicted.Address = s.Ref().Address // these listen where they like
				again, err := host.FindUnrecorded(t.Context(), predicted)
				if err != nil || again.Ref() != s.Ref() {
					t.Fatalf("%v: %+v, want %+v", err, again.Ref(), s.Ref())
				}
				again.Close()
				if err := s.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				<-s.Gone()
				s.Close()
			}
		})
	}
}

func TestShimGetsNothingOfOurEnvironment(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/secret")
	host, l := stage(t, "new")
	s, err := host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dir := filepath.Dir(filepath.Dir(l.Bundle))
	b, err := os.ReadFile(filepath.Join(dir, "a.env"))
	if err != nil {
		t.Fatal(err)
	}
	env := strings.Split(string(b), "\n")
	slices.Sort(env)
	want := []string{
		"GOMAXPROCS=2", "GRPC_ADDRESS=" + dir + "/a", "MAX_SHIM_VERSION=2", "NAMESPACE=crid",
		"PATH=/opt/a:/opt/b:" + os.Getenv("PATH"), "TEST_SHIM=new", "TTRPC_ADDRESS=" + dir + "/events.sock",
	}
	env = slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, "PWD=") })
	if !slices.Equal(env, want) {
		t.Fatalf("got %q\nwant %q", env, want)
	}
}

func TestBrokenConnectionIsMadeAnew(t *testing.T) {
	host, l := stage(t, "new")
	s, err := host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, _ := s.Connect(t.Context(), "x") // this shim tells the count of connections
	for range 3 {
		// The shim drops the connection in the middle of this call.
		if _, err := s.State(t.Context(), "x"); !errors.Is(err, shimclient.ErrUnreachable) || errors.Is(err, errdefs.ErrNotFound) {
			t.Fatalf("state: %v", err)
		}
		if !s.Silent() {
			t.Fatal("a shim that hung up counts as one that answers")
		}
		if info, err := s.Connect(t.Context(), "x"); err != nil || info.ShimPid != s.Ref().Process.Pid {
			t.Fatalf("connect: %+v, %v", info, err)
		}
		if s.Silent() {
			t.Fatal("a shim that answers counts as silent")
		}
	}
	if info, _ := s.Connect(t.Context(), "x"); info.TaskPid != before.TaskPid+3 {
		t.Fatalf("%d connections for three breaks", info.TaskPid-before.TaskPid)
	}
	select {
	case <-s.Gone():
		t.Fatal("a broken connection was taken for a death")
	default:
	}
}

func TestLaunchTwiceFindsTheFirst(t *testing.T) {
	host, l := stage(t, "new")
	s, err := host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// A record that was lost: only the prediction is left. This role listens
	// elsewhere, so it must be found among the processes.
	predicted := host.Predict(l)
	predicted.Address = s.Ref().Address
	found, err := host.FindUnrecorded(t.Context(), predicted)
	if err != nil || found.Ref().Process != s.Ref().Process {
		t.Fatalf("%v", err)
	}
	found.Close()
	os.Remove(predicted.Address)
	found, err = host.FindUnrecorded(t.Context(), predicted)
	if !errors.Is(err, shimclient.ErrUnreachable) || found.Ref().Process != s.Ref().Process {
		t.Fatalf("%v", err)
	}
	found.Close()
	if err := host.Kill(t.Context(), host.Predict(l)); err != nil {
		t.Fatal(err)
	}
	<-s.Gone()
}

func TestAdoptWantsTheSameProcess(t *testing.T) {
	host, l := stage(t, "new")
	s, err := host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ref := s.Ref()
	ref.Process.StartTime-- // somebody else had this pid before
	if _, err := host.Adopt(t.Context(), ref); !errors.Is(err, shimclient.ErrGone) {
		t.Fatalf("%v", err)
	}
	// The recorded process lives, and another one listens at the address.
	ref = s.Ref()
	if ref.Process, err = pidfd.Identify(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	other, err := host.Adopt(t.Context(), ref)
	if !errors.Is(err, shimclient.ErrUnreachable) || !strings.Contains(err.Error(), "another shim") {
		t.Fatalf("%v", err)
	}
	other.Close()
}

// What a shim says while no daemon is there is lost, and does not hurt it; what
// it says to the next one is read.
func TestShimLogGoesOnAfterARestart(t *testing.T) {
	said := make(chan string, 100)
	host, l := stageWithLog(t, "new", slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		said <- string(p)
		return len(p), nil
	}), nil)))
	s, err := host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	expect := func() {
		t.Helper()
		select {
		case line := <-said:
			if !strings.Contains(line, "level=WARN") || !strings.Contains(line, "pod=pod1") || !strings.Contains(line, "connection") {
				t.Fatal(line)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("not a word")
		}
	}
	expect()
	s.Close()
	for len(said) > 0 {
		<-said
	}
	again, err := host.Adopt(t.Context(), s.Ref())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	expect()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestKillTwice(t *testing.T) {
	host, l := stage(t, "new")
	s, err := host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if err := host.Kill(t.Context(), s.Ref()); err != nil {
			t.Fatal(err)
		}
		<-s.Gone()
		if _, err := os.Lstat(s.Ref().Address); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("socket: %v", err)
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A shim that goes in the last moment of its caller's patience left its socket behind for ever.
func TestShutdownInTheLastMoment(t *testing.T) {
	host, l := stage(t, "new")
	s, err := host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := unix.Kill(s.Ref().Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Gone()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.Ref().Address); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("socket: %v", err)
	}
}

// A runtime command that hangs has the shim's socket and outlives the shim; the socket's file stayed for ever. The test listens in its place.
func TestASocketThatAHungCommandHolds(t *testing.T) {
	for name, end := range map[string]func(*shimclient.Host, *shimclient.Shim) error{
		"kill":     func(h *shimclient.Host, s *shimclient.Shim) error { return h.Kill(t.Context(), s.Ref()) },
		"shutdown": func(_ *shimclient.Host, s *shimclient.Shim) error { return s.Shutdown(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			host, l := stage(t, "new")
			s, err := host.Launch(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := unix.Kill(s.Ref().Process.Pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-s.Gone()
			if err := os.Remove(s.Ref().Address); err != nil {
				t.Fatal(err)
			}
			held, err := net.Listen("unix", s.Ref().Address)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if err := end(host, s); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(s.Ref().Address); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("socket: %v", err)
			}
		})
	}
}

func TestDeleteTaskEnds(t *testing.T) {
	host, l := stage(t, "delete-hangs")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := host.DeleteTask(ctx, l.Runtime, l.Bundle, "pod1")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	b, err := os.ReadFile(filepath.Join(l.Bundle, "child"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	fmt.Sscan(string(b), &pid)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := pidfd.Identify(pid); errors.Is(err, pidfd.ErrGone) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the command was killed and its child was not")
		}
	}

	host, l = stage(t, "delete-fails")
	if err := host.DeleteTask(t.Context(), l.Runtime, l.Bundle, "pod1"); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Fatal(err)
	}
	if err := host.DeleteTask(t.Context(), l.Runtime, l.Bundle+"x", "pod1x"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatal(err)
	}
}

func TestIDsThatWouldEscape(t *testing.T) {
	host, l := stage(t, "new")
	for _, id := range []string{"", "..", "a/b", "-id", "a\x00b", "a b", strings.Repeat("x", 129)} {
		l := l
		l.ID, l.Bundle = id, filepath.Dir(l.Bundle)+"/"+id
		if _, err := host.Launch(t.Context(), l); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("launch %q: %v", id, err)
		}
		if err := host.DeleteTask(t.Context(), l.Runtime, l.Bundle, id); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("delete %q: %v", id, err)
		}
		if err := host.Kill(t.Context(), shimclient.Ref{ID: id}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("kill %q: %v", id, err)
		}
	}
	l.Bundle = filepath.Dir(l.Bundle)
	if _, err := host.Launch(t.Context(), l); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a bundle that is not named after the id: %v", err)
	}
}

func TestStateDirectoryTooLongForASocket(t *testing.T) {
	_, err := shimclient.NewHost(shimclient.HostConfig{State: "/run/" + strings.Repeat("x", 60), Address: "/a"})
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "choose a shorter") {
		t.Fatal(err)
	}
}
