package story

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
)

// Admin gets a path of the daemon's admin socket, such as "/check" or "/state".
func Admin(d *harness.Daemon, path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(d.Home.State(), "admin.sock"))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://crid"+path, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %.200s", path, res.Status, text)
	}
	return string(text), err
}

// findings are what `crid check` says of the daemon's own invariants.
func findings(t *testing.T, d *harness.Daemon) []string {
	text, err := Admin(d, "/check")
	if err != nil {
		return []string{err.Error()}
	}
	var found []struct{ Name, Severity, Message string }
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		t.Errorf("crid check: %v: %.200s", err, text)
	}
	var out []string
	for _, f := range found {
		out = append(out, f.Severity+" "+f.Name+": "+f.Message)
	}
	return out
}

// goroutines counts those of the daemon; 0 if it does not say.
func goroutines(d *harness.Daemon) int {
	text, err := Admin(d, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0
	}
	var n int
	if _, err := fmt.Sscanf(text, "goroutine profile: total %d", &n); err != nil {
		return 0
	}
	return n
}

// crowd is the beginning of the goroutine profile: the stacks that most of them share.
func crowd(d *harness.Daemon) string {
	text, err := Admin(d, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return err.Error()
	}
	stacks := strings.SplitN(text, "\n\n", 7)
	return strings.Join(stacks[:min(6, len(stacks))], "\n\n")
}
