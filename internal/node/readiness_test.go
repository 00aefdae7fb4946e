package node

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntilBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan struct{})
		h := untilBegun{begun, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })}
		ask := func(path string) (int, time.Duration) {
			start, w := time.Now(), httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			return w.Code, time.Since(start)
		}
		if code, took := ask("/healthz"); code != http.StatusTeapot || took > 0 {
			t.Errorf("/healthz before the start = %d after %v, want it passed on at once", code, took)
		}
		if code, took := ask("/v1/jobs/1"); code != http.StatusServiceUnavailable || took != beginWait {
			t.Errorf("a read that is not served = %d after %v, want 503 after %v", code, took, beginWait)
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

func TestNotReady(t *testing.T) {
	rigs := newRigs(t, 2)
	leads, follows := rigs[0].node, rigs[1].node
	if why := leads.NotReady(); why != "" {
		t.Errorf("NotReady() of the leader = %q, want that it is ready", why)
	}
	if why := follows.NotReady(); why != "" {
		t.Errorf("NotReady() of a follower = %q, want that it is ready", why)
	}
	rigs[0].log.fill(true)
	rigs[0].until("a full log", func() bool { return leads.NotReady() != "" })
	if why := leads.NotReady(); !strings.Contains(why, "no room") && !strings.Contains(why, "full") {
		t.Errorf("NotReady() with a full log = %q", why)
	}
	rigs[0].log.depose()
	rigs[1].until("no leader", func() bool { return strings.Contains(follows.NotReady(), "no leader is known") })
}
