package cli

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWorkerMetrics(t *testing.T) {
	w := httptest.NewRecorder()
	workerMetrics().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	got := w.Body.String()
	if !strings.Contains(got, "\ngo_goroutines ") || !strings.Contains(got, "\nbridgefour_command_cpu_seconds_total ") || strings.Contains(got, "etcd_") {
		t.Errorf("/metrics of a worker = %s, want those of Go and of commands, and none of etcd", got)
	}
}
