//go:build e2e

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/hack/kube/cluster"
)

// installed is crid from a path of its own, where releases replace one another.
type installed struct {
	harness.Crid
	path string
}

// Prepare writes the configuration and names the installed program.
func (i installed) Prepare(h *harness.Home) (string, []string, error) {
	_, args, err := i.Crid.Prepare(h)
	return i.path, args, err
}

// release builds crid from a source tree, with a version of its own.
func release(t *testing.T, source, version string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "crid")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w -X main.buildVersion="+version, "-o", out, "./cmd/crid")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build crid %s: %v\n%s", version, err, text)
	}
	return out
}

// older is the source of an earlier commit, or this source where the history does not reach so far.
func older(t *testing.T, root string) (source, what string) {
	t.Helper()
	commit := os.Getenv("CRID_DRILL_OLD")
	if commit == "" {
		commit = "HEAD~10"
	}
	name, err := exec.CommandContext(t.Context(), "git", "-C", root, "rev-parse", "--short", commit).Output()
	if err != nil {
		return root, "this source (no " + commit + " here)"
	}
	dir := t.TempDir()
	unpack := exec.CommandContext(t.Context(), "sh", "-c", `git -C "$1" archive "$2" | tar -x -C "$3"`, "sh", root, commit, dir)
	if text, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("take the source of %s: %v\n%s", commit, err, text)
	}
	return dir, "commit " + strings.TrimSpace(string(name))
}

// install puts a release in the place of the one that is there, as a package manager does.
func install(t *testing.T, release, path string) {
	t.Helper()
	data, err := os.ReadFile(release)
	if err == nil {
		err = os.WriteFile(path+".new", data, 0o755)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// client asks every pod again and again, with a new connection each time, and counts.
type client struct {
	mu       sync.Mutex
	requests int
	failures []string
	slowest  time.Duration
}

func (c *client) ask(ctx context.Context, url string) {
	get := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		begun := time.Now()
		r, err := get.Get(url)
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s", r.Status)
			}
		}
		c.mu.Lock()
		c.requests++
		c.slowest = max(c.slowest, time.Since(begun))
		if err != nil {
			c.failures = append(c.failures, fmt.Sprintf("%s %s: %v", time.Now().Format(time.TimeOnly), url, err))
		}
		c.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
}

// drilled is the Deployment under the drill: each pod has a server, and beside it somebody who writes numbered lines.
func drilled() string {
	return deployment("web", 3, "drill") + fmt.Sprintf("      %s\n",
		script("writer", "i=0; trap 'exit 0' TERM; while :; do i=$((i+1)); echo $i; sleep 0.05; done", ""))
}

// TestDrill: crid is replaced and started again 20 times under load, and once an older one takes its place.
func TestDrill(t *testing.T) {
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Bin("kubelet"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and Kubernetes' programs: make drill")
	}
	oldSource, what := older(t, root)
	releases := []string{release(t, root, "v1.0.1"), release(t, root, "v1.0.2")}
	before := release(t, oldSource, "v0.9.0")
	path := filepath.Join(t.TempDir(), "crid")
	install(t, releases[0], path)
	n := startNode(t, settings{cluster: true, kind: installed{path: path}})
	n.nodeReady(t)
	s := newSpace(t, n)
	s.apply(drilled())
	s.must("rollout", "status", "deployment/web", "--timeout=3m")
	pods := s.selected("app=web")

	c := new(client)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking sync.WaitGroup
	for _, p := range pods {
		asking.Go(func() { c.ask(ctx, "http://"+p.Status.PodIP+"/") })
	}
	var away []time.Duration
	change := func(release, version string) {
		t.Helper()
		install(t, release, path)
		begun := time.Now()
		if err := n.d.Stop(); err != nil {
			t.Error(err)
		}
		if err := n.d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		away = append(away, time.Since(begun))
		v, err := n.cri().Version(t.Context())
		if err != nil || v.GetRuntimeVersion() != version {
			t.Errorf("after the change to %s: %s (%v)", version, v.GetRuntimeVersion(), err)
		}
		time.Sleep(time.Second)
	}
	for i := range 20 {
		next := (i + 1) % 2
		change(releases[next], fmt.Sprintf("v1.0.%d", next+1))
	}
	change(before, "v0.9.0")
	s.sh(pods[0].Metadata.Name, "web", "true") // the older one can do more than look
	change(releases[1], "v1.0.2")
	cancel()
	asking.Wait()
	n.untouched(t, s, pods, c)
	slices.Sort(away)
	t.Logf("20 upgrades, a downgrade to %s and back: %d requests, %d failed, the slowest took %s; crid was away for %s (median), %s (longest); no restart, no line lost",
		what, c.requests, len(c.failures), c.slowest.Round(time.Millisecond), away[len(away)/2].Round(time.Millisecond), away[len(away)-1].Round(time.Millisecond))
	s.must("delete", "deployment", "web")
}

// untouched: no request failed, no container was restarted, and no line is missing.
func (n *node) untouched(t *testing.T, s *space, pods []pod, c *client) {
	t.Helper()
	for _, f := range c.failures {
		t.Error(f)
	}
	if c.requests < 500 {
		t.Errorf("only %d requests were made", c.requests)
	}
	for _, p := range pods {
		s.unchanged(&p)
		var last int
		text := s.logs(p.Metadata.Name, "-c", "writer")
		for line := range strings.Lines(text) {
			var number int
			if _, err := fmt.Sscan(line, &number); err != nil || number != last+1 {
				t.Errorf("%s: after line %d comes %q", p.Metadata.Name, last, line)
				break
			}
			last = number
		}
		if last < 200 {
			t.Errorf("%s: only %d lines", p.Metadata.Name, last)
		}
	}
	out := s.must("get", "node", n.k.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	if out != "True" {
		t.Errorf("the node's Ready is %s", out)
	}
}

// selected are the pods with a label.
func (s *space) selected(label string) []pod {
	s.t.Helper()
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(s.must("get", "pods", "-l", label, "-o", "json")), &list); err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}
