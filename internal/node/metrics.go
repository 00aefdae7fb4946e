package node

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/metrics"
)

// Metrics serves Prometheus metrics: of the process, the log and the cluster, and the counts of the observer.
func (n *Node) Metrics() http.Handler { return metrics.Handler(n.cfg.Version, newCollector(n)) }

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
		{"term", "Term of the election.", ""},
		{"log_index", "Position in the replicated log.", ""},
		{"log_bytes", "Space that the log and its snapshots take, with what is preallocated.", ""},
		{"log_disk_free_bytes", "Free space of the disk of the log.", ""},
		{"leaders", "Members by status, as seen by this node.", "status"},
		{"leader_log_index", "Position in the log that a member has reached, as last known.", "leader"},
		{"leader_heartbeat_age_seconds", "Time since the leader last heard from a member, or this node from the leader.", "leader"},
		{"jobs", "Jobs that have not ended.", ""},
		{"tasks", "Tasks of jobs that have not ended, by status.", "status"},
		{"slots", "Slots of live workers.", ""},
		{"slots_free", "Free slots.", ""},
		{"workers", "Workers by status.", "status"},
		{"attempts_queued", "Attempts leased ahead of need.", ""},
		{"worker_slots", "Slots of a worker.", "worker"},
		{"worker_slots_busy", "Slots of a worker that run an attempt.", "worker"},
		{"worker_attempts_queued", "Attempts leased to a worker ahead of need.", "worker"},
		{"worker_memory_bytes", "Memory for the attempts of a worker; 0: not limited.", "worker"},
		{"worker_heartbeat_age_seconds", "Time since the leader last heard from a worker.", "worker"},
		{"workers_quarantined", "Workers that are leased no attempts for a while, by cause.", "cause"},
		{"worker_quarantines_total", "Quarantines of workers that began while this node led, by cause.", "cause"},
		{"worker_sessions_total", "Worker sessions started with this node while it led.", ""},
		{"jobs_submitted_total", "Jobs submitted while this node led.", ""},
		{"jobs_ended_total", "Jobs that ended while this node led, by status.", "status"},
		{"attempts_leased_total", "Attempts leased to workers by this node.", ""},
		{"attempts_failed_total", "Attempts that failed while this node led, by kind of failure.", "kind"},
		{"tasks_done_total", "Tasks done while this node led.", ""},
		{"tasks_dead_total", "Tasks that became dead while this node led, by the kind of their last failure.", "kind"},
		{"submit_seconds", "Time from a request to submit, once it is read, until the log has committed the job.", ""},
		{"commit_seconds", "Time from the proposal of a log entry until it was committed.", ""},
		{"queue_seconds", "Time from the start of a stage until a task of it was leased for the first time.", ""},
		{"attempt_seconds", "Duration of successful attempts, as workers report it.", ""},
	} {
		var labels []string
		if d.label != "" {
			labels = []string{d.label}
		}
		c.descs[d.name] = metrics.Desc(d.name, d.help, labels...)
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
	gauge := func(name string, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, v, labels...)
	}
	c.collectNode(gauge)
	c.collectCluster(gauge)
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
	for status, v := range o.ended {
		count("jobs_ended_total", v, status)
	}
	for kind, v := range o.failed {
		count("attempts_failed_total", v, kind)
	}
	for cause, v := range o.quarantines {
		count("worker_quarantines_total", v, cause)
	}
	for kind, v := range o.dead {
		count("tasks_dead_total", v, kind)
	}
	for name, h := range map[string]*metrics.Histogram{
		"submit_seconds": &o.counts.submit, "commit_seconds": &o.commit, "queue_seconds": &o.queue, "attempt_seconds": &o.attempt,
	} {
		to <- h.Metric(c.descs[name])
	}
}

// collectNode is what each node knows by itself, and about the others.
func (c *collector) collectNode(gauge func(name string, v float64, labels ...string)) {
	cluster := c.node.Cluster()
	gauge("ready", oneIf(cluster.NotReady == ""))
	gauge("leading", oneIf(cluster.Node == cluster.Leader))
	_, age, _ := c.node.Status()
	gauge("age_seconds", float64(age)/1000)
	gauge("term", float64(cluster.Term))
	gauge("log_index", float64(cluster.Index))
	usage := c.node.cfg.Log.Usage()
	gauge("log_bytes", float64(usage.Log))
	gauge("log_disk_free_bytes", float64(usage.Free))
	byStatus := map[string]int{api.LeaderLeads: 0, api.LeaderFollows: 0, api.LeaderLearns: 0, api.LeaderSilent: 0, api.LeaderUnknown: 0}
	for _, l := range c.node.Leaders().Leaders {
		byStatus[l.Status]++
		id := strconv.FormatUint(l.ID, 10)
		gauge("leader_log_index", float64(l.Index), id)
		if l.Heard != nil {
			gauge("leader_heartbeat_age_seconds", ageSeconds(*l.Heard), id)
		}
	}
	for status, n := range byStatus {
		gauge("leaders", float64(n), status)
	}
}

// collectCluster is the state of the cluster, which each node knows.
func (c *collector) collectCluster(gauge func(name string, v float64, labels ...string)) {
	cluster := c.node.Cluster()
	gauge("jobs", float64(cluster.Jobs))
	open, running := c.node.views.Tasks()
	gauge("tasks", float64(open), "open")
	gauge("tasks", float64(running), "running")
	gauge("slots", float64(cluster.Slots))
	gauge("slots_free", float64(cluster.Free))
	byStatus := map[string]int{api.WorkerAlive: 0, api.WorkerDead: 0, api.WorkerDraining: 0, api.WorkerIdle: 0}
	queued, quarantined := uint32(0), map[string]int{}
	for _, cause := range leader.QuarantineCauses() {
		quarantined[cause.String()] = 0
	}
	workers := c.node.Workers()
	for i := range workers {
		w := &workers[i]
		byStatus[w.Status]++
		queued += w.Queued
		if w.Cause != "" {
			quarantined[w.Cause]++
		}
		if w.ID == 0 { // idle: not one of the cluster
			continue
		}
		id := strconv.FormatUint(w.ID, 10)
		gauge("worker_slots", float64(w.Slots), id)
		gauge("worker_slots_busy", float64(w.Busy), id)
		gauge("worker_attempts_queued", float64(w.Queued), id)
		gauge("worker_memory_bytes", float64(w.Memory), id)
		if !w.Seen.IsZero() {
			gauge("worker_heartbeat_age_seconds", ageSeconds(w.Seen), id)
		}
	}
	for status, n := range byStatus {
		gauge("workers", float64(n), status)
	}
	for cause, n := range quarantined {
		gauge("workers_quarantined", float64(n), cause)
	}
	gauge("attempts_queued", float64(queued))
}

func ageSeconds(t time.Time) float64 { return max(0, time.Since(t).Seconds()) }

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
