package node

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestMetrics(t *testing.T) {
	r := newRig(t)
	r.worker("alice", func(s *scripted, w *wire.Leases) *wire.Report {
		if w.GetJob() == 2 {
			return failAll(s, w)
		}
		report := finishEmpty(s, w)
		report.Finished[0].Micros = slices.Repeat([]uint64{1500}, len(w.GetIndex()))
		return report
	})
	finished(t, r.node, submit(t, r.node, request(3), "").ID)
	finished(t, r.node, submit(t, r.node, request(2), "").ID)
	w := httptest.NewRecorder()
	r.node.Metrics().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	for _, line := range []string{
		"bridgefour_ready 1", "bridgefour_leading 1", `bridgefour_workers{status="alive"} 1`, "bridgefour_worker_sessions_total 1",
		"bridgefour_jobs_submitted_total 2", `bridgefour_jobs_ended_total{status="done"} 1`, `bridgefour_jobs_ended_total{status="failed"} 1`,
		"bridgefour_attempts_leased_total 5", "bridgefour_queue_seconds_count 5", "bridgefour_submit_seconds_count 2", `bridgefour_tasks{status="open"} 0`, "bridgefour_tasks_done_total 3", `bridgefour_tasks_dead_total{kind="bad_input"} 2`, `bridgefour_tasks_dead_total{kind="timeout"} 0`,
		`bridgefour_attempts_failed_total{kind="bad_input"} 2`, `bridgefour_workers_quarantined{cause="slow"} 0`, `bridgefour_worker_quarantines_total{cause="failing"} 0`,
		`bridgefour_attempt_seconds_bucket{le="0.001024"} 0`, `bridgefour_attempt_seconds_bucket{le="0.004096"} 3`, "bridgefour_attempt_seconds_sum 0.0045", "bridgefour_attempt_seconds_count 3",
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("/metrics has no line %s", line)
		}
	}
	if strings.Contains(w.Body.String(), "bridgefour_commit_seconds_count 0\n") {
		t.Error("/metrics counts no committed entry")
	}
	if strings.Contains(w.Body.String(), "etcd_disk_wal_write_bytes_total") {
		t.Error("/metrics has a gauge with the name of a counter")
	}
	if t.Failed() {
		for line := range strings.Lines(w.Body.String()) {
			if strings.HasPrefix(line, "bridgefour_") {
				t.Log(line)
			}
		}
	}
}
