package metrics_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/server/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ image.Observer = (*metrics.Metrics)(nil)

func scrape(t *testing.T, m *metrics.Metrics, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%s answers %d", path, w.Code)
	}
	return w.Body.String()
}

// Dashboards and alerts are written against these names.
func TestTheMetricsThatOperatorsRelyOn(t *testing.T) {
	n := func(v int) func() int { return func() int { return v } }
	u := func(v uint64) func() uint64 { return func() uint64 { return v } }
	by := func(k string, v int) func() map[string]int {
		return func() map[string]int { return map[string]int{k: v} }
	}
	m := metrics.New("1.2.3", metrics.Facts{
		Pods: by("ready", 2), Containers: by("running", 3), Tasks: by("running", 4), ShimsUp: n(5), ShimsUnreachable: n(1), ShimsRSS: u(6),
		Stuck: by("container", 7), Quarantined: n(8), Unsaved: n(9), EventsDropped: u(10), LogLinesDropped: u(11), ImageBytes: u(12), ImageCount: n(13), EventStreams: n(14),
	})
	m.Observe("StopContainer", codes.OK, time.Second)
	m.Observe("StopContainer", codes.DeadlineExceeded, time.Minute)
	m.PullStarted("secret.example/a")
	m.PullFinished("secret.example/a", time.Second, 100, "")
	m.PullStarted("b")
	m.PullFinished("b", time.Second, -1, "unavailable")
	m.PullStarted("c")
	m.LayersInProgress(2)
	m.Network("add", time.Millisecond, errors.New("no"))
	m.ShimDied()
	m.Repaired("missed-exit")
	m.ShimEvent("exit")
	m.Panic()
	for _, path := range []string{"/metrics", "/v1/metrics"} {
		text := scrape(t, m, path)
		for _, want := range []string{
			`crid_build_info{version="1.2.3"} 1`,
			`crid_pod_count{state="ready"} 2`, `crid_container_count{state="running"} 3`, `crid_task_count{state="running"} 4`,
			`crid_shims_up 5`, `crid_shims_unreachable 1`, `crid_shims_died_total 1`, `crid_shims_resident_memory_bytes 6`,
			`crid_stuck_count{kind="container"} 7`, `crid_quarantined_records 8`, `crid_unsaved_records 9`,
			`crid_events_dropped_total 10`, `crid_log_lines_dropped_total 11`, `crid_image_bytes 12`, `crid_image_count 13`, `crid_event_streams 14`,
			`crid_rpc_duration_seconds_count{result="ok",rpc="StopContainer"} 1`, `crid_rpc_duration_seconds_count{result="error",rpc="StopContainer"} 1`,
			`crid_rpc_total{code="DeadlineExceeded",rpc="StopContainer"} 1`,
			`crid_image_pull_duration_seconds_count{result="ok"} 1`, `crid_image_pull_duration_seconds_count{result="unavailable"} 1`,
			`crid_image_pull_bytes_total 100`, `crid_image_pulls_in_progress 1`, `crid_image_layers_in_progress 2`,
			`crid_network_operation_duration_seconds_count{operation="add",result="error"} 1`,
			`crid_reconcile_repairs_total{kind="missed-exit"} 1`, `crid_shim_events_total{kind="exit"} 1`, `crid_panics_total 1`,
			"process_resident_memory_bytes", "go_goroutines",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s", path, want)
			}
		}
		if strings.Contains(text, "secret.example") {
			t.Error("a reference became a label")
		}
	}
}

func TestTheEndpointStopsAndStaysOnTheNode(t *testing.T) {
	l, err := metrics.Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(l.Addr().String(), "127.0.0.1:") {
		t.Errorf("without a host it listens on %s", l.Addr())
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- metrics.New("1", metrics.Facts{}).Serve(ctx, l) }()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + l.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(b), "crid_build_info") {
		t.Errorf("got %.100s", b)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it does not stop")
	}
	for _, a := range []string{"nonsense", "127.0.0.1:99999"} {
		if _, err := metrics.Listen(a); err == nil || !strings.Contains(err.Error(), "[metrics]") {
			t.Errorf("%s: %v", a, err)
		}
	}
}
