package spec

import (
	"encoding/json"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// BenchmarkSpec is what a CreateContainer pays here: checks, spec, JSON.
func BenchmarkSpec(b *testing.B) {
	cfg, p, o, f := small(), pod(), options(), facts()
	cfg.Linux.SecurityContext.Seccomp = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault}
	b.ReportAllocs()
	for b.Loop() {
		pl, err := New(cfg, p, o)
		if err != nil {
			b.Fatal(err)
		}
		s, err := pl.Spec(f)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := json.Marshal(s); err != nil {
			b.Fatal(err)
		}
	}
}
