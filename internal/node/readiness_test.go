package node

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
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

// TestNotReadyWhileNothingIsCommitted: a disk or followers that hang are reported, and the requests in flight are answered.
func TestNotReadyWhileNothingIsCommitted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.until("at the highest level", func() bool { return r.node.Cluster().Level == state.FeatureLevel })
	submit(t, r.node, request(1), "")
	r.log.hold()
	answer := make(chan error, 1)
	go func() {
		_, _, err := r.node.Submit(t.Context(), request(1), "key")
		answer <- err
	}()
	r.until("not ready", func() bool { return r.node.NotReady() != "" })
	const why = "nothing was committed for 3s while writes wait; the disk of this leader does not answer"
	if got := r.node.NotReady(); !strings.Contains(got, why) {
		t.Errorf("NotReady() = %q, want %q in it", got, why)
	}
	_, _, err := r.node.Submit(t.Context(), request(1), "")
	problemOf(t, err, http.StatusServiceUnavailable, why)
	problemOf(t, <-answer, http.StatusServiceUnavailable, "can be sent again at once")
	r.log.release()
	r.until("ready", func() bool { return r.node.NotReady() == "" })
	if job := submit(t, r.node, request(1), "key"); job.ID != 2 {
		t.Errorf("submitted again, the job is %d, want 2", job.ID)
	}
}

func TestStallCause(t *testing.T) {
	s := replica.Status{Last: 9, Peers: []replica.PeerStatus{{ID: 2, Match: 9}, {ID: 3, Match: 8}, {ID: 4}}}
	if got := stallCause(&s); !strings.Contains(got, "of the other leaders, 3, 4 have not stored") {
		t.Errorf("stallCause() = %q", got)
	}
}
