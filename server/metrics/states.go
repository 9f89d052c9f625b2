package metrics

import "github.com/prometheus/client_golang/prometheus"

// states asks for the facts at a scrape.
type states struct{ f Facts }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	podCount       = desc("crid_pod_count", "Pod sandboxes, by state.", "state")
	containerCount = desc("crid_container_count", "Containers, by CRI state.", "state")
	taskCount      = desc("crid_task_count", "Containers that have or had a process, by phase.", "state")
	shimsUp        = desc("crid_shims_up", "Shims that are connected.")
	shimsAway      = desc("crid_shims_unreachable", "Shims that live but do not answer.")
	shimsRSS       = desc("crid_shims_resident_memory_bytes", "Resident memory of all shims.")
	stuckCount     = desc("crid_stuck_count", "Work owed for longer than it should take, by kind.", "kind")
	quarantined    = desc("crid_quarantined_records", "Records that could not be read and lie in quarantine.")
	unsaved        = desc("crid_unsaved_records", "Records that could not be written; the disk may be full.")
	eventsDropped  = desc("crid_events_dropped_total", "Consumers of container events that were cut off for being slow.")
	linesDropped   = desc("crid_log_lines_dropped_total", "Parts of container logs that were dropped, for want of disk space.")
	imageBytes     = desc("crid_image_bytes", "Bytes that images take.")
	imageCount     = desc("crid_image_count", "Images.")
	eventStreams   = desc("crid_event_streams", "Consumers of container events.")
)

// Describe implements prometheus.Collector.
func (s *states) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{podCount, containerCount, taskCount, shimsUp, shimsAway, shimsRSS, stuckCount, quarantined, unsaved,
		eventsDropped, linesDropped, imageBytes, imageCount, eventStreams} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *states) Collect(ch chan<- prometheus.Metric) {
	byLabel := func(d *prometheus.Desc, f func() map[string]int) {
		if f == nil {
			return
		}
		for label, n := range f() {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), label)
		}
	}
	byLabel(podCount, s.f.Pods)
	byLabel(containerCount, s.f.Containers)
	byLabel(taskCount, s.f.Tasks)
	byLabel(stuckCount, s.f.Stuck)
	one(ch, shimsUp, prometheus.GaugeValue, s.f.ShimsUp)
	one(ch, shimsAway, prometheus.GaugeValue, s.f.ShimsUnreachable)
	one(ch, shimsRSS, prometheus.GaugeValue, s.f.ShimsRSS)
	one(ch, quarantined, prometheus.GaugeValue, s.f.Quarantined)
	one(ch, unsaved, prometheus.GaugeValue, s.f.Unsaved)
	one(ch, eventsDropped, prometheus.CounterValue, s.f.EventsDropped)
	one(ch, linesDropped, prometheus.CounterValue, s.f.LogLinesDropped)
	one(ch, imageBytes, prometheus.GaugeValue, s.f.ImageBytes)
	one(ch, imageCount, prometheus.GaugeValue, s.f.ImageCount)
	one(ch, eventStreams, prometheus.GaugeValue, s.f.EventStreams)
}

func one[N int | uint64](ch chan<- prometheus.Metric, d *prometheus.Desc, t prometheus.ValueType, f func() N) {
	if f != nil {
		ch <- prometheus.MustNewConstMetric(d, t, float64(f()))
	}
}
