package node

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan struct{})
		h := early{begun, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })}
		ask := func(path string) (int, time.Duration) {
			start, w := time.Now(), httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			return w.Code, time.Since(start)
		}
		if code, took := ask("/healthz"); code != http.StatusTeapot || took > 0 {
			t.Errorf("/healthz before the start = %d after %v, want it passed on at once", code, took)
		}
		if code, took := ask("/v1/jobs/1"); code != http.StatusServiceUnavailable || took != earlyMax {
			t.Errorf("a read that waits in vain = %d after %v, want 503 after %v", code, took, earlyMax)
		}
		time.AfterFunc(time.Second, func() { close(begun) })
		if code, took := ask("/v1/jobs/1"); code != http.StatusTeapot || took != time.Second {
			t.Errorf("a read at the start = %d after %v, want it passed on after 1s", code, took)
		}
		if code, took := ask("/v1/jobs/1"); code != http.StatusTeapot || took > 0 {
			t.Errorf("a read after the start = %d after %v, want it passed on at once", code, took)
		}
	})
}
