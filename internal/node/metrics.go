package node

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bridgefour/bridgefour/api"
)

// Metrics serves Prometheus metrics: of the Go process, the log and the cluster, and the counts of the observer. The registry is made for
// the first request: most embedded clusters get none.
func (n *Node) Metrics() http.Handler {
	made := sync.OnceValue(func() http.Handler {
		own := prometheus.NewRegistry()
		own.MustRegister(newCollector(n))
		// A gauge with the name of a counter, to which promtool objects. A collector is identified by its name.
		prometheus.Unregister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "etcd_disk_wal_write_bytes_total"}))
		// etcd's write-ahead log uses the default registry, which also has the process and the Go runtime.
		return promhttp.HandlerFor(prometheus.Gatherers{prometheus.DefaultGatherer, own}, promhttp.HandlerOpts{})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { made().ServeHTTP(w, r) })
}

// collector turns the cluster's state and the observer's counts into metrics when they are asked for.
type collector struct {
	node  *Node
	descs map[string]*prometheus.Desc // by name without the prefix
}

func newCollector(n *Node) *collector {
	c := &collector{node: n, descs: map[string]*prometheus.Desc{}}
	for _, d := range []struct{ name, help, label string }{
		{"ready", "1 while this leader accepts writes.", ""},
		{"leading", "1 while this node is the leader.", ""},
		{"age_seconds", "Time since the last message from the leader.", ""},
		{"leaders", "Members by status, as seen by this node.", "status"},
		{"term", "Term of the election.", ""},
		{"log_index", "Position in the replicated log.", ""},
		{"jobs", "Jobs that have not ended.", ""},
		{"slots", "Slots of live workers.", ""},
		{"slots_free", "Free slots.", ""},
		{"workers", "Workers by status.", "status"},
		{"attempts_queued", "Attempts leased ahead of need.", ""},
		{"worker_sessions_total", "Worker sessions started with this node while it led.", ""},
		{"jobs_submitted_total", "Jobs submitted while this node led.", ""},
		{"jobs_ended_total", "Jobs that ended while this node led, by status.", "status"},
		{"attempts_leased_total", "Attempts leased to workers by this node.", ""},
		{"attempts_failed_total", "Attempts that failed while this node led, by kind of failure.", "kind"},
		{"tasks_done_total", "Tasks done while this node led.", ""},
		{"tasks_dead_total", "Tasks that became dead while this node was the leader.", ""},
		{"commit_seconds", "Time from the proposal of a log entry until it was committed.", ""},
		{"attempt_seconds", "Duration of successful attempts, as workers report it.", ""},
	} {
		var labels []string
		if d.label != "" {
			labels = []string{d.label}
		}
		c.descs[d.name] = prometheus.NewDesc("bridgefour_"+d.name, d.help, labels, nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	c.collectCluster(func(name string, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, v, labels...)
	})
	o := c.node.observer
	o.mu.Lock()
	defer o.mu.Unlock()
	count := func(name string, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(c.descs[name], prometheus.CounterValue, float64(v), labels...)
	}
	count("worker_sessions_total", o.sessions)
	count("jobs_submitted_total", o.submitted)
	count("attempts_leased_total", o.leased)
	count("tasks_done_total", o.done)
	count("tasks_dead_total", o.dead)
	for status, v := range o.ended {
		count("jobs_ended_total", v, status)
	}
	for kind, v := range o.failed {
		count("attempts_failed_total", v, kind)
	}
	for name, h := range map[string]*histogram{"commit_seconds": &o.commit, "attempt_seconds": &o.attempt} {
		below, all := h.cumulative()
		to <- prometheus.MustNewConstHistogram(c.descs[name], all, h.sum.Seconds(), below)
	}
}

func (c *collector) collectCluster(gauge func(name string, v float64, labels ...string)) {
	cluster := c.node.Cluster()
	gauge("ready", oneIf(cluster.NotReady == ""))
	gauge("leading", oneIf(cluster.Node == cluster.Leader))
	_, age, _ := c.node.Status()
	gauge("age_seconds", float64(age)/1000)
	leaders := map[string]int{}
	for _, l := range c.node.Leaders().Leaders {
		leaders[l.Status]++
	}
	for status, n := range leaders {
		gauge("leaders", float64(n), status)
	}
	gauge("term", float64(cluster.Term))
	gauge("log_index", float64(cluster.Index))
	gauge("jobs", float64(cluster.Jobs))
	gauge("slots", float64(cluster.Slots))
	gauge("slots_free", float64(cluster.Free))
	byStatus := map[string]int{api.WorkerAlive: 0, api.WorkerDead: 0, api.WorkerDraining: 0}
	queued := uint32(0)
	for _, w := range c.node.Workers() {
		byStatus[w.Status]++
		queued += w.Queued
	}
	for status, n := range byStatus {
		gauge("workers", float64(n), status)
	}
	gauge("attempts_queued", float64(queued))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
