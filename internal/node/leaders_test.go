package node

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestLeadersAndConsensus(t *testing.T) {
	rigs := newRigs(t, 3)
	rigs[0].log.setMembers(func(m *replica.Members) {
		m.List = append(slices.Clone(m.List), replica.Member{ID: 4, Address: "far:4"}) // has not come yet
	})
	submit(t, rigs[0].node, request(1), "")
	for _, r := range rigs {
		r.caughtUp()
		var list api.LeaderList
		r.until("all leaders", func() bool {
			list = r.node.Leaders()
			return len(list.Leaders) == 4 && list.Leaders[2].Index > 0 && list.Leaders[1].Index > 0
		})
		if list.Cluster != "c1" || list.Name != "test" || list.Term != 1 {
			t.Errorf("Leaders() at %d = %+v", r.log.id, list)
		}
		for i, want := range []string{api.LeaderLeads, api.LeaderFollows, api.LeaderFollows, api.LeaderSilent} {
			n := list.Leaders[i]
			if n.Status != want || n.Self != (n.ID == r.log.id) || n.Votes != (n.ID < 4) || (n.Heard == nil) != (n.ID == 4) {
				t.Errorf("Leaders() at %d: %+v, want it %s", r.log.id, n, want)
			}
		}
		c := r.node.Consensus()
		if role := map[bool]string{true: "Leader", false: "Follower"}[r.log.id == 1]; c.ID != r.log.id || c.Role != role || c.Leader == nil || *c.Leader != 1 {
			t.Errorf("Consensus() at %d = %+v", r.log.id, c)
		}
		if len(c.Peers) != 3 || c.Peers[2] != (api.Peer{ID: 4, Host: "far", Port: 4}) || c.LastHeartbeat == nil || (c.VotedFor == nil) == (r.log.id == 1) {
			t.Errorf("Consensus() at %d = %+v", r.log.id, c)
		}
	}
	rigs[0].log.depose()
	rigs[1].until("no node leads", func() bool { return rigs[1].node.Cluster().Leader == 0 })
	for i, n := range rigs[1].node.Leaders().Leaders {
		if want := map[bool]string{true: api.LeaderFollows, false: api.LeaderUnknown}[i == 1]; n.Status != want {
			t.Errorf("Leaders() while none leads: %+v, want it %s", n, want)
		}
	}
}

func TestAddLeader(t *testing.T) {
	log := newFakeLog()
	invite := func(_ context.Context, address string) error {
		switch address {
		case "refuses:1":
			return errTest
		case "explains:1":
			return api.Conflict("it is in use")
		case "alias:1": // is known by another name
			log.setMembers(func(m *replica.Members) {
				m.List = append(slices.Clone(m.List), replica.Member{ID: 2, Address: "real:1"})
			})
		}
		return nil
	}
	r := startRig(t, log, func(c *Config) { c.InviteLeader = invite })
	log.elect()
	ctx := t.Context()
	n, err := r.node.AddLeader(ctx, "alias:1")
	if err != nil || n.ID != 2 || n.Address != "real:1" || n.Votes {
		t.Errorf("AddLeader() = %+v, %v, want leader 2", n, err)
	}
	if n, err = r.node.AddLeader(ctx, "real:1"); err != nil || n.ID != 2 {
		t.Errorf("AddLeader() of one that is there = %+v, %v, want leader 2", n, err)
	}
	_, err = r.node.AddLeader(ctx, "refuses:1")
	problemOf(t, err, http.StatusConflict, "invite the leader at refuses:1: said the test")
	_, err = r.node.AddLeader(ctx, "explains:1")
	problemOf(t, err, http.StatusConflict, "it is in use")
	gone, leave := context.WithCancel(ctx)
	added := make(chan error, 1)
	go func() {
		_, err := r.node.AddLeader(gone, "never:1")
		added <- err
	}()
	leave()
	if err := <-added; !errors.Is(err, context.Canceled) {
		t.Errorf("AddLeader() of a client that has left = %v", err)
	}
	_, err = newRig(t).node.AddLeader(ctx, "h:1")
	problemOf(t, err, http.StatusConflict, "cannot invite leaders")
}

func TestRemoveLeader(t *testing.T) {
	rigs := newRigs(t, 3)
	l := rigs[0].node
	problemOf(t, l.RemoveLeader(t.Context(), 9, false), http.StatusNotFound, "no leader 9")
	problemOf(t, l.RemoveLeader(t.Context(), 3, false), http.StatusConflict, "arithmetic of the test")
	for range 2 { // again, because the answer was lost
		if err := l.RemoveLeader(t.Context(), 3, true); err != nil {
			t.Errorf("RemoveLeader() = %v", err)
		}
	}
	rigs[1].until("it is gone", func() bool { return rigs[1].node.Cluster().Leaders == 2 })
	notLeaderOf(t, l.RemoveLeader(t.Context(), 1, true)) // it hands over
}

func TestInviteWorker(t *testing.T) {
	var r *rig
	idle := []api.Worker{{ID: 9, Identity: "bob", Address: "127.0.0.1:9", Status: "?"}, {Identity: "alice", Address: "127.0.0.1:7", Slots: 2}}
	invite := func(_ context.Context, address string, _ *uint64) error {
		switch address {
		case "localhost:7": // alice, who says no address when she registers
			r.worker("alice", nil) //nolint:contextcheck // a worker of the test lives as long as that
			return nil
		case "127.0.0.1:8":
			return errTest
		}
		return nil
	}
	r = startRig(t, newFakeLog(), func(c *Config) {
		c.InviteWorker, c.IdleWorkers = invite, func() []api.Worker { return idle }
	})
	r.log.elect()
	r.leads()
	list := r.node.Workers()
	if len(list) != 2 || list[0].Identity != "alice" || list[0].Status != api.WorkerIdle || list[1].ID != 0 || list[1].Status != api.WorkerIdle {
		t.Errorf("Workers() = %+v, want two idle ones by address", list)
	}
	if c := r.node.Cluster(); c.Workers != 0 || c.Slots != 0 {
		t.Errorf("Cluster() = %+v: idle workers are none of it", c)
	}
	for range 2 { // the second time she is there
		if w, err := r.node.InviteWorker(t.Context(), "localhost:7", nil); err != nil || w.ID != 1 || w.Status != api.WorkerAlive {
			t.Errorf("InviteWorker() = %+v, %v, want worker 1", w, err)
		}
	}
	if list = r.node.Workers(); len(list) != 2 || list[0].ID != 1 || list[1].Identity != "bob" {
		t.Errorf("Workers() = %+v, want worker 1 and an idle one", list)
	}
	_, err := r.node.InviteWorker(t.Context(), "127.0.0.1:8", nil)
	problemOf(t, err, http.StatusConflict, "invite the worker at 127.0.0.1:8: said the test")
	invited := make(chan error, 1)
	go func() {
		_, err := r.node.InviteWorker(t.Context(), "127.0.0.1:9", nil)
		invited <- err
	}()
	carol := r.worker("carol", nil) // not who was invited
	<-carol.welcomed
	carol.hello(&wire.Hello{Identity: "dave", Incarnation: "d", Slots: 1, Address: "127.0.0.1:9"})
	if err := <-invited; err != nil {
		t.Errorf("InviteWorker() = %v", err)
	}
	_, err = newRig(t).node.InviteWorker(t.Context(), "h:1", nil)
	problemOf(t, err, http.StatusConflict, "cannot invite workers")
}
