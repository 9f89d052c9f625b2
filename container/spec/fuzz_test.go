package spec

import (
	"path"
	"strings"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzConfig feeds CRI messages as they could come from a client or a damaged
// record: New must not panic, and what it lets through must hold.
func FuzzConfig(f *testing.F) {
	c, p := full()
	podRaw, err := proto.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	for _, cfg := range []*runtime.ContainerConfig{c, small(), {}} {
		raw, err := proto.Marshal(cfg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, podRaw)
	}
	f.Fuzz(func(t *testing.T, raw, podRaw []byte) {
		sealed, err := Open(raw)
		if err != nil {
			return
		}
		pod := &runtime.PodSandboxConfig{}
		if proto.Unmarshal(podRaw, pod) != nil {
			return
		}
		pl, err := New(sealed.CRI(), pod, options())
		if err != nil {
			return
		}
		if pl.LogPath != "" && !strings.HasPrefix(pl.LogPath, path.Clean(pod.GetLogDirectory())+"/") && path.Clean(pod.GetLogDirectory()) != "/" {
			t.Errorf("log path %q leaves %q", pl.LogPath, pod.GetLogDirectory())
		}
		for _, h := range pl.HostDirs {
			if path.Clean(h) != h || h[0] != '/' {
				t.Errorf("host path %q", h)
			}
		}
		s, err := pl.Spec(fullFacts())
		if err != nil {
			return
		}
		holds(t, s)
	})
}

// FuzzImage feeds what an image's maker writes.
func FuzzImage(f *testing.F) {
	f.Add("/srv", "PATH=/bin", "/data", "SIGTERM", "/bin/sh")
	f.Add("/proc/self/fd/7", "A", "/../../etc", "SIGRTMIN+99", "")
	f.Add("proc/../proc/1/root", "=\n", "", "-9", "\x00")
	f.Fuzz(func(t *testing.T, dir, env, volume, signal, arg string) {
		image := imagespec.ImageConfig{
			WorkingDir: dir, Env: []string{env}, Volumes: map[string]struct{}{volume: {}}, StopSignal: signal, Entrypoint: []string{arg},
			Labels: map[string]string{env: dir, "io.kubernetes.cri.container-type": arg},
		}
		pl, err := New(small(), pod(), options())
		if err != nil {
			t.Fatal(err)
		}
		volumes, err := pl.Volumes(image)
		for _, v := range volumes {
			if path.Clean(v) != v || v[0] != '/' || v == "/" || strings.ContainsRune(v, 0) {
				t.Errorf("volume %q", v)
			}
		}
		if err != nil {
			return
		}
		fs := facts()
		fs.Image = image
		s, err := pl.Spec(fs)
		if err != nil {
			return
		}
		holds(t, s)
	})
}

// holds checks what must be true of every spec.
func holds(t *testing.T, s *oci.Spec) {
	t.Helper()
	p := s.Process
	if len(p.Args) == 0 || p.Args[0] == "" || p.Cwd == "" || p.Cwd[0] != '/' || procLink.MatchString(p.Cwd) || path.Clean(p.Cwd) != p.Cwd {
		t.Errorf("args %q, cwd %q", p.Args, p.Cwd)
	}
	for _, e := range p.Env {
		if i := strings.IndexByte(e, '='); i < 1 || strings.ContainsRune(e, 0) {
			t.Errorf("env %q", e)
		}
	}
	if s.Annotations[AnnotationContainerType] != "container" || s.Annotations[AnnotationSandboxID] != "p1" {
		t.Errorf("annotations %v", s.Annotations)
	}
	if len(p.Capabilities.Inheritable) != len(p.Capabilities.Ambient) {
		t.Errorf("inheritable %v", p.Capabilities.Inheritable)
	}
	depth := 0
	for _, m := range s.Mounts {
		if m.Destination == "" || m.Destination[0] != '/' || path.Clean(m.Destination) != m.Destination || m.Destination == "/" {
			t.Errorf("mount at %q", m.Destination)
		}
		if d := strings.Count(m.Destination, "/"); d < depth {
			t.Errorf("mount at %q comes too late", m.Destination)
		} else {
			depth = d
		}
	}
	if s.Linux.Resources.Devices[0].Allow {
		t.Error("devices are not denied first")
	}
}
