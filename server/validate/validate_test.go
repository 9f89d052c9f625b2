package validate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/validate"
)

const id = "0123abcdef"

func podConfig() *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"}}
}

func containerConfig() *cri.ContainerConfig {
	return &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: "busybox"}}
}

func image(ref string) *cri.ImageSpec { return &cri.ImageSpec{Image: ref} }

// good has one acceptable request for every call of CRI.
var good = map[string]proto.Message{
	"Version":                   &cri.VersionRequest{Version: "0.1.0"},
	"RunPodSandbox":             &cri.RunPodSandboxRequest{Config: podConfig()},
	"StopPodSandbox":            &cri.StopPodSandboxRequest{PodSandboxId: id},
	"RemovePodSandbox":          &cri.RemovePodSandboxRequest{PodSandboxId: id},
	"PodSandboxStatus":          &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true},
	"ListPodSandbox":            &cri.ListPodSandboxRequest{},
	"StreamPodSandboxes":        &cri.StreamPodSandboxesRequest{Filter: &cri.PodSandboxFilter{Id: id}},
	"CreateContainer":           &cri.CreateContainerRequest{PodSandboxId: id, Config: containerConfig(), SandboxConfig: podConfig()},
	"StartContainer":            &cri.StartContainerRequest{ContainerId: id},
	"StopContainer":             &cri.StopContainerRequest{ContainerId: id, Timeout: 1 << 62},
	"RemoveContainer":           &cri.RemoveContainerRequest{ContainerId: "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
	"ListContainers":            &cri.ListContainersRequest{Filter: &cri.ContainerFilter{State: &cri.ContainerStateValue{State: 2}}},
	"StreamContainers":          &cri.StreamContainersRequest{},
	"ContainerStatus":           &cri.ContainerStatusRequest{ContainerId: id},
	"UpdateContainerResources":  &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: &cri.LinuxContainerResources{CpuQuota: -1, MemorySwapLimitInBytes: -1, Unified: map[string]string{"memory.low": "1", "hugetlb.2MB.max": "0"}, CpusetCpus: "0-3,7"}},
	"ReopenContainerLog":        &cri.ReopenContainerLogRequest{ContainerId: id},
	"ExecSync":                  &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", ""}},
	"Exec":                      &cri.ExecRequest{ContainerId: id, Cmd: []string{"sh"}, Stdout: true, Stderr: true},
	"Attach":                    &cri.AttachRequest{ContainerId: id, Stdout: true, Tty: true},
	"PortForward":               &cri.PortForwardRequest{PodSandboxId: id, Port: []int32{1, 65535}},
	"ContainerStats":            &cri.ContainerStatsRequest{ContainerId: id},
	"ListContainerStats":        &cri.ListContainerStatsRequest{},
	"StreamContainerStats":      &cri.StreamContainerStatsRequest{},
	"PodSandboxStats":           &cri.PodSandboxStatsRequest{PodSandboxId: id},
	"ListPodSandboxStats":       &cri.ListPodSandboxStatsRequest{},
	"StreamPodSandboxStats":     &cri.StreamPodSandboxStatsRequest{},
	"UpdateRuntimeConfig":       &cri.UpdateRuntimeConfigRequest{RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: "10.0.0.0/24,fd00::/64"}}},
	"Status":                    &cri.StatusRequest{Verbose: true},
	"CheckpointContainer":       &cri.CheckpointContainerRequest{},
	"CheckpointPod":             &cri.CheckpointPodRequest{},
	"RestorePod":                &cri.RestorePodRequest{},
	"GetContainerEvents":        &cri.GetEventsRequest{},
	"ListMetricDescriptors":     &cri.ListMetricDescriptorsRequest{},
	"ListPodSandboxMetrics":     &cri.ListPodSandboxMetricsRequest{},
	"StreamPodSandboxMetrics":   &cri.StreamPodSandboxMetricsRequest{},
	"RuntimeConfig":             &cri.RuntimeConfigRequest{},
	"UpdatePodSandboxResources": &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: id, Resources: &cri.LinuxContainerResources{CpuShares: 2}},
	"ListImages":                &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: image("busybox:latest")}},
	"StreamImages":              &cri.StreamImagesRequest{},
	"ImageStatus":               &cri.ImageStatusRequest{Image: image("sha256:" + strings.Repeat("0", 64))},
	"PullImage":                 &cri.PullImageRequest{Image: image("localhost:5000/a/b@sha256:" + strings.Repeat("0", 64)), Auth: &cri.AuthConfig{Password: "p\x01"}},
	"RemoveImage":               &cri.RemoveImageRequest{Image: image("busybox")},
	"ImageFsInfo":               &cri.ImageFsInfoRequest{},
}

func calls(t *testing.T) map[string]protoreflect.MessageType {
	t.Helper()
	out := map[string]protoreflect.MessageType{}
	services := (&cri.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			mt, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
			if err != nil {
				t.Fatal(err)
			}
			out[string(m.Name())] = mt
		}
	}
	return out
}

func TestWhatKubeletsSendIsAccepted(t *testing.T) {
	all := calls(t)
	for name, mt := range all {
		r := good[name]
		if r == nil || r.ProtoReflect().Type() != mt {
			t.Errorf("%s: there is no test for this call; add one", name)
			continue
		}
		if err := validate.Request(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(all) != 43 {
		t.Errorf("CRI has %d calls now; decide about the new ones", len(all))
	}
}

// Whatever is sent to whatever call: an id that is a path, a name with a NUL,
// an enum of tomorrow, a megabyte where a word belongs.
func TestHostileFieldsAreNamed(t *testing.T) {
	long := strings.Repeat("x", 64<<10)
	many := map[string]string{}
	for i := range 10_000 {
		many[fmt.Sprint(i)] = "v"
	}
	pod := func(change func(*cri.PodSandboxConfig)) proto.Message {
		c := podConfig()
		change(c)
		return &cri.RunPodSandboxRequest{Config: c}
	}
	ctr := func(change func(*cri.ContainerConfig)) proto.Message {
		c := containerConfig()
		change(c)
		return &cri.CreateContainerRequest{PodSandboxId: id, Config: c}
	}
	limits := func(r *cri.LinuxContainerResources) proto.Message {
		return &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: r}
	}
	cases := []struct {
		field string
		r     proto.Message
	}{
		{"config", &cri.RunPodSandboxRequest{}},
		{"config.metadata", &cri.RunPodSandboxRequest{Config: &cri.PodSandboxConfig{}}},
		{"config.metadata.name", pod(func(c *cri.PodSandboxConfig) { c.Metadata.Name = "" })},
		{"config.metadata.name", pod(func(c *cri.PodSandboxConfig) { c.Metadata.Name = long })},
		{"config.metadata.name", pod(func(c *cri.PodSandboxConfig) { c.Metadata.Name = "a\x00b" })},
		{"config.metadata.namespace", pod(func(c *cri.PodSandboxConfig) { c.Metadata.Namespace = "a\nb" })},
		{"config.metadata.uid", pod(func(c *cri.PodSandboxConfig) { c.Metadata.Uid = "" })},
		{"config.labels", pod(func(c *cri.PodSandboxConfig) { c.Labels = many })},
		{"config.annotations", pod(func(c *cri.PodSandboxConfig) { c.Annotations = map[string]string{"a": strings.Repeat("x", 2<<20)} })},
		{"config.hostname", pod(func(c *cri.PodSandboxConfig) { c.Hostname = long })},
		{"config.port_mappings[0].protocol", pod(func(c *cri.PodSandboxConfig) { c.PortMappings = []*cri.PortMapping{{Protocol: 99}} })},
		{"config.linux.security_context.namespace_options.pid", pod(func(c *cri.PodSandboxConfig) {
			c.Linux = &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Pid: -1}}}
		})},
		{"config.linux.resources.memory_limit_in_bytes", pod(func(c *cri.PodSandboxConfig) {
			c.Linux = &cri.LinuxPodSandboxConfig{Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: -5}}
		})},
		{"runtime_handler", &cri.RunPodSandboxRequest{Config: podConfig(), RuntimeHandler: long}},
		{"config", &cri.CreateContainerRequest{PodSandboxId: id}},
		{"config.metadata", &cri.CreateContainerRequest{PodSandboxId: id, Config: &cri.ContainerConfig{}}},
		{"config.image", ctr(func(c *cri.ContainerConfig) { c.Image = nil })},
		{"config.image.image", ctr(func(c *cri.ContainerConfig) { c.Image.Image = "" })},
		{"config.mounts[1].propagation", ctr(func(c *cri.ContainerConfig) { c.Mounts = []*cri.Mount{{}, {Propagation: 7}} })},
		{"config.envs[0].value", ctr(func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "a", Value: make([]byte, 1<<20)}} })},
		{"config.args[0]", ctr(func(c *cri.ContainerConfig) { c.Args = []string{strings.Repeat("x", 1<<20)} })},
		{"config.stop_signal", ctr(func(c *cri.ContainerConfig) { c.StopSignal = 1000 })},
		{"config.linux.security_context.supplemental_groups", ctr(func(c *cri.ContainerConfig) {
			c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{SupplementalGroups: make([]int64, 70_000)}}
		})},
		{"timeout", &cri.StopContainerRequest{ContainerId: id, Timeout: -1}},
		{"timeout", &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"a"}, Timeout: -1 << 63}},
		{"cmd", &cri.ExecSyncRequest{ContainerId: id}},
		{"cmd", &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{""}}},
		{"cmd[0]", &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"a\x00"}}},
		{"cmd", &cri.ExecRequest{ContainerId: id, Stdout: true}},
		{"stdin", &cri.ExecRequest{ContainerId: id, Cmd: []string{"a"}}},
		{"stderr", &cri.ExecRequest{ContainerId: id, Cmd: []string{"a"}, Stderr: true, Tty: true}},
		{"stdin", &cri.AttachRequest{ContainerId: id}},
		{"stderr", &cri.AttachRequest{ContainerId: id, Stdout: true, Stderr: true, Tty: true}},
		{"port", &cri.PortForwardRequest{PodSandboxId: id, Port: []int32{80, 0}}},
		{"port", &cri.PortForwardRequest{PodSandboxId: id, Port: []int32{65536}}},
		{"filter.state.state", &cri.ListContainersRequest{Filter: &cri.ContainerFilter{State: &cri.ContainerStateValue{State: 17}}}},
		{"filter.id", &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: "../x"}}},
		{"filter.pod_sandbox_id", &cri.ListContainerStatsRequest{Filter: &cri.ContainerStatsFilter{PodSandboxId: "/"}}},
		{"filter.label_selector", &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: many}}},
		{"linux", &cri.UpdateContainerResourcesRequest{ContainerId: id}},
		{"linux.cpu_period", limits(&cri.LinuxContainerResources{CpuPeriod: -1})},
		{"linux.cpu_quota", limits(&cri.LinuxContainerResources{CpuQuota: -2})},
		{"linux.oom_score_adj", limits(&cri.LinuxContainerResources{OomScoreAdj: 1001})},
		{"linux.cpuset_cpus", limits(&cri.LinuxContainerResources{CpusetCpus: "0\n1"})},
		{"linux.unified", limits(&cri.LinuxContainerResources{Unified: map[string]string{"../x.max": "1"}})},
		{"linux.unified", limits(&cri.LinuxContainerResources{Unified: map[string]string{"cgroup": "1"}})},
		{"linux.hugepage_limits.page_size", limits(&cri.LinuxContainerResources{HugepageLimits: []*cri.HugepageLimit{{}}})},
		{"resources", &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: id}},
		{"overhead.cpu_shares", &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: id, Overhead: &cri.LinuxContainerResources{CpuShares: -1}}},
		{"image.image", &cri.PullImageRequest{}},
		{"image.image", &cri.PullImageRequest{Image: image("a b\x07")}},
		{"image.image", &cri.PullImageRequest{Image: image(strings.Repeat("a", 2000))}},
		{"auth.password", &cri.PullImageRequest{Image: image("a"), Auth: &cri.AuthConfig{Password: strings.Repeat("s", 70<<10)}}},
		{"auth.server_address", &cri.PullImageRequest{Image: image("a"), Auth: &cri.AuthConfig{ServerAddress: "a\nb"}}},
		{"image.image", &cri.RemoveImageRequest{Image: &cri.ImageSpec{}}},
		{"image.image", &cri.ImageStatusRequest{}},
		{"filter.image.image", &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: image("a\tb")}}},
		{"version", &cri.VersionRequest{Version: strings.Repeat("1", 100)}},
		{"runtime_config.network_config.pod_cidr", &cri.UpdateRuntimeConfigRequest{RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: "10.0.0.0"}}}},
	}
	for name, r := range good {
		// Every field of every request that is the id of something.
		for _, field := range []protoreflect.Name{"pod_sandbox_id", "container_id"} {
			fd := r.ProtoReflect().Descriptor().Fields().ByName(field)
			if fd == nil || strings.HasPrefix(name, "Checkpoint") {
				continue
			}
			for _, bad := range []string{"", "../../etc", "a/b", ".", "a.b", "-a", "ä", "a\x00b", "a b", strings.Repeat("a", 4096)} {
				m := proto.Clone(r)
				m.ProtoReflect().Set(fd, protoreflect.ValueOfString(bad))
				cases = append(cases, struct {
					field string
					r     proto.Message
				}{string(field), m})
			}
		}
	}
	for _, c := range cases {
		err := validate.Request(c.r)
		var fe *validate.FieldError
		if !errors.As(err, &fe) || !errdefs.IsInvalidArgument(err) || fe.Field != c.field && !strings.HasPrefix(fe.Field, c.field+" (") {
			t.Errorf("%T: got %v, want a complaint about %s", c.r, err, c.field)
			continue
		}
		if len(err.Error()) > 300 || strings.Contains(err.Error(), "xxxx") || strings.Contains(err.Error(), "ssss") {
			t.Errorf("%T: the message repeats what was sent: %.100s", c.r, err)
		}
	}
}

func TestNilIsNoPanic(t *testing.T) {
	for name, r := range good {
		empty := r.ProtoReflect().Type().Zero().Interface() // a typed nil
		_ = validate.Request(empty)
		_ = name
	}
	if err := validate.Request(nil); err != nil {
		t.Error(err)
	}
}

func TestSecondsNeverOverflow(t *testing.T) {
	for in, want := range map[int64]bool{-1: false, 0: false, 1: true, 1 << 62: true} {
		if got := validate.Seconds(in); got < 0 || got > validate.MaxWait || (got > 0) != want {
			t.Errorf("%d seconds are %v", in, got)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, r := range good {
		b, _ := proto.Marshal(r)
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, r := range good {
			m := r.ProtoReflect().New().Interface()
			if proto.Unmarshal(b, m) == nil {
				_ = validate.Request(m)
			}
		}
	})
}

func BenchmarkCreateContainer(b *testing.B) {
	r := good["CreateContainer"]
	b.ReportAllocs()
	for b.Loop() {
		_ = validate.Request(r)
	}
}
