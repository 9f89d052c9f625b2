package image

import (
	"context"
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// BenchmarkManyLayers pulls an image of many small layers from a registry in
// the same process: what a layer costs beyond its bytes.
func BenchmarkManyLayers(b *testing.B) {
	needRoot(b)
	for _, n := range []int{10, 60, 120} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			host := serve(b)
			var ls []v1.Layer
			for i := range n {
				ls = append(ls, layerOf(b, file{name: fmt.Sprintf("dir/f%d", i), body: noise(4096)}))
			}
			push(b, host+"/a:1", imageOf(b, ls...))
			for b.Loop() {
				b.StopTimer()
				s := openStore(b, b.TempDir())
				b.StartTimer()
				if _, err := s.Pull(context.Background(), PullRequest{Ref: host + "/a:1"}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				s.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkPrepareRootfs is what a container costs at create and remove.
func BenchmarkPrepareRootfs(b *testing.B) {
	needRoot(b)
	s, img, _ := pulled(b, b.TempDir())
	for b.Loop() {
		if _, err := s.PrepareRootfs(context.Background(), "c", img, RootfsOptions{}); err != nil {
			b.Fatal(err)
		}
		if err := s.RemoveRootfs(context.Background(), "c"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is what the store adds to a start, with an image there.
func BenchmarkOpen(b *testing.B) {
	needRoot(b)
	dir := b.TempDir()
	s, _, _ := pulled(b, dir)
	s.Close()
	for b.Loop() {
		openStore(b, dir).Close()
	}
}
