package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

const (
	maxOutput = 1 << 20  // of a plugin's answer, bytes
	maxStderr = 16 << 10 // kept of its diagnostics
	// A child of a plugin that ended may hold its pipes; no answer comes from it.
	pipeGrace = 500 * time.Millisecond
	// How long a killed plugin may take to be gone before it is left behind.
	killGrace = 2 * time.Second
)

// PluginError is what a plugin said, or what became of it.
type PluginError struct {
	Plugin, Verb string
	// Code is CNI's error code (11: try again later, 50: not available, 100 and
	// above: the plugin's own); 0 if the plugin gave none.
	Code         uint
	Msg, Details string
	cause        error
}

// Error tells plugin, verb and the plugin's own words.
func (e *PluginError) Error() string {
	s := fmt.Sprintf("plugin %s (%s): %s", e.Plugin, e.Verb, e.Msg)
	if e.Details != "" {
		s += ": " + e.Details
	}
	return s
}

// Unwrap makes codes 11 and 50 [errdefs.ErrUnavailable], a missing binary
// [ErrPluginMissing] and an overrun deadline [ErrPluginSlow].
func (e *PluginError) Unwrap() error { return e.cause }

// unknownVerb is true if the plugin is too old for STATUS or GC.
func (e *PluginError) unknownVerb() bool {
	return strings.Contains(e.Msg, "unknown CNI_COMMAND") || e.Code == types.ErrIncompatibleCNIVersion
}

// ErrPluginSlow is a plugin that did not end in its time. It is always joined to
// [context.DeadlineExceeded]: that deadline is the plugin's, not the caller's.
var ErrPluginSlow = errors.New("did not end in time and was killed")

// ErrPluginMissing is a plugin whose binary is in none of the bin_dirs.
var ErrPluginMissing = errors.New("CNI plugin is not installed")

// find looks a plugin up. Its type is a name, never a path: a configuration
// must not be able to run any program of the node (CVE-2021-20206).
func (n *Networks) find(plugin string) (string, error) {
	if err := checkType(plugin); err != nil {
		return "", err
	}
	for _, dir := range n.cfg.BinDirs {
		path := filepath.Join(dir, plugin)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("plugin %q not found in %s: %w", plugin, strings.Join(n.cfg.BinDirs, ", "), ErrPluginMissing)
}

func checkType(plugin string) error {
	if plugin == "" || plugin == "." || plugin == ".." || len(plugin) > 255 || strings.ContainsAny(plugin, "/\\\x00") {
		return fmt.Errorf("plugin type %q is not a file name: %w", plugin, errdefs.ErrInvalidArgument)
	}
	return nil
}

// environ is all that a plugin gets: CNI's variables and a PATH. The daemon's
// own environment (proxies with passwords, sockets) is not passed on.
func (n *Networks) environ(verb string, r *record) []string {
	pairs := make([]string, 0, len(r.CNIArgs))
	for _, kv := range r.CNIArgs {
		pairs = append(pairs, kv[0]+"="+kv[1])
	}
	return []string{
		"PATH=" + n.cfg.SearchPath,
		"CNI_COMMAND=" + verb,
		"CNI_CONTAINERID=" + r.ContainerID,
		"CNI_NETNS=" + r.NetNS,
		"CNI_IFNAME=" + r.IfName,
		"CNI_ARGS=" + strings.Join(pairs, ";"),
		"CNI_PATH=" + strings.Join(n.cfg.BinDirs, string(filepath.ListSeparator)),
	}
}

// run executes one plugin whose answer is only whether it worked.
func (n *Networks) run(ctx context.Context, plugin, verb string, conf []byte, r *record) error {
	_, err := n.ask(ctx, plugin, verb, conf, r)
	return err
}

// ask executes one plugin and returns what it wrote to its standard output.
// At the deadline its whole process group is gone, also if a child of it holds
// the output.
func (n *Networks) ask(ctx context.Context, plugin, verb string, conf []byte, r *record) ([]byte, error) {
	path, err := n.find(plugin)
	if err != nil {
		return nil, &PluginError{Plugin: plugin, Verb: verb, Msg: "not installed in " + strings.Join(n.cfg.BinDirs, ", "), cause: err}
	}
	stdout, stderr, err := execute(ctx, path, n.environ(verb, r), conf)
	if text := strings.TrimSpace(stderr); text != "" {
		n.log.Debug("plugin wrote diagnostics", "plugin", plugin, "verb", verb, "pod", r.ContainerID, "stderr", text)
	}
	if err != nil {
		return nil, explain(plugin, verb, stdout, stderr, err)
	}
	return stdout, nil
}

// explain turns a failed execution into the plugin's own words, if it had any.
func explain(plugin, verb string, stdout []byte, stderr string, err error) error {
	e := &PluginError{Plugin: plugin, Verb: verb, Msg: err.Error(), cause: err}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return e
	}
	e.cause = nil
	var told types.Error
	switch {
	case len(bytes.TrimSpace(stdout)) > 0 && json.Unmarshal(stdout, &told) == nil && (told.Msg != "" || told.Code != 0):
		e.Code, e.Msg, e.Details = told.Code, told.Msg, told.Details
		if e.Msg == "" {
			e.Msg = "failed without a message"
		}
		e.Msg += fmt.Sprintf(" (code %d)", told.Code)
	case strings.TrimSpace(stderr) != "":
		e.Msg, e.Details = err.Error(), clip(stderr)
	case len(bytes.TrimSpace(stdout)) > 0:
		e.Msg, e.Details = err.Error()+" and an answer that is no CNI error", clip(string(stdout))
	default:
		e.Msg = err.Error() + " without a message"
	}
	if e.Code == types.ErrTryAgainLater || e.Code == types.ErrPluginNotAvailable {
		e.cause = errdefs.ErrUnavailable
	}
	return e
}

// clip keeps error messages readable and printable whatever a plugin wrote.
func clip(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	if len(s) > 512 {
		s = strings.ToValidUTF8(s[:512], "") + "…"
	}
	return s
}

// execute runs path to its end or to ctx's. The plugin leads a process group
// of its own. It is only waited for (and its pid freed) after the group was
// signalled, so that the signal cannot meet somebody else.
func execute(ctx context.Context, path string, env []string, stdin []byte) (stdout []byte, stderr string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", fmt.Errorf("not started: %w", err)
	}
	// Pdeathsig follows the thread that forked; it must outlive the plugin.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	over := make(chan struct{})
	out := &bounded{limit: maxOutput, over: over}
	diag := &bounded{limit: maxStderr}
	cmd, err := start(ctx, func() *exec.Cmd {
		// Not ctx: at its end the whole group is killed below, not one process.
		cmd := exec.CommandContext(context.WithoutCancel(ctx), path)
		cmd.Env = env
		cmd.Dir = "/"
		cmd.Stdin = bytes.NewReader(stdin)
		cmd.Stdout, cmd.Stderr = out, diag
		cmd.WaitDelay = pipeGrace
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: deathSignal(env)}
		return cmd
	})
	if err != nil {
		return nil, "", fmt.Errorf("start: %w", err)
	}
	pid := cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitEnd(pid)
	}()

	var cut error
	select {
	case <-ended:
	case <-over:
		cut = fmt.Errorf("wrote more than %d bytes: %w", maxOutput, errdefs.ErrInvalidArgument)
	case <-ctx.Done():
		cut = fmt.Errorf("was cut off and killed: %w", ctx.Err())
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			cut = fmt.Errorf("%w: %w", ErrPluginSlow, ctx.Err())
		}
	}
	if cut != nil {
		_ = unix.Kill(-pid, unix.SIGKILL)
		select {
		case <-ended:
		case <-time.After(killGrace):
			// In the kernel's hands (D state): reaped when that lets go.
			go func() { <-ended; _ = cmd.Wait() }()
			return nil, "", fmt.Errorf("%w (and it does not die)", cut)
		}
	}
	err = cmd.Wait()
	if cut == nil && out.exceeded() {
		cut = fmt.Errorf("wrote more than %d bytes: %w", maxOutput, errdefs.ErrInvalidArgument)
	}
	if cut != nil {
		return nil, diag.String(), cut
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		// It ended well, and a child of it (a DHCP client) keeps its output open.
		err = nil
	}
	return out.Bytes(), diag.String(), err
}

// deathSignal is what a plugin gets when the daemon dies. An ADD does not outlive
// it: the next daemon undoes the attachment from its record, and must not be
// overtaken by an ADD that goes on. A DEL does: the standard plugins cannot take
// one up again that was cut off (bridge looks for its masquerade rules only
// while the interface is there), and one that goes on hurts no other.
func deathSignal(env []string) syscall.Signal {
	if slices.Contains(env, "CNI_COMMAND=DEL") {
		return 0
	}
	return unix.SIGKILL
}

// start starts a command; a plugin that is being installed this moment ("text
// file busy") is tried again.
func start(ctx context.Context, command func() *exec.Cmd) (*exec.Cmd, error) {
	for try := 0; ; try++ {
		cmd := command()
		err := cmd.Start()
		if err == nil {
			return cmd, nil
		}
		if !errors.Is(err, unix.ETXTBSY) || try == 20 {
			return nil, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// awaitEnd returns when the child has ended, and leaves it a zombie.
func awaitEnd(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
