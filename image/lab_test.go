package image

import (
	"context"
	"os"
	"testing"
	"time"
)

// BenchmarkRegistry pulls an image from a real registry: CRID_BENCH_IMAGE
// names it. Each round begins with an empty store.
func BenchmarkRegistry(b *testing.B) {
	needRoot(b)
	ref := os.Getenv("CRID_BENCH_IMAGE")
	if ref == "" {
		b.Skip("needs CRID_BENCH_IMAGE: a reference in a registry that can be reached")
	}
	for b.Loop() {
		b.StopTimer()
		dir, err := os.MkdirTemp("", "crid-bench-")
		if err != nil {
			b.Fatal(err)
		}
		s := openStore(b, dir, func(c *Config) { c.Log = nil })
		b.StartTimer()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		img, err := s.Pull(ctx, PullRequest{Ref: ref})
		cancel()
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(float64(img.Size)/1e6, "MB")
		s.Close()
		os.RemoveAll(dir)
		b.StartTimer()
	}
}
