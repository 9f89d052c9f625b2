package chunk_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/chunk"
)

func boxes(n, size int) []*cri.PodSandbox {
	var out []*cri.PodSandbox
	for i := range n {
		out = append(out, &cri.PodSandbox{Id: fmt.Sprint(i), RuntimeHandler: strings.Repeat("x", size)})
	}
	return out
}

// A node with 5,000 annotated pods answered ListPodSandbox with a message that
// no client would take. In chunks every item arrives once and in order.
func TestChunksStayBelowTheClientsLimitAndLoseNothing(t *testing.T) {
	for _, c := range []struct{ n, size int }{{0, 0}, {1, 10}, {1, 5 << 20}, {3, 5 << 20}, {5000, 4 << 10}, {4, 1 << 20}} {
		t.Run(fmt.Sprintf("%d of %d", c.n, c.size), func(t *testing.T) {
			next := 0
			err := chunk.Send(boxes(c.n, c.size), func(items []*cri.PodSandbox) error {
				if len(items) == 0 {
					t.Error("an empty list was sent")
				}
				for _, it := range items {
					if it.Id != fmt.Sprint(next) {
						t.Fatalf("item %s, want %d", it.Id, next)
					}
					next++
				}
				size := proto.Size(&cri.StreamPodSandboxesResponse{PodSandboxes: items})
				if size > chunk.Limit && len(items) > 1 {
					t.Errorf("a message of %d bytes", size)
				}
				return nil
			})
			if err != nil || next != c.n {
				t.Errorf("%d of %d items, err %v", next, c.n, err)
			}
		})
	}
}

func TestAnErrorEndsTheStream(t *testing.T) {
	gone, calls := errors.New("gone"), 0
	err := chunk.Send(boxes(9, 1<<20), func([]*cri.PodSandbox) error { calls++; return gone })
	if !errors.Is(err, gone) || calls != 1 {
		t.Errorf("err %v after %d calls", err, calls)
	}
}
