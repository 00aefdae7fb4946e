package cli

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bridgefour/bridgefour/api"
)

// clusterSource is what the metrics of a leader are read from.
type clusterSource interface {
	Cluster() api.Cluster
	Workers() []api.Worker
	Leaders() api.LeaderList
	// Status is the log position, the milliseconds since this node heard from the leader, and the leader's number.
	Status() (index uint64, ageMillis int64, leader uint64)
}

// metricsHandler serves Prometheus metrics: those of the process, those of the log, and the cluster's. It is made at its
// first use: most embedded clusters are never asked.
func metricsHandler(source clusterSource) http.Handler {
	made := sync.OnceValue(func() http.Handler {
		own := prometheus.NewRegistry()
		own.MustRegister(&clusterCollector{
			source:  source,
			ready:   prometheus.NewDesc("bridgefour_ready", "1 while this leader takes writes.", nil, nil),
			leading: prometheus.NewDesc("bridgefour_leading", "1 while this leader is the one that leads.", nil, nil),
			age:     prometheus.NewDesc("bridgefour_age_seconds", "Time since this leader heard from the one that leads.", nil, nil),
			leaders: prometheus.NewDesc("bridgefour_leaders", "Leaders by status, as far as this one knows.", []string{"status"}, nil),
			term:    prometheus.NewDesc("bridgefour_term", "Term of the election.", nil, nil),
			index:   prometheus.NewDesc("bridgefour_log_index", "Position in the replicated log.", nil, nil),
			jobs:    prometheus.NewDesc("bridgefour_jobs", "Jobs that are not over.", nil, nil),
			slots:   prometheus.NewDesc("bridgefour_slots", "Slots of living workers.", nil, nil),
			free:    prometheus.NewDesc("bridgefour_slots_free", "Slots that run nothing.", nil, nil),
			workers: prometheus.NewDesc("bridgefour_workers", "Workers by status.", []string{"status"}, nil),
			queued:  prometheus.NewDesc("bridgefour_attempts_queued", "Attempts leased ahead of need.", nil, nil),
		})
		// etcd's write-ahead log reports to the default registry, which also has the process and the Go runtime.
		return promhttp.HandlerFor(prometheus.Gatherers{prometheus.DefaultGatherer, own}, promhttp.HandlerOpts{})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { made().ServeHTTP(w, r) })
}

// clusterCollector turns the cluster's state into metrics when it is asked.
type clusterCollector struct {
	source                                          clusterSource
	ready, leading, age, leaders                    *prometheus.Desc
	term, index, jobs, slots, free, workers, queued *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *clusterCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.ready, c.leading, c.age, c.leaders, c.term, c.index, c.jobs, c.slots, c.free, c.workers, c.queued} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *clusterCollector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	cluster := c.source.Cluster()
	ready := 1.0
	if cluster.NotReady != "" {
		ready = 0
	}
	gauge(c.ready, ready)
	leading := 0.0
	if cluster.Node == cluster.Leader {
		leading = 1
	}
	gauge(c.leading, leading)
	_, age, _ := c.source.Status()
	gauge(c.age, float64(age)/1000)
	leaders := map[string]int{}
	for _, l := range c.source.Leaders().Leaders {
		leaders[l.Status]++
	}
	for status, n := range leaders {
		gauge(c.leaders, float64(n), status)
	}
	gauge(c.term, float64(cluster.Term))
	gauge(c.index, float64(cluster.Index))
	gauge(c.jobs, float64(cluster.Jobs))
	gauge(c.slots, float64(cluster.Slots))
	gauge(c.free, float64(cluster.Free))
	byStatus := map[string]int{api.WorkerAlive: 0, api.WorkerDead: 0, api.WorkerDraining: 0}
	queued := uint32(0)
	for _, w := range c.source.Workers() {
		byStatus[w.Status]++
		queued += w.Queued
	}
	for status, n := range byStatus {
		gauge(c.workers, float64(n), status)
	}
	gauge(c.queued, float64(queued))
}
