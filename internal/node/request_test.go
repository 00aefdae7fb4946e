package node

import (
	"errors"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// A leader is deposed while a submit is in flight. The client is told that the next leader has committed it, that it is lost for certain, or
// that the outcome is unknown.
func TestSubmitWhileLeadershipIsLost(t *testing.T) {
	t.Parallel()
	type answer struct {
		id  uint64
		err error
	}
	begin := func(t *testing.T, n int) ([]*rig, chan answer) {
		t.Helper()
		rigs := newRigs(t, n)
		submit(t, rigs[0].node, request(1), "before")
		// Otherwise the entry that raises the level may be the one that the next leader keeps.
		rigs[0].until("at the highest level", func() bool { return rigs[0].node.Cluster().Level == state.FeatureLevel })
		rigs[0].log.hold()
		got := make(chan answer, 1)
		go func() {
			id, _, err := rigs[0].node.Submit(t.Context(), request(1), "key")
			got <- answer{id, err}
		}()
		rigs[0].asked(1)
		return rigs, got
	}
	t.Run("committed by the next leader", func(t *testing.T) {
		rigs, got := begin(t, 3)
		rigs[1].log.elect(1)
		if a := <-got; a.err != nil || a.id != 2 {
			t.Errorf("Submit() = job %d, %v, want job 2", a.id, a.err)
		}
		again := submit(t, rigs[1].node, request(1), "key")
		if again.ID != 2 {
			t.Errorf("the same submit at the next leader made job %d, want 2", again.ID)
		}
	})
	t.Run("lost", func(t *testing.T) {
		rigs, got := begin(t, 3)
		rigs[1].log.elect()
		a := <-got
		problemOf(t, a.err, http.StatusServiceUnavailable, "was not carried out")
		notLeaderOf(t, a.err)
		rigs[1].until("leading", func() bool { _, self := rigs[1].node.LeaderAddress(); return self })
		if job := submit(t, rigs[1].node, request(1), "key"); job.ID != 2 {
			t.Errorf("the same submit at the next leader made job %d, want 2", job.ID)
		}
	})
	t.Run("lost, and leading again", func(t *testing.T) {
		rigs, got := begin(t, 3)
		rigs[0].log.elect()
		a := <-got
		notLeaderOf(t, a.err)
		if job := submit(t, rigs[0].node, request(1), "key"); job.ID != 2 {
			t.Errorf("the same submit in the next term made job %d, want 2", job.ID)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		rigs, got := begin(t, 3)
		rigs[0].log.depose()
		a := <-got
		unknownOf(t, a.err)
	})
	t.Run("the process ends", func(t *testing.T) {
		rigs, got := begin(t, 1)
		rigs[0].end()
		a := <-got
		unknownOf(t, a.err)
	})
}

func TestLeadershipIsLost(t *testing.T) {
	r := startRig(t, newFakeLog())
	r.log.elect()
	w := r.worker("alice", nil)
	<-w.welcomed
	submit(t, r.node, request(2), "")
	r.log.hold()
	stopped := make(chan error, 1)
	go func() {
		stopped <- r.node.Stop(t.Context(), 1)
	}()
	r.asked(1)
	r.log.depose()
	if err := <-w.ended; status.Code(err) != codes.Unavailable {
		t.Errorf("the worker's session ended with %v, want Unavailable", err)
	}
	_, _, err := r.node.Submit(t.Context(), request(1), "")
	problemOf(t, err, http.StatusServiceUnavailable, "does not lead")
	_, err = r.node.Tasks(t.Context(), 1, api.TaskQuery{Limit: 1})
	problemOf(t, err, http.StatusServiceUnavailable, "does not lead")
	if c := r.node.Cluster(); c.NotReady == "" {
		t.Errorf("Cluster() = %+v, want the reason why nothing is accepted", c)
	}
	// A command that arrives after leadership was lost is answered as well.
	answer := make(chan outcome, 1)
	r.node.inputs <- message{in: leader.Command{Key: "late", Add: func(*state.Entry) {}}, answer: answer}
	if got := <-answer; !errors.Is(got.err, errNotDone) {
		t.Errorf("a request of a node that does not lead came to %v, want %v", got.err, errNotDone)
	}
	early := r.worker("early", nil)
	if err := <-early.ended; status.Code(err) != codes.Unavailable {
		t.Errorf("a worker at a node that does not lead was told %v, want Unavailable", err)
	}
	// It leads again, too late for the stop, whose outcome is unknown; the job exists and its attempt continues.
	unknownOf(t, <-stopped)
	r.log.elect()
	r.until("leading", func() bool { return r.node.Cluster().Term == 2 })
	r.worker("alice", finishAll)
	r.worker("bob", finishAll)
	if job := finished(t, r.node, 1); job.Status != api.JobDone {
		t.Errorf("finished: %+v, want it done", job)
	}
}
