package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// convergence is how long it may take, after the last fault is mended, until what is there is what is desired.
const convergence = 30 * time.Second

// pauseAndLook waits until what is there is what is desired, and holds everything against the kernel.
func (k *kubelet) pauseAndLook(ctx context.Context) {
	k.calm.Store(true)
	defer k.calm.Store(false)
	start := time.Now()
	var off []string
	for {
		off = k.differences(ctx)
		if len(off) == 0 || ctx.Err() != nil {
			break
		}
		if time.Since(start) > convergence {
			k.broken("%s after the last fault what is there is not what is desired:\n%s", convergence, strings.Join(off, "\n"))
			break
		}
		pause(ctx, 300*time.Millisecond)
	}
	took := time.Since(start)
	k.took("convergence", took)
	text, _, _ := k.gauges(ctx)
	k.show("calm after %4.1f s; %d pods; %s", took.Seconds(), len(k.desired()), text)
}

// differences between what is desired and what is there, and between what is told and what is true; none: all is well.
func (k *kubelet) differences(ctx context.Context) []string {
	var off []string
	if k.up() == 0 {
		return []string{"the daemon is away"}
	}
	pods, err := k.cri.Pods(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	containers, err := k.cri.Containers(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	left := map[string]string{} // what nobody desires
	networks := 0
	for _, s := range pods {
		left[s.GetId()] = fmt.Sprintf("sandbox %.12s of %s, attempt %d, %s", s.GetId(), s.GetMetadata().GetUid(), s.GetMetadata().GetAttempt(), s.GetState())
	}
	for _, c := range containers {
		left[c.GetId()] = fmt.Sprintf("container %.12s, %s-%d of %s, %s", c.GetId(), c.GetMetadata().GetName(), c.GetMetadata().GetAttempt(), c.GetLabels()["uid"], c.GetState())
	}
	for _, p := range k.desired() {
		if p.leaving.Load() {
			off = append(off, "pod "+p.uid()+" is still being removed")
			continue
		}
		s := newest(pods, p.uid())
		if s.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || s == nil {
			off = append(off, "pod "+p.uid()+" has no ready sandbox")
			continue
		}
		if !p.host {
			networks++
		}
		delete(left, s.GetId())
		for _, w := range p.workloads {
			c, _ := latest(containers, w.name, s.GetId())
			if wrong := wrongState(w, c); wrong != "" {
				off = append(off, "pod "+p.uid()+": "+wrong)
			}
			delete(left, c.GetId())
		}
	}
	for _, what := range left {
		off = append(off, "not desired: "+what)
	}
	if len(off) > 0 {
		return off
	}
	return k.traces(ctx, containers, len(pods), networks)
}

func newest(pods []*runtimeapi.PodSandbox, uid string) (found *runtimeapi.PodSandbox) {
	for _, s := range pods {
		if s.GetMetadata().GetUid() == uid && (found == nil || s.GetMetadata().GetAttempt() > found.GetMetadata().GetAttempt()) {
			found = s
		}
	}
	return found
}

func wrongState(w workload, c *runtimeapi.Container) string {
	switch {
	case c == nil:
		return "no container " + w.name
	case c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING:
		return ""
	case c.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED && w.kind != "steady" && w.kind != "stubborn" && w.kind != "talker":
		return "" // it ends again and again
	}
	return fmt.Sprintf("%s-%d (%.12s) is %s", w.name, c.GetMetadata().GetAttempt(), c.GetId(), c.GetState())
}

// traces are what pods leave on the machine, which must be that of the pods there are and no more.
func (k *kubelet) traces(ctx context.Context, containers []*runtimeapi.Container, pods, networks int) []string {
	var off []string
	if n := k.shims(); n != pods {
		off = append(off, fmt.Sprintf("%d shims for %d pods", n, pods))
	}
	if n := k.leases(); n != networks {
		off = append(off, fmt.Sprintf("%d addresses leased for %d pods with a network", n, networks))
	}
	for _, c := range containers {
		if c.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		st, i, err := k.verbose(ctx, c.GetId())
		if err != nil || st.GetState() != c.GetState() {
			continue // it ended just now
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", i.Pid)); err != nil {
			off = append(off, fmt.Sprintf("container %.12s is RUNNING, and there is no process %d", c.GetId(), i.Pid))
		}
	}
	return append(off, k.findings(ctx)...)
}

func (k *kubelet) shims() int { return len(k.home.Shims()) }

func (k *kubelet) leases() (n int) {
	_ = filepath.WalkDir(k.home.IPAM(), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.Count(entry.Name(), ".") == 3 && !strings.HasPrefix(entry.Name(), "last_") {
			n++
		}
		return nil
	})
	return n
}

// findings are those of `crid check --records`.
func (k *kubelet) findings(ctx context.Context) []string {
	body, err := k.daemon.Admin(ctx, "/check")
	if err != nil {
		return []string{err.Error()}
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err != nil {
		return []string{err.Error()}
	}
	var found []struct{ Name, Severity, Message string }
	if err := json.Unmarshal(text, &found); err != nil {
		return []string{fmt.Sprintf("crid check: %v: %.200s", err, text)}
	}
	var out []string
	for _, f := range found {
		out = append(out, "crid check: "+f.Severity+" "+f.Name+": "+f.Message)
	}
	return out
}
