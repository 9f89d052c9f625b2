package shimclient_test

import (
	"testing"
	"time"

	"github.com/crid-project/crid/shimclient/conformance"
)

func TestSmoke(t *testing.T) {
	w := conformance.NewReal(t)
	t0 := time.Now()
	s := w.Launch(t, "pod1")
	t.Logf("launch %v ref %+v", time.Since(t0), s.Ref())
	t0 = time.Now()
	s2 := w.Launch(t, "pod2")
	t.Logf("launch2 %v ref %+v", time.Since(t0), s2.Ref())
	c := w.Container(t, "pod1", "c1", "sleep")
	ctx := t.Context()
	t0 = time.Now()
	pid, err := s.Create(ctx, c)
	t.Log(pid, err, time.Since(t0))
	t0 = time.Now()
	pid, err = s.Start(ctx, "c1")
	t.Log(pid, err, time.Since(t0))
	t.Log(s.State(ctx, "c1"))
	t.Log(s.Connect(ctx, "c1"))
	t.Log(s.Pids(ctx, "c1"))
	t.Log(s.Delete(ctx, "c1"))
	t.Log(s.Shutdown(ctx))
	t0 = time.Now()
	t.Log(s.Kill(ctx, "c1", 15, false), time.Since(t0))
	t.Log(s.Wait(ctx, "c1"))
	t.Log(s.Delete(ctx, "c1"))
	t.Log(s.Shutdown(ctx))
	t.Log(s.State(ctx, "c1"))
	t.Log(s2.Shutdown(ctx))
	for {
		select {
		case e := <-w.Events():
			t.Logf("%+v", e)
			continue
		case <-time.After(100*time.Millisecond):
		}
		break
	}
}
