package spec

import (
	"path"
	"strings"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec/field"
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// The annotations by which shims and sandboxed runtimes (Kata, gVisor) know
// what a container is. The names are containerd's, which they all read.
const (
	AnnotationContainerType    = "io.kubernetes.cri.container-type" // "container" or "sandbox"
	AnnotationSandboxID        = "io.kubernetes.cri.sandbox-id"     // also the shim's group
	AnnotationSandboxName      = "io.kubernetes.cri.sandbox-name"
	AnnotationSandboxNamespace = "io.kubernetes.cri.sandbox-namespace"
	AnnotationSandboxUID       = "io.kubernetes.cri.sandbox-uid"
	AnnotationContainerName    = "io.kubernetes.cri.container-name"
	AnnotationImageName        = "io.kubernetes.cri.image-name"
)

// reserved prefixes never pass, whatever an allow-list says: the first are
// ours to set, the second would set properties of a systemd unit
// (CVE-2024-3154), the rest would speak to a shim or another runtime's daemon.
var reserved = []string{"io.kubernetes.cri.", "io.kubernetes.cri-o.", "org.systemd.property.", "io.containerd.", "containerd.io/"}

func (b *builder) annotations() error {
	b.pass = PassThrough(b.pod.GetAnnotations(), b.opts.PodAnnotations)
	for k, v := range PassThrough(b.cfg.GetAnnotations(), b.opts.ContainerAnnotations) {
		b.pass[k] = v
	}
	for name, m := range map[string]map[string]string{"config.labels": b.cfg.GetLabels(), "config.annotations": b.cfg.GetAnnotations()} {
		if _, ok := m[""]; ok {
			return field.Invalid(name, "a key must not be empty")
		}
	}
	return nil
}

// PassThrough returns the annotations that the handler's allow-list lets into
// a spec: exact keys, or patterns of path.Match; a final "*" also matches
// slashes. Reserved keys never pass. The answer is not nil.
func PassThrough(in map[string]string, allow []string) map[string]string {
	out := map[string]string{}
	if len(allow) == 0 {
		return out
	}
	for k, v := range in {
		if !isReserved(k) && allowed(k, allow) {
			out[k] = v
		}
	}
	return out
}

func isReserved(key string) bool {
	for _, p := range reserved {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

func allowed(key string, allow []string) bool {
	for _, pattern := range allow {
		if key == pattern {
			return true
		}
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && !strings.ContainsAny(prefix, `*?[\`) && strings.HasPrefix(key, prefix) {
			return true
		}
		if ok, err := path.Match(pattern, key); err == nil && ok {
			return true
		}
	}
	return false
}

// addAnnotations fills in annotations. Those of the image's labels are never
// among them (CVE-2026-53488).
func (b *builder) addAnnotations(s *oci.Spec, f plan.Facts) {
	s.Annotations = map[string]string{}
	for k, v := range b.pass {
		s.Annotations[k] = v
	}
	for k, v := range map[string]string{
		AnnotationContainerType:    "container",
		AnnotationSandboxID:        f.PodID,
		AnnotationSandboxName:      f.PodName,
		AnnotationSandboxNamespace: f.PodNamespace,
		AnnotationSandboxUID:       f.PodUID,
		AnnotationContainerName:    f.Name,
		AnnotationImageName:        f.ImageName,
	} {
		s.Annotations[k] = v
	}
}
