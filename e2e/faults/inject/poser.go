package inject

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/e2e/story"
)

// Names under which the test binary is something else.
const (
	asRunc = "posing-runc"
	asShim = "posing-shim"
	asInit = "posing-init"
)

// Main is TestMain's body of the packages that use posers: under another name the test binary is not a test. It does not return.
func Main(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case asRunc:
		os.Exit(pose(os.Args[1:]))
	case asShim:
		os.Exit(pose(os.Args[1:]))
	case asInit:
		os.Exit(initProcess(os.Args[1:]))
	}
	// These tests wait more than they work: more of them side by side than the machine has processors.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	story.Main(m)
}

// Act is what a poser does when it is asked for one thing, before it lets the real program do it.
type Act struct {
	Before time.Duration `json:"before,omitempty"` // it sleeps, then goes on
	After  time.Duration `json:"after,omitempty"`  // the real program runs, then it sleeps
	Exit   *int          `json:"exit,omitempty"`   // the real program does not run
	Stdout string        `json:"stdout,omitempty"`
	Stderr string        `json:"stderr,omitempty"`
	Flood  int64         `json:"flood,omitempty"` // so many bytes to standard output
	Log    string        `json:"log,omitempty"`   // written to the file that --log names
	Segv   bool          `json:"segv,omitempty"`  // it dies of SIGSEGV
}

// Code is for Act.Exit.
func Code(n int) *int { return &n }

// Poser is the test binary in place of a program of the runtime. Everything that it is asked for goes to the real one, unless Do said otherwise.
type Poser struct {
	Path string
	t    testing.TB
}

// newPoser makes one in place of a program of bin/.
func newPoser(t testing.TB, as, genuine string) *Poser {
	t.Helper()
	program, err := project.Bin(genuine)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &Poser{Path: filepath.Join(dir, as), t: t}
	for _, err := range []error{os.Symlink(self, p.Path), os.Symlink(program, filepath.Join(dir, "real"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p.Well()
	t.Cleanup(p.Well) // the end of the test needs the real one
	return p
}

// Runc is a poser in place of runc; the config of a daemon that uses it, as its handler "posed", is Table.
func Runc(t testing.TB) *Poser { t.Helper(); return newPoser(t, asRunc, "runc") }

// Shim is one in place of the shim.
func Shim(t testing.TB) *Poser { t.Helper(); return newPoser(t, asShim, "containerd-shim-runc-v2") }

// Handler is the name under which the poser is a runtime handler.
const Handler = "posed"

// Table is the configuration of a handler that uses the poser.
func (p *Poser) Table() string {
	p.t.Helper()
	shim, err := project.Bin("containerd-shim-runc-v2")
	if err != nil {
		p.t.Fatal(err)
	}
	runc, err := project.Bin("runc")
	if err != nil {
		p.t.Fatal(err)
	}
	if filepath.Base(p.Path) == asShim {
		shim = p.Path
	} else {
		runc = p.Path
	}
	return fmt.Sprintf("[runtimes.%s]\ntype = \"io.containerd.runc.v2\"\npath = %q\noptions = { BinaryName = %q, SystemdCgroup = false }\n", Handler, shim, runc)
}

// Do says what it does from now on, by what it is asked for ("create", "start", "kill", "delete", "exec"; "start" of a shim).
func (p *Poser) Do(acts map[string]Act) {
	p.t.Helper()
	text, err := json.Marshal(acts)
	if err == nil {
		path := filepath.Join(filepath.Dir(p.Path), "plan")
		if err = os.WriteFile(path+".new", text, 0o600); err == nil {
			err = os.Rename(path+".new", path)
		}
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// Well lets everything through.
func (p *Poser) Well() { p.t.Helper(); p.Do(map[string]Act{}) }

// Asked tells how often it was asked for something.
func (p *Poser) Asked(verb string) int {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(p.Path), "calls"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		if strings.TrimSpace(line) == verb {
			n++
		}
	}
	return n
}

// Left are the posers that still live.
func (p *Poser) Left() []string {
	var left []string
	for _, q := range harness.Processes() {
		if strings.HasPrefix(q.Command, p.Path+" ") {
			left = append(left, q.String())
		}
	}
	return left
}

// Pod runs a pod on the poser's handler.
func Pod(s *story.Story, name string) *story.Pod {
	s.T.Helper()
	config := s.Home.Pod(name)
	id, err := s.RunPod(s.T.Context(), config, Handler)
	if err != nil {
		s.T.Fatal(err)
	}
	return &story.Pod{Story: s, ID: id, Config: config}
}

// verbs are what runc and shims are asked for.
var verbs = []string{"create", "start", "kill", "delete", "state", "exec", "update", "ps", "features", "pause", "resume", "events"}

func verbOf(args []string) string {
	for _, a := range args {
		if slices.Contains(verbs, a) {
			return a
		}
	}
	return ""
}

// pose is the life of a poser.
func pose(args []string) int {
	dir := filepath.Dir(os.Args[0])
	verb := verbOf(args)
	if f, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
		fmt.Fprintln(f, verb)
		f.Close()
	}
	acts := map[string]Act{}
	if text, err := os.ReadFile(filepath.Join(dir, "plan")); err == nil {
		_ = json.Unmarshal(text, &acts) // a plan that is none is no plan
	}
	act, ok := acts[verb]
	genuine, err := os.Readlink(filepath.Join(dir, "real"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "poser:", err)
		return 99
	}
	argv := append([]string{genuine}, args...)
	if !ok {
		return become(genuine, argv)
	}
	time.Sleep(act.Before)
	act.say(args)
	switch {
	case act.Segv:
		return die()
	case act.Exit != nil:
		return *act.Exit
	case act.After == 0:
		return become(genuine, argv)
	}
	cmd := &exec.Cmd{Path: genuine, Args: argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	_ = cmd.Run() // its exit code is passed on below
	time.Sleep(act.After)
	return max(cmd.ProcessState.ExitCode(), 0)
}

func become(genuine string, argv []string) int {
	err := syscall.Exec(genuine, argv, os.Environ())
	fmt.Fprintln(os.Stderr, "poser:", err)
	return 99
}

// say writes what the act says to where the caller will look.
func (a Act) say(args []string) {
	fmt.Fprint(os.Stdout, a.Stdout)
	fmt.Fprint(os.Stderr, a.Stderr)
	for block := make([]byte, 64<<10); a.Flood > 0; a.Flood -= int64(len(block)) {
		if _, err := os.Stdout.Write(block[:min(a.Flood, int64(len(block)))]); err != nil {
			return
		}
	}
	if at := slices.Index(args, "--log"); a.Log != "" && at >= 0 && at+1 < len(args) {
		_ = os.WriteFile(args[at+1], []byte(a.Log), 0o600) // if that fails, the caller reads nothing
	}
}

// die ends this process by SIGSEGV, as a bug in C does.
func die() int {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	time.Sleep(time.Second) // the runtime of Go handles the first one
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	return 139
}
