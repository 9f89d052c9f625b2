package node

import (
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A kubelet that cannot read the version shows the node as crid://Unknown.
func TestTheVersionBeginsWithNumbers(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "v1.2.3", "0.4.0-rc.1": "0.4.0-rc.1", "v0.3-12-g631bd9b": "v0.3-12-g631bd9b",
		"631bd9b-dirty": "0.0.0-631bd9b-dirty", "devel-0a1b+dirty": "0.0.0-devel-0a1b+dirty", "unknown": "0.0.0-unknown",
	} {
		v, err := New(Deps{Version: version}).Version(t.Context(), &cri.VersionRequest{})
		if err != nil || v.RuntimeVersion != want {
			t.Errorf("%q is told as %q, not %q (%v)", version, v.GetRuntimeVersion(), want, err)
		}
	}
}
