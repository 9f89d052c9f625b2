// Package metrics is crid's own Prometheus endpoint.
//
// It owns a registry of its own, the names of crid's metrics, and the HTTP
// server for /metrics and /v1/metrics. Counters are fed by whoever does the
// work; states are asked for at the scrape, so that an unscraped node does
// nothing. Labels come from small closed sets, never from names or ids.
//
// The metrics of pods and containers that a kubelet shows are package stats'.
package metrics
