package harness

import (
	"slices"
	"testing"
)

func TestDiffNamesWhatCameAndWhatWent(t *testing.T) {
	before := Census{"mount /a": 1, "open file anon_inode:[pidfd]": 2, "veth v1": 1}
	after := Census{"mount /a": 1, "open file anon_inode:[pidfd]": 5, "cgroup /c": 1}
	want := []string{"+ 3 times open file anon_inode:[pidfd]", "+ cgroup /c", "- veth v1"}
	got := before.Diff(after)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if leaks := before.Leaks(after); len(leaks) != 2 {
		t.Errorf("what went is no leak: %q", leaks)
	}
}

func TestMountPointsWithSpacesAreFound(t *testing.T) {
	for escaped, want := range map[string]string{`/a\040b`: "/a b", `/plain`: "/plain", `/a\134b`: `/a\b`, `/end\`: `/end\`} {
		if got := unescapeMount(escaped); got != want {
			t.Errorf("%q is %q, not %q", escaped, got, want)
		}
	}
}

func TestRulesAreOfTheNetworkTheyName(t *testing.T) {
	for rule, want := range map[string]bool{
		`-A CNI-1 -d 10.249.7.0/24 -m comment --comment "name: \"ce7\" id: \"32\"" -j ACCEPT`:  true,
		`-A CNI-1 -d 10.249.7.0/24 -m comment --comment "name: \"else\" id: \"32\"" -j ACCEPT`: false,
		`-A CNI-DN-1 -s 10.249.7.0/24 -p tcp -j CNI-HOSTPORT-SETMARK`:                          true,
		`-A CNI-DN-1 -s 10.249.8.0/24 -p tcp -j CNI-HOSTPORT-SETMARK`:                          false,
	} {
		if got := ofNetwork(rule, "ce7", "10.249.7."); got != want {
			t.Errorf("%t for %s", got, rule)
		}
	}
}
