package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/codes"
)

// Facts are the states that are asked for at a scrape. Any function may be nil;
// all must answer from memory.
type Facts struct {
	// Pods, Containers and Tasks answer counts by state.
	Pods, Containers, Tasks func() map[string]int
	// ShimsUp and ShimsUnreachable count shims.
	ShimsUp, ShimsUnreachable func() int
	// ShimsRSS is the resident memory of all shims, in bytes.
	ShimsRSS func() uint64
	// Stuck counts work that has been owed for long, by kind
	// ("container", "pod", "stats").
	Stuck func() map[string]int
	// Quarantined counts records that could not be read, Unsaved those that
	// could not be written.
	Quarantined, Unsaved func() int
	// EventsDropped counts what slow consumers were cut off from, LogLines
	// dropped parts of container logs.
	EventsDropped, LogLinesDropped func() uint64
	// ImageBytes and ImageCount are what images take.
	ImageBytes func() uint64
	ImageCount func() int
	// EventStreams counts the consumers of container events.
	EventStreams func() int
}

// Metrics are crid's counters. The zero value is not usable; all methods are
// safe for concurrent use and do not block.
type Metrics struct {
	registry *prometheus.Registry

	rpcSeconds    *prometheus.HistogramVec
	rpcTotal      *prometheus.CounterVec
	panics        prometheus.Counter
	pullSeconds   *prometheus.HistogramVec
	pullBytes     prometheus.Counter
	pullsRunning  prometheus.Gauge
	layersRunning prometheus.Gauge
	netSeconds    *prometheus.HistogramVec
	shimsDied     prometheus.Counter
	repairs       *prometheus.CounterVec
	shimEvents    *prometheus.CounterVec
}

// New makes the metrics, with facts for the states.
func New(version string, facts Facts) *Metrics {
	rpcBuckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		rpcSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "crid_rpc_duration_seconds", Help: "Latency of CRI calls, by call and by result (ok, error).", Buckets: rpcBuckets,
		}, []string{"rpc", "result"}),
		rpcTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crid_rpc_total", Help: "CRI calls, by call and gRPC code.",
		}, []string{"rpc", "code"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "crid_panics_total", Help: "Panics that were caught; each is a defect of crid."}),
		pullSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "crid_image_pull_duration_seconds", Help: "Time of image pulls, by class of result (ok or a class of error).",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900},
		}, []string{"result"}),
		pullBytes:     prometheus.NewCounter(prometheus.CounterOpts{Name: "crid_image_pull_bytes_total", Help: "Bytes downloaded by image pulls."}),
		pullsRunning:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "crid_image_pulls_in_progress", Help: "Image pulls under way."}),
		layersRunning: prometheus.NewGauge(prometheus.GaugeOpts{Name: "crid_image_layers_in_progress", Help: "Image layers being downloaded or unpacked."}),
		netSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "crid_network_operation_duration_seconds", Help: "Time of CNI operations, by operation and result (ok, error).",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"operation", "result"}),
		shimsDied: prometheus.NewCounter(prometheus.CounterOpts{Name: "crid_shims_died_total", Help: "Shims that died without being asked to."}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crid_reconcile_repairs_total", Help: "Differences between record and world that only reconciliation found; nonzero: an event path lost something.",
		}, []string{"kind"}),
		shimEvents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crid_shim_events_total", Help: "Events from shims, by kind.",
		}, []string{"kind"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "crid_build_info", Help: "Always 1; the version is in the label.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(build, m.rpcSeconds, m.rpcTotal, m.panics, m.pullSeconds, m.pullBytes, m.pullsRunning, m.layersRunning,
		m.netSeconds, m.shimsDied, m.repairs, m.shimEvents, &states{facts},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// Observe tells of one CRI call.
func (m *Metrics) Observe(rpc string, code codes.Code, took time.Duration) {
	r := "ok"
	if code != codes.OK {
		r = "error"
	}
	m.rpcSeconds.WithLabelValues(rpc, r).Observe(took.Seconds())
	m.rpcTotal.WithLabelValues(rpc, code.String()).Inc()
}

// Panic tells of a panic that was caught.
func (m *Metrics) Panic() { m.panics.Inc() }

// PullStarted, PullFinished and LayersInProgress tell of image pulls; they
// make it an image.Observer.
func (m *Metrics) PullStarted(string) { m.pullsRunning.Inc() }

// PullFinished tells the end of a pull: class is "" for success, or one of the
// image store's few classes of errors.
func (m *Metrics) PullFinished(_ string, took time.Duration, bytes int64, class string) {
	if class == "" {
		class = "ok"
	}
	m.pullsRunning.Dec()
	m.pullSeconds.WithLabelValues(class).Observe(took.Seconds())
	m.pullBytes.Add(float64(max(bytes, 0)))
}

// LayersInProgress tells how many layers are being worked on.
func (m *Metrics) LayersInProgress(n int) { m.layersRunning.Set(float64(n)) }

// Network tells of a CNI operation ("add", "del", "check", "gc").
func (m *Metrics) Network(op string, took time.Duration, err error) {
	m.netSeconds.WithLabelValues(op, result(err)).Observe(took.Seconds())
}

// ShimDied tells of a shim that died by itself.
func (m *Metrics) ShimDied() { m.shimsDied.Inc() }

// Repaired tells that reconciliation found a difference; kind is one of a
// small fixed set.
func (m *Metrics) Repaired(kind string) { m.repairs.WithLabelValues(kind).Inc() }

// ShimEvent tells of an event from a shim.
func (m *Metrics) ShimEvent(kind string) { m.shimEvents.WithLabelValues(kind).Inc() }

// Register adds a collector of another part.
func (m *Metrics) Register(c prometheus.Collector) error { return m.registry.Register(c) }
