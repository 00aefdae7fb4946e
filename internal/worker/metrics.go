package worker

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/metrics"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// resultsMax is the number of results of an attempt: canceled, and one for each kind of failure; kind 0 is done.
const resultsMax = canceled + 1

const canceled = int(wire.FailureKind_OUTPUT_ERROR) + 1

// attemptCounts counts attempts that have ended.
type attemptCounts struct {
	results [resultsMax]uint64
	input   uint64 // bytes, of those that are done
	output  uint64
	seconds metrics.Histogram // of all
}

func (c *attemptCounts) add(r *core.Result) {
	result := 0
	switch {
	case r.Canceled:
		result = canceled
	case r.Failure != nil:
		result = int(r.Failure.GetKind())
	default:
		c.input += r.Input
		c.output += r.Size
	}
	c.results[result]++
	c.seconds.Observe(time.Duration(r.Nanos), 1)
}

// meters are the counts of a worker. Each slot adds to them once a chunk.
type meters struct {
	mu sync.Mutex
	attemptCounts
}

func (m *meters) add(c *attemptCounts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, n := range c.results {
		m.results[i] += n
	}
	m.input += c.input
	m.output += c.output
	m.seconds.Add(&c.seconds)
}

// Metrics serves Prometheus metrics of this worker, which the leader does not have: bridgefour_local_*.
func (w *Worker) Metrics() http.Handler { return metrics.Handler(w.cfg.Version, newCollector(w)) }

// collector turns the state and the counts of a worker into metrics when they are asked for.
type collector struct {
	worker                                                  *Worker
	connected, slots, busy, attempts, seconds, cpu, in, out *prometheus.Desc
}

func newCollector(w *Worker) *collector {
	return &collector{
		worker:    w,
		connected: metrics.Desc("local_connected", "1 while this worker has a leader."),
		slots:     metrics.Desc("local_slots", "Slots of this worker."),
		busy:      metrics.Desc("local_slots_busy", "Slots of this worker that run an attempt."),
		attempts:  metrics.Desc("local_attempts_total", "Attempts that ended on this worker, by result: done, canceled, or the kind of failure.", "result"),
		seconds:   metrics.Desc("local_attempt_seconds", "Duration of the attempts that ended on this worker."),
		cpu:       metrics.Desc("command_cpu_seconds_total", "CPU time of commands that have ended, with that of the processes that they started."),
		in:        metrics.Desc("local_input_bytes_total", "Bytes that successful attempts on this worker have read of their inputs."),
		out:       metrics.Desc("local_output_bytes_total", "Bytes that successful attempts on this worker have written."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	state, busy := c.worker.State(), 0
	for _, s := range state.Slots {
		if s.Running {
			busy++
		}
	}
	connected := 0
	if state.Connected {
		connected = 1
	}
	for desc, v := range map[*prometheus.Desc]int{c.connected: connected, c.slots: len(state.Slots), c.busy: busy} {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(v))
	}
	to <- prometheus.MustNewConstMetric(c.cpu, prometheus.CounterValue, keeper.CPUTime().Seconds())
	m := c.worker.meters
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, n := range m.results {
		result := strings.ToLower(wire.FailureKind(i).String())
		switch i {
		case 0:
			result = "done"
		case canceled:
			result = "canceled"
		}
		to <- prometheus.MustNewConstMetric(c.attempts, prometheus.CounterValue, float64(n), result)
	}
	to <- prometheus.MustNewConstMetric(c.in, prometheus.CounterValue, float64(m.input))
	to <- prometheus.MustNewConstMetric(c.out, prometheus.CounterValue, float64(m.output))
	to <- m.seconds.Metric(c.seconds)
}
