package fitness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crid-project/crid/config"
)

// Level is how bad a finding is.
type Level string

// The levels: Fail means that pods will not run, or not safely.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is one thing looked at.
type Finding struct {
	// Name says what was looked at, in a few words.
	Name string `json:"name"`
	// Severity is ok, warn or fail.
	Severity Level `json:"severity"`
	// Message is what was found.
	Message string `json:"message"`
	// Cure says what to do; empty with ok.
	Cure string `json:"cure,omitempty"`
}

func ok(name, format string, args ...any) Finding {
	return Finding{Name: name, Severity: OK, Message: fmt.Sprintf(format, args...)}
}

func warn(name, cure, format string, args ...any) Finding {
	return Finding{Name: name, Severity: Warn, Message: fmt.Sprintf(format, args...), Cure: cure}
}

func fail(name, cure, format string, args ...any) Finding {
	return Finding{Name: name, Severity: Fail, Message: fmt.Sprintf(format, args...), Cure: cure}
}

// patience is how long one check may take; a hung mount or program must not
// keep the others' results from the user.
const patience = 10 * time.Second

// node is the machine as the checks see it.
type node struct {
	root string // before /proc and /sys; "" but in tests
	c    *config.Config
}

// check looks at one thing and answers at least one finding.
type check struct {
	name string
	run  func(context.Context, *node) []Finding
}

var checks = []check{
	{"privileges", privileges},
	{"kernel", kernel},
	{"pidfd", pidfds},
	{"namespaces", namespaces},
	{"seccomp", seccomp},
	{"overlayfs", overlay},
	{"id-mapped mounts", idmapped},
	{"mount propagation", propagation},
	{"cgroups", cgroups},
	{"runtimes", runtimes},
	{"network configuration", networkConfig},
	{"forwarding", forwarding},
	{"packet filter", packetFilter},
	{"root directory", rootDir},
	{"state directory", stateDir},
	{"configuration files", ownFiles},
	{"sockets", sockets},
	{"swap", swap},
	{"clock", clock},
	{"limits", limits},
}

// Examine runs every check, side by side, and answers the findings in a fixed
// order. A check that does not end within ten seconds is itself a finding.
func Examine(ctx context.Context, c *config.Config) []Finding {
	return examine(ctx, &node{c: c}, checks)
}

func examine(ctx context.Context, n *node, list []check) []Finding {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	results := make([]chan []Finding, len(list))
	for i, ch := range list {
		results[i] = make(chan []Finding, 1)
		go func() { results[i] <- ch.run(ctx, n) }()
	}
	var out []Finding
	for i, ch := range list {
		select {
		case f := <-results[i]:
			out = append(out, f...)
		case <-ctx.Done():
			select { // it may have ended together with the deadline
			case f := <-results[i]:
				out = append(out, f...)
			default:
				out = append(out, fail(ch.name, "look for hung mounts or programs (processes in state D)", "no answer: %v", ctx.Err()))
			}
		}
	}
	return out
}

// read answers a bounded file below /proc or /sys, trimmed; "" if there is none.
func (n *node) read(path string) string {
	f, err := os.Open(filepath.Join(n.root, path))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// exists tells whether a path is there.
func (n *node) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(n.root, path))
	return err == nil
}

// existing answers the path, or its nearest parent that is there.
func existing(path string) string {
	for path != "/" {
		if _, err := os.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
			return path
		}
		path = filepath.Dir(path)
	}
	return path
}
