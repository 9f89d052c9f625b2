package story

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Eventually waits for a condition that nobody announces, and fails the test if it does not come.
func (s *Story) Eventually(what string, limit time.Duration, ok func() bool) {
	s.T.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(15 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.T.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// WantCode fails the test unless err has one of the codes.
func (s *Story) WantCode(what string, err error, want ...codes.Code) {
	s.T.Helper()
	got := status.Code(err)
	for _, w := range want {
		if got == w {
			return
		}
	}
	s.T.Errorf("%s: the code is %s, not %v: %v", what, got, want, err)
}
