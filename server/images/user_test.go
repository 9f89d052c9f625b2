package images

import "testing"

// A kubelet refuses runAsNonRoot pods by this answer.
func TestAnImagesUserIsAUIDOrAName(t *testing.T) {
	for in, want := range map[string]struct {
		uid  int64
		name string
	}{
		"": {0, ""}, "0": {0, ""}, "1000": {1000, ""}, "1000:2000": {1000, ""}, "www-data": {-1, "www-data"},
		"www-data:www": {-1, "www-data"}, ":5": {0, ""}, "-5": {-1, "-5"}, "99999999999999999999": {-1, "99999999999999999999"},
	} {
		uid, name := user(in)
		if name != want.name || (uid == nil) != (want.uid < 0) || uid != nil && uid.Value != want.uid {
			t.Errorf("%q is %v, %q", in, uid, name)
		}
	}
}
