//go:build e2e

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// space is a namespace of one subtest.
type space struct {
	*node
	t    *testing.T
	name string
}

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// newSpace makes a namespace, named after the test, which goes with it.
func newSpace(t *testing.T, n *node) *space {
	t.Helper()
	name := t.Name()
	s := &space{node: n, t: t, name: strings.Trim(unfit.ReplaceAllString(strings.ToLower(name[strings.LastIndex(name, "/")+1:]), "-"), "-")}
	s.must("create", "namespace", s.name)
	t.Cleanup(func() {
		if t.Failed() {
			s.explain()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := n.c.Kubectl(ctx, nil, "delete", "namespace", s.name, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	// The service account comes a moment later, and without it no pod is admitted.
	await(t, time.Minute, "a service account", func(ctx context.Context) error {
		_, err := n.c.Kubectl(ctx, nil, "-n", s.name, "get", "serviceaccount", "default")
		return err
	})
	return s
}

// explain shows what a failed test leaves.
func (s *space) explain() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp", "-o",
		"custom-columns=AT:.lastTimestamp,WHO:.involvedObject.name,WHY:.reason,WHAT:.message"}} {
		out, err := s.c.Kubectl(ctx, nil, append([]string{"-n", s.name}, args...)...)
		s.t.Logf("kubectl %s (%v)\n%s", strings.Join(args, " "), err, out)
	}
}

// kubectl runs kubectl in the namespace.
func (s *space) kubectl(ctx context.Context, args ...string) (string, error) {
	return s.c.Kubectl(ctx, nil, append([]string{"-n", s.name}, args...)...)
}

// must is kubectl that must work.
func (s *space) must(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // also for clean-ups, which a test's context does not outlive
	defer cancel()
	if s.name != "" && args[0] != "create" {
		args = append([]string{"-n", s.name}, args...)
	}
	out, err := s.c.Kubectl(ctx, nil, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// apply makes objects of YAML.
func (s *space) apply(yaml string) {
	s.t.Helper()
	if _, err := s.c.Kubectl(s.t.Context(), []byte(yaml), "-n", s.name, "apply", "-f", "-"); err != nil {
		s.t.Fatal(err)
	}
}

// run makes a pod of a spec in YAML, which is indented by this function, and waits until it is ready.
func (s *space) run(name, spec string) *pod {
	s.t.Helper()
	s.create(name, spec)
	return s.ready(name)
}

// create makes a pod of a spec in YAML.
func (s *space) create(name, spec string) {
	s.t.Helper()
	s.apply(fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %s}}\nspec:\n  terminationGracePeriodSeconds: 2\n%s", name, name, indent(spec)))
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimLeft(text, "\n")) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// sleeper is a container that does nothing until it is told to end; more is YAML of further fields, in flow style.
func sleeper(name, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`- {name: %s, image: "%s", command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"]%s}`, name, busybox, more)
}

// script is a container that runs a shell script; the script has no double quotes.
func script(name, text, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`- {name: %s, image: "%s", command: [sh, -c, "%s"]%s}`, name, busybox, text, more)
}

func (s *space) pod(ctx context.Context, name string) (*pod, error) {
	out, err := s.kubectl(ctx, "get", "pod", name, "-o", "json")
	if err != nil {
		return nil, err
	}
	p := new(pod)
	return p, json.Unmarshal([]byte(out), p)
}

// until waits for a condition of a pod.
func (s *space) until(name, what string, condition func(*pod) error) *pod {
	s.t.Helper()
	var last *pod
	await(s.t, 3*time.Minute, name+" "+what, func(ctx context.Context) error {
		p, err := s.pod(ctx, name)
		if err != nil {
			return err
		}
		last = p
		return condition(p)
	})
	return last
}

func (s *space) ready(name string) *pod {
	s.t.Helper()
	return s.until(name, "ready", func(p *pod) error {
		if !p.ready() {
			return errorf("it is %s, %+v", p.Status.Phase, p.Status.ContainerStatuses)
		}
		return nil
	})
}

// over waits until a pod has come to an end, and tells how.
func (s *space) over(name string) *pod {
	s.t.Helper()
	return s.until(name, "over", func(p *pod) error {
		if p.Status.Phase != "Succeeded" && p.Status.Phase != "Failed" {
			return errorf("it is %s", p.Status.Phase)
		}
		return nil
	})
}

// sh runs a shell command in a container and gives its output. It is tried again for a while: a session ends when crid does. kubectl takes a
// session that was cut for one that ended well, so the end of the output is marked.
func (s *space) sh(pod, container, command string) string {
	s.t.Helper()
	var out string
	await(s.t, time.Minute, "exec "+command, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		text, err := s.kubectl(ctx, "exec", pod, "-c", container, "--", "sh", "-c", command+"\necho -n ,end")
		if err != nil {
			return err
		}
		var whole bool
		if out, whole = strings.CutSuffix(text, ",end"); !whole {
			return errorf("the session was cut after %q", text)
		}
		return nil
	})
	return strings.TrimSpace(out)
}

// calmly does what cannot go on when crid is away, a session: crid is left alone meanwhile.
func (n *node) calmly(do func()) {
	n.crid.Lock()
	defer n.crid.Unlock()
	do()
}

// unchanged fails the test if a container of the pod was started again.
func (s *space) unchanged(before *pod) {
	s.t.Helper()
	after, err := s.pod(s.t.Context(), before.Metadata.Name)
	if err != nil {
		s.t.Error(err)
		return
	}
	for _, c := range before.Status.ContainerStatuses {
		if now := after.container(c.Name); now.RestartCount != c.RestartCount || now.ContainerID != c.ContainerID {
			s.t.Errorf("%s was %s, restarted %d times, and is %s, %d", c.Name, c.ContainerID, c.RestartCount, now.ContainerID, now.RestartCount)
		}
	}
}
