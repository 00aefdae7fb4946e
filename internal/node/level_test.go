package node

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// fakePeers are other nodes, some of which may be behind.
type fakePeers struct {
	behind atomic.Bool
	asked  chan uint32 // room for one
	level  atomic.Uint32
}

func (p *fakePeers) Behind(level uint32) []uint64 {
	select {
	case p.asked <- level:
	default:
	}
	if p.behind.Load() {
		return []uint64{2}
	}
	return nil
}

func (p *fakePeers) SetLevel(level uint32, _ string) { p.level.Store(level) }

func TestFeatureLevelRisesOnceAllCanReadIt(t *testing.T) {
	log, peers := newFakeLog(), &fakePeers{asked: make(chan uint32, 1)}
	peers.behind.Store(true)
	r := startRig(t, log, func(c *Config) { c.Peers = peers })
	log.elect()
	for range 3 {
		if level := <-peers.asked; level != state.FeatureLevel {
			t.Fatalf("the leaders are asked for level %d, want %d", level, state.FeatureLevel)
		}
	}
	if got := r.node.Cluster().Level; got != 0 {
		t.Fatalf("feature level %d while a leader is behind, want 0", got)
	}
	peers.behind.Store(false)
	r.until("the level rises", func() bool {
		return r.node.Cluster().Level == state.FeatureLevel && peers.level.Load() == state.FeatureLevel
	})
}

// TestRequestsAwaitTheLevel: a request waits for a log that is slow to commit the level that it needs, but not for leaders that are behind.
func TestRequestsAwaitTheLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, peers := newFakeLog(), &fakePeers{asked: make(chan uint32, 1)}
		peers.behind.Store(true)
		r := startRig(t, log, func(c *Config) { c.Peers = peers })
		log.elect()
		r.leads()
		_, err := r.node.Lock(t.Context(), lockOf("h1", time.Hour, "a"))
		problemOf(t, err, http.StatusServiceUnavailable, "a lock needs feature level 2, and the cluster is at 0")

		log.hold()
		peers.behind.Store(false)
		locked := make(chan error, 1)
		go func() {
			_, err := r.node.Lock(t.Context(), lockOf("h1", time.Hour, "a"))
			locked <- err
		}()
		time.Sleep(2 * electionWait)
		select {
		case err := <-locked:
			t.Fatalf("Lock() = %v before the level is committed", err)
		default:
		}
		log.release()
		if err := <-locked; err != nil {
			t.Errorf("Lock() = %v", err)
		}
	})
}
