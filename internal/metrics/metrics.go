package metrics

import (
	"net/http"
	"runtime"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Desc describes a metric of ours. The prefix bridgefour_ is added to its name.
func Desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("bridgefour_"+name, help, labels, nil)
}

// Handler serves the metrics of own, bridgefour_build_info, and those of the process and its libraries. The registry is made for the first
// request: most embedded clusters get none.
func Handler(version string, own prometheus.Collector) http.Handler {
	made := sync.OnceValue(func() http.Handler {
		registry := prometheus.NewRegistry()
		registry.MustRegister(own, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "bridgefour_build_info", Help: "1, with the version of this program and that of Go.",
			ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
		}, func() float64 { return 1 }))
		return promhttp.HandlerFor(prometheus.Gatherers{registry, prometheus.GathererFunc(libraries)}, promhttp.HandlerOpts{})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { made().ServeHTTP(w, r) })
}

// libraries returns the metrics of the default registry: of the process and Go, and of etcd's write-ahead log, which registers its own
// whether it is used or not. Its fsyncs get a name of ours, so that alerts do not depend on a library. Others are dropped: promtool objects to
// one of them, and ours count the same.
func libraries() ([]*dto.MetricFamily, error) {
	all, err := prometheus.DefaultGatherer.Gather()
	kept := all[:0]
	for _, f := range all {
		switch {
		case f.GetName() == "etcd_disk_wal_fsync_duration_seconds" && f.GetMetric()[0].GetHistogram().GetSampleCount() > 0:
			f.Name, f.Help = new("bridgefour_log_fsync_seconds"), new("Duration of an fsync of the log.")
			kept = append(kept, f)
		case strings.HasPrefix(f.GetName(), "go_") || strings.HasPrefix(f.GetName(), "process_"):
			kept = append(kept, f)
		}
	}
	return kept, err //nolint:wrapcheck // for promhttp
}
