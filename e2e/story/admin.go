package story

import (
	"context"
	"encoding/json"
	"io"
	"testing"

	"github.com/crid-project/crid/e2e/harness"
)

// Ask gets a path of the daemon's admin socket, such as "/check" or "/state".
func Ask(d *harness.Daemon, path string) (string, error) {
	body, err := d.Admin(context.Background(), path)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, 16<<20))
	return string(text), err
}

// findings are what `crid check` says of the daemon's own invariants.
func findings(t *testing.T, d *harness.Daemon) []string {
	text, err := Ask(d, "/check")
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
