package story

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

// Pod is a sandbox of a story.
type Pod struct {
	*Story
	ID     string
	Config *runtimeapi.PodSandboxConfig
}

// Container is a container of a pod.
type Container struct {
	Pod    *Pod
	ID     string
	Config *runtimeapi.ContainerConfig
}

// Pod runs a sandbox; each change is made to its configuration first.
func (s *Story) Pod(name string, changes ...func(*runtimeapi.PodSandboxConfig)) *Pod {
	s.T.Helper()
	p := &Pod{Story: s, Config: s.Home.Pod(name)}
	for _, change := range changes {
		change(p.Config)
	}
	id, err := s.RunPod(s.T.Context(), p.Config, "")
	if err != nil {
		s.T.Fatalf("run pod %s: %v", name, err)
	}
	p.ID = id
	return p
}

// Make creates a container.
func (p *Pod) Make(config *runtimeapi.ContainerConfig) *Container {
	p.T.Helper()
	id, err := p.Create(p.T.Context(), p.ID, config, p.Config)
	if err != nil {
		p.T.Fatalf("create container %s: %v", config.GetMetadata().GetName(), err)
	}
	return &Container{Pod: p, ID: id, Config: config}
}

// Go creates and starts a container.
func (p *Pod) Go(config *runtimeapi.ContainerConfig) *Container {
	p.T.Helper()
	c := p.Make(config)
	c.Start()
	return c
}

// Status of the sandbox.
func (p *Pod) Status() *runtimeapi.PodSandboxStatus {
	p.T.Helper()
	r, err := p.Runtime.PodSandboxStatus(p.T.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		p.T.Fatal(err)
	}
	return r.GetStatus()
}

// Shell is the configuration of a container that runs a line of shell.
func Shell(name, line string) *runtimeapi.ContainerConfig {
	return harness.Container(name, "sh", "-c", line)
}

// Sleeper is the configuration of a container that runs until it is told to stop, and then ends with 0 at once.
func Sleeper(name string) *runtimeapi.ContainerConfig { return harness.Container(name) }

// Start starts the container.
func (c *Container) Start() {
	c.Pod.T.Helper()
	if err := c.Pod.StartContainer(c.Pod.T.Context(), c.ID); err != nil {
		c.Pod.T.Fatalf("start container %s: %v", c.Config.GetMetadata().GetName(), err)
	}
}

// Stop stops it with so many seconds of grace, and tells how long that took.
func (c *Container) Stop(grace int64) time.Duration {
	c.Pod.T.Helper()
	start := time.Now()
	if err := c.Pod.StopContainer(c.Pod.T.Context(), c.ID, grace); err != nil {
		c.Pod.T.Fatalf("stop container %s: %v", c.Config.GetMetadata().GetName(), err)
	}
	return time.Since(start)
}

// Remove removes it.
func (c *Container) Remove() {
	c.Pod.T.Helper()
	if err := c.Pod.RemoveContainer(c.Pod.T.Context(), c.ID); err != nil {
		c.Pod.T.Fatalf("remove container %s: %v", c.Config.GetMetadata().GetName(), err)
	}
}

// Status of the container.
func (c *Container) Status() *runtimeapi.ContainerStatus {
	c.Pod.T.Helper()
	s, err := c.Pod.Daemon.Status(c.Pod.T.Context(), c.ID)
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	return s
}

// Exited waits for its end.
func (c *Container) Exited() *runtimeapi.ContainerStatus {
	c.Pod.T.Helper()
	s, err := c.Pod.WaitState(c.Pod.T.Context(), c.ID, runtimeapi.ContainerState_CONTAINER_EXITED, 30*time.Second)
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	return s
}

// WantState fails the test unless the container is in a state.
func (c *Container) WantState(want runtimeapi.ContainerState) *runtimeapi.ContainerStatus {
	c.Pod.T.Helper()
	s := c.Status()
	if s.GetState() != want {
		c.Pod.T.Errorf("container %s is %s, not %s", c.Config.GetMetadata().GetName(), s.GetState(), want)
	}
	return s
}

// Sh runs a line of shell in it, which must succeed, and gives its output without the last newline.
func (c *Container) Sh(line string) string {
	c.Pod.T.Helper()
	r, err := c.Pod.Exec(c.Pod.T.Context(), c.ID, "sh", "-c", line)
	if err != nil {
		c.Pod.T.Fatalf("exec %q: %v", line, err)
	}
	if r.GetExitCode() != 0 {
		c.Pod.T.Fatalf("exec %q ends with %d: %s%s", line, r.GetExitCode(), r.GetStdout(), r.GetStderr())
	}
	return strings.TrimSpace(string(r.GetStdout()))
}

// Try runs a line of shell in it and gives the exit code and all output.
func (c *Container) Try(line string) (int32, string) {
	c.Pod.T.Helper()
	r, err := c.Pod.Exec(c.Pod.T.Context(), c.ID, "sh", "-c", line)
	if err != nil {
		c.Pod.T.Fatalf("exec %q: %v", line, err)
	}
	return r.GetExitCode(), string(r.GetStdout()) + string(r.GetStderr())
}

// Log is the path of its log.
func (c *Container) Log() string {
	return filepath.Join(c.Pod.Config.GetLogDirectory(), c.Config.GetLogPath())
}

// Said is what it wrote to one stream ("stdout", "stderr") as its log has it, without times and tags.
func (c *Container) Said(stream string) string {
	c.Pod.T.Helper()
	data, err := os.ReadFile(c.Log())
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	text, err := Unlog(string(data), stream)
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	return text
}

// Unlog is the text of one stream in a log.
func Unlog(log, stream string) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(log) {
		fields := strings.SplitN(line, " ", 4)
		if len(fields) != 4 {
			return b.String(), fmt.Errorf("a log line without four fields: %.100q", line)
		}
		if fields[1] != stream {
			continue
		}
		if fields[2] == "P" {
			fields[3] = strings.TrimSuffix(fields[3], "\n")
		}
		b.WriteString(fields[3])
	}
	return b.String(), nil
}

// Heard waits until its standard output has a text.
func (c *Container) Heard(text string) {
	c.Pod.T.Helper()
	c.Pod.Eventually(fmt.Sprintf("%q in the log of %s", text, c.Config.GetMetadata().GetName()), 15*time.Second, func() bool {
		_, err := os.Stat(c.Log())
		return err == nil && strings.Contains(c.Said("stdout"), text)
	})
}

// Info is a field of its verbose status.
func (c *Container) Info(key string) any {
	c.Pod.T.Helper()
	r, err := c.Pod.Runtime.ContainerStatus(c.Pod.T.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: c.ID, Verbose: true})
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	var info map[string]any
	if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil {
		c.Pod.T.Fatalf("verbose status: %v: %v", err, r.GetInfo())
	}
	return info[key]
}

// Pid of its first process, on the host.
func (c *Container) Pid() int {
	c.Pod.T.Helper()
	pid, ok := c.Info("pid").(float64)
	if !ok || pid < 2 {
		c.Pod.T.Fatalf("verbose status has no pid: %v", c.Info("pid"))
	}
	return int(pid)
}

// ShimPid is the pid of the shim that holds it.
func (c *Container) ShimPid() int {
	c.Pod.T.Helper()
	if pid, ok := c.Info("shimPid").(float64); ok && pid > 1 {
		return int(pid)
	}
	c.Pod.T.Fatal("verbose status has no pid of a shim")
	return 0
}

// Proc reads a file of its first process under /proc.
func (c *Container) Proc(file string) string {
	c.Pod.T.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.Pid()), file))
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	return string(data)
}

// ProcField is the value of a line such as "CapEff:" in its /proc/PID/status.
func (c *Container) ProcField(name string) string {
	c.Pod.T.Helper()
	for line := range strings.Lines(c.Proc("status")) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	c.Pod.T.Fatalf("/proc/PID/status has no %s", name)
	return ""
}
