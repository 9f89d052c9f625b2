//go:build e2e

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// podMetrics are those of cadvisor that the runtime has to give, and which of the labels container and pod they carry.
var podMetrics = strings.Fields(`
	container_blkio_device_usage_total container_cpu_cfs_periods_total container_cpu_cfs_throttled_periods_total container_cpu_cfs_throttled_seconds_total
	container_cpu_system_seconds_total container_cpu_usage_seconds_total container_cpu_user_seconds_total container_file_descriptors
	container_fs_inodes_free container_fs_inodes_total container_fs_limit_bytes container_fs_reads_bytes_total container_fs_reads_total container_fs_usage_bytes
	container_fs_writes_bytes_total container_fs_writes_total container_last_seen container_memory_cache container_memory_failcnt
	container_memory_failures_total container_memory_kernel_usage container_memory_mapped_file container_memory_max_usage_bytes container_memory_rss container_memory_swap
	container_memory_total_active_file_bytes container_memory_total_inactive_file_bytes container_memory_usage_bytes container_memory_working_set_bytes container_network_receive_bytes_total container_network_receive_errors_total
	container_network_receive_packets_dropped_total container_network_receive_packets_total container_network_transmit_bytes_total
	container_network_transmit_errors_total container_network_transmit_packets_dropped_total container_network_transmit_packets_total
	container_oom_events_total container_processes container_sockets container_spec_cpu_period container_spec_cpu_quota container_spec_cpu_shares
	container_spec_memory_limit_bytes container_spec_memory_reservation_limit_bytes container_spec_memory_swap_limit_bytes container_start_time_seconds
	container_threads container_threads_max container_ulimits_soft`)

// countsTraffic tells whether the kernel counts what is read and written on block devices. On cgroup v1, Linux 6.18 begins only when somebody
// sets a limit.
func countsTraffic(t *testing.T) bool {
	const file = "/sys/fs/cgroup/blkio/blkio.throttle.io_service_bytes"
	return strings.TrimSpace(read(t, file)) != "Total 0"
}

// metricsAreComplete: what the kubelet shows of a pod's use comes from the runtime alone.
func metricsAreComplete(t *testing.T, s *space) {
	p := s.run("main", "containers:\n"+script("main", "dd if=/dev/zero of=/file bs=1M count=5 oflag=direct; dd if=/file of=/dev/null bs=1M iflag=direct; while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.2; done",
		"resources: {limits: {cpu: 300m, memory: 64Mi}}"))
	await(t, 2*time.Minute, "all metrics", func(ctx context.Context) error {
		text, err := s.k.ReadOnly(ctx, "/metrics/cadvisor")
		if err != nil {
			return err
		}
		have := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			name, labels, ok := strings.Cut(line, "{")
			if ok && strings.Contains(labels, `pod="main"`) && strings.Contains(labels, `namespace="`+s.name+`"`) {
				have[name] = true
			}
		}
		traffic := countsTraffic(t)
		var missing []string
		for _, m := range podMetrics {
			if onDevices := strings.Contains(m, "blkio") || strings.Contains(m, "_reads_") || strings.Contains(m, "_writes_"); !have[m] && (traffic || !onDevices) {
				missing = append(missing, m)
			}
		}
		if missing != nil {
			return errorf("/metrics/cadvisor lacks for the pod: %s", strings.Join(missing, " "))
		}
		return nil
	})
	await(t, 2*time.Minute, "what kubectl top shows", func(ctx context.Context) error { // metrics-server asks for this
		text, err := s.k.ReadOnly(ctx, "/metrics/resource")
		if err != nil {
			return err
		}
		for _, want := range []string{`container_cpu_usage_seconds_total{container="main",namespace="` + s.name + `",pod="main"}`,
			`container_memory_working_set_bytes{container="main",namespace="` + s.name + `",pod="main"}`, `container_start_time_seconds{container="main",namespace="` + s.name,
			`pod_cpu_usage_seconds_total{namespace="` + s.name, `pod_memory_working_set_bytes{namespace="` + s.name, "node_cpu_usage_seconds_total", "node_memory_working_set_bytes"} {
			if !strings.Contains(string(text), want) {
				return errorf("/metrics/resource lacks %s", want)
			}
		}
		return nil
	})
	await(t, 2*time.Minute, "a summary", func(ctx context.Context) error {
		text, err := s.k.ReadOnly(ctx, "/stats/summary")
		if err != nil {
			return err
		}
		return summaryIsWhole(text, p.Metadata.UID)
	})
}

type summary struct {
	Pods []struct {
		PodRef  struct{ UID string }
		CPU     struct{ UsageNanoCores, UsageCoreNanoSeconds uint64 }
		Memory  struct{ WorkingSetBytes, UsageBytes, RSSBytes uint64 }
		Network struct {
			Name    string
			RxBytes uint64
		}
		Process struct {
			ProcessCount uint64 `json:"process_count"`
		} `json:"process_stats"`
		Containers []struct {
			Name   string
			CPU    struct{ UsageNanoCores, UsageCoreNanoSeconds uint64 }
			Memory struct{ WorkingSetBytes uint64 }
			Rootfs struct{ UsedBytes, InodesUsed uint64 }
			Logs   struct{ UsedBytes *uint64 }
		}
		EphemeralStorage struct {
			UsedBytes uint64 `json:"usedBytes"`
		} `json:"ephemeral-storage"`
	}
}

func summaryIsWhole(text []byte, uid string) error {
	var all summary
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	for _, p := range all.Pods {
		if p.PodRef.UID != uid {
			continue
		}
		if len(p.Containers) != 1 {
			return fmt.Errorf("%d containers", len(p.Containers))
		}
		c := p.Containers[0]
		for what, ok := range map[string]bool{"pod's cpu": p.CPU.UsageCoreNanoSeconds > 0 && p.CPU.UsageNanoCores > 0, "pod's memory": p.Memory.WorkingSetBytes > 0,
			"network": p.Network.Name == "eth0", "processes": p.Process.ProcessCount > 0, "cpu": c.CPU.UsageCoreNanoSeconds > 0 && c.CPU.UsageNanoCores > 0,
			"memory": c.Memory.WorkingSetBytes > 0, "writable layer": c.Rootfs.UsedBytes >= 5<<20, "logs": c.Logs.UsedBytes != nil, "ephemeral storage": p.EphemeralStorage.UsedBytes >= 5<<20} {
			if !ok {
				return fmt.Errorf("/stats/summary lacks the %s: %+v", what, p)
			}
		}
		return nil
	}
	return fmt.Errorf("/stats/summary lacks the pod")
}
