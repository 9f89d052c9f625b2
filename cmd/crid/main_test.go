package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/crid-project/crid/config"
)

// TestMain poses as crid when a test starts this binary again.
func TestMain(m *testing.M) {
	if os.Getenv("CRID_TEST_MAIN") != "" {
		Serve = func(ctx context.Context, d Daemon) error {
			d.Ready("all\nwell")
			fmt.Println("serving", os.Getenv("NOTIFY_SOCKET") == "")
			for {
				select {
				case c := <-d.Reloads:
					fmt.Println("reloaded", c.Log.Level)
				case <-ctx.Done():
					return nil
				}
			}
		}
		main()
		os.Exit(0)
	}
	// Each test sets the hooks it needs, whatever the wiring has filled in.
	Serve, Reset, Images, Explain = nil, nil, nil, nil
	goleak.VerifyTestMain(m)
}

// place is a directory of this test's own for root and state. It has a short
// name, for the sockets in it.
func place(t *testing.T) (args []string, c *config.Config) {
	t.Helper()
	dir, err := os.MkdirTemp("", "crid-t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o := config.Overrides{Root: dir + "/r", State: dir + "/s"}
	file := dir + "/config.toml"
	if err := os.WriteFile(file, []byte("version = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = config.Load(file, o); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", file, "--root", o.Root, "--state", o.State}, c
}

// crid runs the command line in this process.
func crid(t *testing.T, stdin string, args ...string) (out string, err error) {
	t.Helper()
	var b bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	err = cmd.ExecuteContext(t.Context())
	return b.String(), err
}

// process is a crid that serves; ended brings what Wait says.
type process struct {
	*os.Process
	ended chan error
	out   *os.File
}

// daemon starts this binary as a serving crid.
func daemon(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), "CRID_TEST_MAIN=1"), env...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd.Process, make(chan error, 1), r}
	go func() { p.ended <- cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		_ = p.Kill()
		<-p.ended
		_ = r.Close()
	})
	return p
}

// says waits for the next line that the crid prints.
func (p *process) says(t *testing.T, want string) {
	t.Helper()
	b := make([]byte, 4096)
	_ = p.out.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := p.out.Read(b)
	if got := strings.TrimSpace(string(b[:n])); err != nil || got != want {
		t.Fatalf("crid says %q, %v; want %q", got, err, want)
	}
}

func TestASecondCridOnTheSameRootEndsAtOnceAndNamesTheFirst(t *testing.T) {
	args, c := place(t)
	first := daemon(t, nil, args...)
	first.says(t, "serving true")
	begin := time.Now()
	second := exec.Command(os.Args[0], append(args, "--state", c.State+"2")...)
	second.Env = append(os.Environ(), "CRID_TEST_MAIN=1")
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by another crid (pid "+strconv.Itoa(first.Pid)+")") {
		t.Errorf("the second: %v, %s", err, out)
	}
	if d := time.Since(begin); d > 1500*time.Millisecond {
		t.Errorf("it took %s to say so", d)
	}
}

func TestAKilledCridLeavesNoLockBehind(t *testing.T) {
	args, c := place(t)
	first := daemon(t, nil, args...)
	first.says(t, "serving true")
	if err := first.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	daemon(t, nil, args...).says(t, "serving true") // while the first may not even be reaped
	for _, dir := range []string{c.Root, c.State} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st.Mode(), err)
		}
	}
}

func TestAChildThatCridStartedDoesNotKeepTheLock(t *testing.T) {
	dir := t.TempDir()
	l, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "100")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	if _, err := lockDir(dir); !errors.Is(err, errLocked) {
		t.Errorf("locked twice: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockDir(dir)
	if err != nil {
		t.Fatalf("with a child alive: %v", err)
	}
	_ = again.Close()
}

func TestMakeDirRefusesLinksAndClosesWhatIsOpen(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := makeDir(open); err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(open); st.Mode().Perm() != 0o700 {
		t.Errorf("mode %o", st.Mode().Perm())
	}
	if err := os.Chmod(open, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := makeDir(open); err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(open); st.Mode().Perm() != 0o711 {
		t.Errorf("0711, which user namespaces need, became %o", st.Mode().Perm())
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{link, file} {
		if err := makeDir(p); err == nil {
			t.Errorf("%s was taken", p)
		}
	}
}

func TestReadinessReloadAndStopAreTold(t *testing.T) {
	args, _ := place(t)
	path := filepath.Join(filepath.Dir(args[1]), "n")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	expect := func(prefix string) {
		t.Helper()
		b := make([]byte, 1024)
		for {
			_ = manager.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := manager.Read(b)
			if err != nil {
				t.Fatalf("nothing says %q: %v", prefix, err)
			}
			if got := string(b[:n]); got != "WATCHDOG=1" {
				if !strings.HasPrefix(got, prefix) {
					t.Fatalf("got %q, want %q", got, prefix)
				}
				return
			}
			if prefix == "WATCHDOG=1" {
				return
			}
		}
	}
	p := daemon(t, []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=200000"}, args...)
	expect("READY=1\nSTATUS=all well")
	p.says(t, "serving true") // and the socket is hidden from children
	expect("WATCHDOG=1")
	if err := os.WriteFile(args[1], []byte("version = 1\n[log]\nlevel = \"debug\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("RELOADING=1\nMONOTONIC_USEC=")
	expect("READY=1")
	p.says(t, "reloaded debug")
	if err := os.WriteFile(args[1], []byte("version = 1\nlveel = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("RELOADING=1") // a faulty file is reported and changes nothing
	expect("READY=1")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect("STOPPING=1")
	if err := <-p.ended; err != nil {
		t.Errorf("a graceful stop ends with %v", err)
	}
}

func TestResetAsksFirst(t *testing.T) {
	called := false
	Reset = func(context.Context, *config.Config, ResetOptions, io.Writer) error { called = true; return nil }
	defer func() { Reset = nil }()
	args, c := place(t)
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, answer := range []string{"", "n\n", "\n", "maybe\n"} {
		if out, err := crid(t, answer, append(args, "reset")...); err == nil || called || !strings.Contains(out, c.State) {
			t.Errorf("answer %q: called %v, %v, %s", answer, called, err, out)
		}
	}
	if out, err := crid(t, "y\n", append(args, "reset")...); err != nil || !called || !strings.Contains(out, "reset is complete") {
		t.Errorf("answer y: called %v, %v, %s", called, err, out)
	}
}

func TestResetStopsARunningCridAndLeavesNothing(t *testing.T) {
	args, c := place(t)
	running := daemon(t, nil, args...)
	running.says(t, "serving true")
	var images bool
	Reset = func(_ context.Context, _ *config.Config, o ResetOptions, out io.Writer) error {
		images = o.Images
		if alive(running.Pid) {
			t.Error("crid runs while the reset does")
		}
		fmt.Fprintln(out, "did it")
		return nil
	}
	defer func() { Reset = nil }()
	out, err := crid(t, "", append(args, "reset", "--yes", "--images")...)
	if err != nil || !images || !strings.Contains(out, "stopping crid (pid") || !strings.Contains(out, "did it") {
		t.Fatalf("%v, images %v, %s", err, images, out)
	}
	for _, d := range []string{c.Root, c.State} {
		if isDir(d) {
			t.Errorf("%s is left", d)
		}
	}
	if out, err := crid(t, "", append(args, "reset", "--yes")...); err != nil || !strings.Contains(out, "nothing to reset") {
		t.Errorf("again: %v, %s", err, out)
	}
}

func TestResetKillsNobodyWhosePidIsInAStaleLock(t *testing.T) {
	args, c := place(t)
	Reset = func(context.Context, *config.Config, ResetOptions, io.Writer) error { return nil }
	defer func() { Reset = nil }()
	bystander := exec.Command("sleep", "100")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
	for _, d := range []string{c.Root, c.State} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "lock"), []byte(strconv.Itoa(bystander.Process.Pid)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		if err := stopHolder(t.Context(), d, map[int]bool{}, &said); err != nil || said.Len() > 0 {
			t.Errorf("%v, %s", err, &said)
		}
	}
	if out, err := crid(t, "", append(args, "reset", "-y")...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if !alive(bystander.Process.Pid) {
		t.Error("the bystander died")
	}
}

// fakeAdmin answers like the daemon.
func fakeAdmin(t *testing.T, c *config.Config, h http.Handler) {
	t.Helper()
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", c.AdminSocket())
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

func TestImagesThroughTheDaemon(t *testing.T) {
	args, c := place(t)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /images/import", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		switch string(b) {
		case "archive":
			fmt.Fprintln(w, `{"progress":"layer 1"}`)
			fmt.Fprintln(w, `{"image":{"id":"sha256:abc","tags":["demo:1"]}}`)
		case "late":
			fmt.Fprintln(w, `{"progress":"layer 1"}`)
			fmt.Fprintln(w, `{"error":"layer 2 has the wrong digest"}`)
		default:
			http.Error(w, "this is no archive", http.StatusBadRequest)
		}
	})
	mux.HandleFunc("GET /images/export", func(w http.ResponseWriter, r *http.Request) {
		if refs := r.URL.Query()["ref"]; len(refs) == 2 {
			fmt.Fprint(w, strings.Join(refs, "+"))
			return
		}
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("GET /images", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode([]Image{{ID: "sha256:0123456789abcdef", Tags: []string{"demo:1"}, Size: 2_000_000, Pinned: true}})
	})
	fakeAdmin(t, c, mux)
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good, late := file("a.tar", "archive"), file("b.tar.gz", "late")
	for _, tc := range []struct {
		args []string
		out  string
		err  string
	}{
		{[]string{"import", good}, "layer 1\nsha256:abc demo:1", ""},
		{[]string{"import", late}, "", "b.tar.gz: layer 2 has the wrong digest"},
		{[]string{"import", file("c", "?")}, "", "this is no archive"},
		{[]string{"import", dir}, "", "not a regular file"},
		{[]string{"import", filepath.Join(dir, "none")}, "", "no such file"},
		{[]string{"preload", dir}, "sha256:abc demo:1", "b.tar.gz"}, // a bad one does not keep the others out
		{[]string{"preload", t.TempDir()}, "", "no archive"},
		{[]string{"list"}, "demo:1  0123456789ab  2MB   true", ""},
		{[]string{"list", "--json"}, `"demo:1"`, ""},
		{[]string{"export", "a", "b"}, "a+b", ""},
		{[]string{"export", "-o", filepath.Join(dir, "x.tar"), "a", "b"}, "", ""},
		{[]string{"export", "-o", filepath.Join(dir, "y.tar"), "a"}, "", "broke off the export"},
	} {
		out, err := crid(t, "", append(append([]string{"images"}, args...), tc.args...)...)
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) || !strings.Contains(out, tc.out) {
			t.Errorf("%v: %v\n%s", tc.args, err, out)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "x.tar")); string(b) != "a+b" {
		t.Errorf("exported %q", b)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*y.tar*")); left != nil {
		t.Errorf("half an archive is left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".export*")); left != nil {
		t.Errorf("left: %v", left)
	}
	if out, err := crid(t, "archive", append([]string{"images", "import", "-"}, args...)...); err != nil || !strings.Contains(out, "demo:1") {
		t.Errorf("from standard input: %v\n%s", err, out)
	}
}

// memory is a store without a daemon.
type memory struct{ closed bool }

func (m *memory) Import(context.Context, io.Reader, func(string)) ([]Image, error) { return nil, nil }
func (m *memory) Export(context.Context, io.Writer, []string) error                { return nil }
func (m *memory) List(context.Context) ([]Image, error)                            { return []Image{{ID: "x"}}, nil }
func (m *memory) Close() error                                                     { m.closed = true; return nil }

func TestImagesWithoutADaemonLockTheStore(t *testing.T) {
	args, c := place(t)
	if _, err := crid(t, "", append([]string{"images", "list"}, args...)...); err == nil {
		t.Error("without a hook it says something")
	}
	m := &memory{}
	Images = func(context.Context, *config.Config) (ImageStore, error) {
		if _, err := lockDir(c.Root); !errors.Is(err, errLocked) {
			t.Errorf("the store is opened without its lock: %v", err)
		}
		return m, nil
	}
	defer func() { Images = nil }()
	if out, err := crid(t, "", append([]string{"images", "ls"}, args...)...); err != nil || !strings.Contains(out, "<none>") || !m.closed {
		t.Errorf("%v, closed %v\n%s", err, m.closed, out)
	}
	l, err := lockDir(c.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := crid(t, "", append([]string{"images", "ls"}, args...)...); !errors.Is(err, errLocked) {
		t.Errorf("with the lock taken: %v", err)
	}
}

func TestCheckAsksTheDaemonForItsRecords(t *testing.T) {
	args, c := place(t)
	args = append([]string{"check", "--records"}, args...)
	if _, err := crid(t, "", args...); !errors.Is(err, errSilent) {
		t.Errorf("no daemon: %v", err)
	}
	answer := `[{"name":"shims","severity":"warning","message":"shim without record"}]`
	fakeAdmin(t, c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/check" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, answer)
	}))
	if out, err := crid(t, "", args...); err != nil || !strings.Contains(out, "warn  shims") || !strings.Contains(out, "0 ok, 1 warnings, 0 failures") {
		t.Errorf("%v\n%s", err, out)
	}
	answer = `[{"name":"shims","severity":"critical","message":"record without bundle"},{"name":"a","severity":"ok","message":"b"}]`
	out, err := crid(t, "", append(args, "--json", "-q")...)
	if !errors.Is(err, errSilent) || !strings.Contains(out, `"severity": "fail"`) || strings.Contains(out, `"b"`) {
		t.Errorf("%v\n%s", err, out)
	}
	answer = `[]`
	if out, err := crid(t, "", args...); err != nil || !strings.Contains(out, "agree") {
		t.Errorf("%v\n%s", err, out)
	}
	answer = `nonsense`
	if _, err := crid(t, "", args...); !errors.Is(err, errSilent) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestConfigCommands(t *testing.T) {
	args, c := place(t)
	if out, err := crid(t, "", append(args, "config", "dump")...); err != nil || out != c.Dump() {
		t.Errorf("dump: %v\n%s", err, out)
	}
	if out, err := crid(t, "", append(args, "config", "check")...); err != nil || !strings.Contains(out, "valid") {
		t.Errorf("check: %v\n%s", err, out)
	}
	if out, err := crid(t, "", "config", "default"); err != nil || out != config.DefaultTOML() {
		t.Errorf("default: %v\n%s", err, out)
	}
	if err := os.WriteFile(args[1], []byte("version = 1\nroott = \"/x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := crid(t, "", append(args, "config", "check")...); err == nil || !strings.Contains(err.Error(), `did you mean "root"?`) {
		t.Errorf("check of a faulty file: %v", err)
	}
	if out, err := crid(t, "", append(args, "version", "--json")...); err != nil || !strings.Contains(out, `"name": "crid"`) {
		t.Errorf("version with a faulty file: %v\n%s", err, out)
	}
	if out, err := crid(t, "", append(args, "check", "-q")...); !errors.Is(err, errSilent) || !strings.Contains(out, "roott") {
		t.Errorf("node check with a faulty file: %v\n%s", err, out)
	}
}

func TestCommandsWithoutTheirHookSaySo(t *testing.T) {
	args, _ := place(t)
	for _, cmd := range [][]string{{}, {"serve"}, {"reset", "-y"}, {"explain", "x"}} {
		if _, err := crid(t, "", append(cmd, args...)...); err == nil || !strings.Contains(err.Error(), "this build") {
			t.Errorf("%v: %v", cmd, err)
		}
	}
}

func TestExplain(t *testing.T) {
	args, _ := place(t)
	Explain = func(_ context.Context, _ *config.Config, ref string, out io.Writer) error {
		fmt.Fprintln(out, "would ask for", ref)
		return nil
	}
	defer func() { Explain = nil }()
	if out, err := crid(t, "", append(args, "explain", "busybox")...); err != nil || out != "would ask for busybox\n" {
		t.Errorf("%v, %s", err, out)
	}
}
