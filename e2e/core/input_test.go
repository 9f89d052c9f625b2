//go:build e2e

package core

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

// hostile ids: none may become a path, a hang, a crash or an internal error.
var hostile = []string{"", " ", ".", "..", "../../../../etc/passwd", "/", "a/b", "\x00", "a\x00b", "a\nb", "*", "-rf", "%s%n", strings.Repeat("a", 5000), "ÿ", "0x", unknown + unknown}

// polite are the codes in which a caller's mistake may be told.
var polite = map[codes.Code]bool{codes.InvalidArgument: true, codes.NotFound: true, codes.FailedPrecondition: true, codes.ResourceExhausted: true, codes.Unimplemented: true, codes.OK: true,
	codes.AlreadyExists: true, codes.Internal: false, codes.Unknown: false, codes.Canceled: false, codes.DeadlineExceeded: false, codes.Unavailable: false}

// Every unary call of both services, with no request, and with a hostile value in every field that holds an id or a name.
func TestHostileIds(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("victim")
	c := p.Go(story.Sleeper("c"))
	calls := 0
	for _, service := range []any{s.Runtime, s.Images} {
		v := reflect.ValueOf(service)
		for i := range v.NumMethod() {
			method, name := v.Method(i), v.Type().Method(i).Name
			if method.Type().NumOut() != 2 || method.Type().Out(0).Kind() != reflect.Pointer {
				continue // a stream
			}
			request := method.Type().In(1)
			for _, value := range hostile {
				r := reflect.New(request.Elem())
				if !poison(r.Elem(), value) && value != "" {
					break
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				out := method.Call([]reflect.Value{reflect.ValueOf(ctx), r})
				cancel()
				calls++
				err, _ := out[1].Interface().(error)
				code := status.Code(err)
				if strings.Contains(status.Convert(err).Message(), "invalid UTF-8") {
					continue // our own side refused to send it
				}
				if !polite[code] {
					t.Errorf("%s with %.40q: %s: %.200v", name, value, code, err)
				}
			}
		}
	}
	if calls < 200 {
		t.Errorf("only %d calls were made", calls)
	}
	c.WantState(running)
	c.Sh("true")
}

// poison puts a value into the string fields of a request whose name says that they identify something.
func poison(m reflect.Value, value string) bool {
	found := false
	for i := range m.NumField() {
		f := m.Field(i)
		name := m.Type().Field(i).Name
		if !f.CanSet() || name == "XXX_unrecognized" {
			continue
		}
		switch {
		case f.Kind() == reflect.String && (strings.HasSuffix(name, "Id") || name == "Image" || name == "Name" || name == "RuntimeHandler"):
			f.SetString(value)
			found = true
		case f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct && (name == "Image" || name == "Metadata" || name == "Config" || name == "Filter"):
			f.Set(reflect.New(f.Type().Elem()))
			found = poison(f.Elem(), value) || found
		}
	}
	return found
}

// Configurations that cannot be meant are refused, and the error names the field.
func TestBadPods(t *testing.T) {
	s := story.Begin(t)
	for what, c := range map[string]struct {
		change func(*runtimeapi.PodSandboxConfig)
		names  string
	}{
		"no metadata":             {func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil }, "metadata"},
		"no name":                 {func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "" }, "name"},
		"a relative log folder":   {func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "logs" }, "log_directory"},
		"a log folder upwards":    {func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "/var/log/../../etc" }, "log_directory"},
		"a host name of 300":      {func(c *runtimeapi.PodSandboxConfig) { c.Hostname = strings.Repeat("h", 300) }, "hostname"},
		"a host name with a line": {func(c *runtimeapi.PodSandboxConfig) { c.Hostname = "a\nb" }, "hostname"},
		"a DNS server with a line": {func(c *runtimeapi.PodSandboxConfig) {
			c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1\noptions evil"}}
		}, "dns_config"},
		"port 70000": {func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 70000}}
		}, "port"},
		"a negative port": {func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: -1}}
		}, "port"},
		"a sysctl path":         {func(c *runtimeapi.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"../../etc/x": "1"} }, "sysctl"},
		"a cgroup upwards":      {func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = "/../../x" }, "cgroup_parent"},
		"an unknown pid mode":   {func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = 77 }, "pid"},
		"a label of a megabyte": {func(c *runtimeapi.PodSandboxConfig) { c.Labels = map[string]string{"k": strings.Repeat("v", 1<<20)} }, "labels"},
		"a port with no host IP": {func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 80, HostIp: "nowhere"}}
		}, "host_ip"},
	} {
		config := s.Home.Pod("bad")
		c.change(config)
		id, err := s.RunPod(t.Context(), config, "")
		if err == nil {
			t.Errorf("%s: it runs", what)
			if err := s.RemovePodFully(t.Context(), id); err != nil {
				t.Error(err)
			}
			continue
		}
		s.WantCode(what, err, codes.InvalidArgument, codes.ResourceExhausted)
		if !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: the error does not name %q: %.300v", what, c.names, err)
		}
	}
}

func TestBadContainers(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("host")
	for what, c := range map[string]struct {
		change func(*runtimeapi.ContainerConfig)
		names  string
	}{
		"no metadata": {func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }, "metadata"},
		"no name":     {func(c *runtimeapi.ContainerConfig) { c.Metadata.Name = "" }, "name"},
		"no image":    {func(c *runtimeapi.ContainerConfig) { c.Image = nil }, "image"},
		"a relative mount": {func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: "/tmp", ContainerPath: "relative"}}
		}, "container_path"},
		"a mount of nothing": {func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x"}} }, "host_path"},
		"negative memory": {func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: -5}
		}, "memory_limit_in_bytes"},
		"a cpuset that is none": {func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpusetCpus: "0;reboot"}
		}, "cpuset_cpus"},
		"an oom score of 5000": {func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: 5000}
		}, "oom_score_adj"},
		"a variable without name": {func(c *runtimeapi.ContainerConfig) { c.Envs = []*runtimeapi.KeyValue{{Key: "", Value: []byte("x")}} }, "envs"},
		"a variable with a zero": {func(c *runtimeapi.ContainerConfig) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("x\x00y")}}
		}, "envs"},
		"a user below zero": {func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: -1}
		}, "run_as_user"},
		"a user beyond the kernel": {func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: math.MaxInt64}
		}, "run_as_user"},
		"a working folder among the runtime's open files": {func(c *runtimeapi.ContainerConfig) { c.WorkingDir = "/proc/self/fd/7" }, "working_dir"},
		"a user twice": {func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser, c.Linux.SecurityContext.RunAsUsername = &runtimeapi.Int64Value{Value: 1}, "bin"
		}, "run_as_user"},
	} {
		config := story.Sleeper("bad")
		c.change(config)
		id, err := s.Create(t.Context(), p.ID, config, p.Config)
		if err == nil {
			t.Errorf("%s: it is created", what)
			if err := s.RemoveContainer(t.Context(), id); err != nil {
				t.Error(err)
			}
			continue
		}
		s.WantCode(what, err, codes.InvalidArgument)
		if !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: the error does not name %q: %.300v", what, c.names, err)
		}
	}
	if n := len(names(s)); n != 0 {
		t.Errorf("%d containers are there after refusals", n)
	}
}

// Calls that contradict themselves or the state.
func TestBadCalls(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	p := s.Pod("calls")
	c := p.Go(story.Sleeper("c"))
	_, err := s.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c.ID})
	s.WantCode("exec of nothing", err, codes.InvalidArgument)
	_, err = s.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: []string{"true"}, Timeout: -1})
	s.WantCode("exec with a negative timeout", err, codes.InvalidArgument)
	_, err = s.Runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: c.ID, Cmd: []string{"true"}})
	s.WantCode("exec without a stream", err, codes.InvalidArgument)
	_, err = s.Runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: c.ID, Cmd: []string{"true"}, Tty: true, Stdout: true, Stderr: true})
	s.WantCode("exec with a terminal and standard error", err, codes.InvalidArgument)
	_, err = s.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.ID, Timeout: -5})
	s.WantCode("a stop with negative grace", err, codes.InvalidArgument)
	_, err = s.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID})
	s.WantCode("an update of nothing", err, codes.InvalidArgument)
	_, err = s.Runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: p.ID, Port: []int32{0}})
	s.WantCode("forwarding of port 0", err, codes.InvalidArgument)
	_, err = s.Create(ctx, unknown, story.Sleeper("x"), p.Config)
	s.WantCode("a container of no pod", err, codes.NotFound)
	_, err = s.Create(ctx, p.ID, nil, p.Config)
	s.WantCode("a container of no configuration", err, codes.InvalidArgument)
	c.WantState(running)
	// a request of more than gRPC takes is refused, and the connection lives
	huge := story.Sleeper("huge")
	huge.Annotations = map[string]string{"a": strings.Repeat("x", 20<<20)}
	_, err = s.Create(ctx, p.ID, huge, p.Config)
	s.WantCode("20 MiB of annotation", err, codes.ResourceExhausted, codes.InvalidArgument)
	c.Sh("true")
}

// The socket is root's: whoever can speak to it is root.
func TestTheSocketIsRoots(t *testing.T) {
	s := story.Begin(t)
	for _, path := range []string{s.Socket, filepath.Join(s.Home.State(), "admin.sock")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s is open to everybody: %s", path, info.Mode())
		}
	}
	for _, dir := range []string{s.Home.Root(), s.Home.State()} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&0o066 != 0 {
			t.Errorf("%s can be listed by everybody: %s", dir, info.Mode())
		}
	}
}
