package containers

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The CPU manager updates cpusets alone; with that, memory limits were lost
// from the status and came back wrong at the next update.
func TestAnUpdateKeepsWhatItDoesNotName(t *testing.T) {
	old := &cri.LinuxContainerResources{
		CpuPeriod: 1, CpuQuota: 2, CpuShares: 3, MemoryLimitInBytes: 4, MemorySwapLimitInBytes: 5, OomScoreAdj: 6, CpusetCpus: "0", CpusetMems: "1",
		HugepageLimits: []*cri.HugepageLimit{{PageSize: "2MB", Limit: 7}}, Unified: map[string]string{"a.b": "1"},
	}
	before := proto.CloneOf(old)
	got := Merge(old, &cri.LinuxContainerResources{CpusetCpus: "2-3", HugepageLimits: []*cri.HugepageLimit{{PageSize: "1GB", Limit: 8}, {PageSize: "2MB", Limit: 9}}, Unified: map[string]string{"c.d": "2"}})
	want := proto.CloneOf(old)
	want.CpusetCpus = "2-3"
	want.HugepageLimits = []*cri.HugepageLimit{{PageSize: "2MB", Limit: 9}, {PageSize: "1GB", Limit: 8}}
	want.Unified = map[string]string{"a.b": "1", "c.d": "2"}
	if !proto.Equal(got, want) || !proto.Equal(old, before) {
		t.Errorf("got %v, and the old is %v", got, old)
	}
	all := &cri.LinuxContainerResources{CpuPeriod: 11, CpuQuota: -1, CpuShares: 13, MemoryLimitInBytes: 14, MemorySwapLimitInBytes: -1, OomScoreAdj: -16, CpusetCpus: "5", CpusetMems: "6"}
	got = Merge(old, all)
	all.HugepageLimits, all.Unified = old.HugepageLimits, old.Unified
	if !proto.Equal(got, all) {
		t.Errorf("everything changed: %v", got)
	}
	if got := Merge(nil, all); !proto.Equal(got, all) || got == all {
		t.Errorf("from nothing: %v", got)
	}
	if got := Merge(old, nil); !proto.Equal(got, old) {
		t.Errorf("nothing changed: %v", got)
	}
	// A field that CRI adds has to be merged, too.
	if n := old.ProtoReflect().Descriptor().Fields().Len(); n != 10 {
		t.Errorf("LinuxContainerResources has %d fields now", n)
	}
}

func TestTwoOutputsShareOneMessage(t *testing.T) {
	for _, c := range []struct{ a, b, wantA, wantB int }{{1, 2, 1, 2}, {20, 1, 9, 1}, {1, 20, 1, 9}, {20, 20, 5, 5}, {10, 0, 10, 0}, {0, 11, 0, 10}} {
		a, b := share(bytes.Repeat([]byte("a"), c.a), bytes.Repeat([]byte("b"), c.b), 10)
		if len(a) != c.wantA || len(b) != c.wantB {
			t.Errorf("%d and %d: %d and %d", c.a, c.b, len(a), len(b))
		}
	}
}
