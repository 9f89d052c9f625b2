package churn

import (
	"math"
	"testing"
)

func TestASlopeIsSeenThroughNoise(t *testing.T) {
	var leak, flat []Sample
	for n := range 21 {
		noise := float64(n%3) * 20000
		leak = append(leak, Sample{Pods: n * 250, Heap: 5e6 + 2048*float64(n*250) + noise})
		flat = append(flat, Sample{Pods: n * 250, Heap: 5e6 + noise})
	}
	flat[0].Heap, leak[0].Heap = 1e6, 1e6 // before the pools are full
	of := func(s Sample) float64 { return s.Heap }
	if s := Slope(leak, of); math.Abs(s-2048) > 50 {
		t.Errorf("a leak of 2048 bytes a pod is measured as %.0f", s)
	}
	if s := Slope(flat, of); math.Abs(s) > 50 {
		t.Errorf("no leak is measured as %.0f bytes a pod", s)
	}
}
