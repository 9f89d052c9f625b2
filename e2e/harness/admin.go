package harness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/crid-project/crid/e2e/project"
)

// Admin asks crid's admin socket.
func (d *Daemon) Admin(ctx context.Context, path string) (io.ReadCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(d.Home.State(), "admin.sock"))
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://crid"+path, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("ask the admin socket: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		cancel()
		return nil, fmt.Errorf("ask the admin socket for %s: %s", path, res.Status)
	}
	return body{res.Body, cancel}, nil
}

type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b body) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// collect makes the daemon collect its garbage: some libraries leave the closing of a file to that.
func (d *Daemon) collect(ctx context.Context) {
	for range 2 { // finalizers run after the first
		if b, err := d.Admin(ctx, "/debug/pprof/heap?gc=1"); err == nil {
			_, _ = io.Copy(io.Discard, b)
			b.Close()
		}
	}
}

// goroutines counts the daemon's goroutines by what they were started to do, less those that serve connections.
func (c Census) goroutines(ctx context.Context, d *Daemon) {
	profile, err := d.Admin(ctx, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return
	}
	defer profile.Close()
	count, outermost, served := 0, "", false
	end := func() {
		if count > 0 && !served && outermost != "" {
			c["goroutine "+outermost] += count
		}
		count, outermost, served = 0, "", false
	}
	lines := bufio.NewScanner(profile)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "":
			end()
		case strings.Contains(line, " @ "):
			count, _ = strconv.Atoi(strings.Fields(line)[0])
		case strings.HasPrefix(line, "#\t"):
			fields := strings.Fields(line)
			if len(fields) < 3 {
				continue
			}
			name, _, _ := strings.Cut(fields[2], "+0x")
			served = served || strings.HasPrefix(name, "net/http.") || strings.HasPrefix(name, "google.golang.org/grpc")
			if !strings.HasPrefix(name, "runtime.") {
				outermost = name
			}
		}
	}
	end()
}

// Check runs `crid check --records`: the daemon's own look at its records against the kernel's word. Its error is what crid found.
func (d *Daemon) Check(ctx context.Context) error {
	program, err := project.Bin("crid")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, program, "--config", d.Home.Config(), "check", "--records").CombinedOutput(); err != nil {
		return fmt.Errorf("crid check --records: %w\n%s", err, out)
	}
	return nil
}
