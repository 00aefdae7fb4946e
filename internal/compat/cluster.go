package compat

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// clusterState is the original's ClusterState.
type clusterState struct {
	Status  typed                  `json:"status"`
	Workers map[uint64]workerState `json:"workers"`
	Slots   slotCounts             `json:"slots"`
}

// workerState is the original's WorkerState: a worker without slots is dead.
type workerState struct {
	ID     uint64      `json:"id"`
	Slots  []slotState `json:"slots"`
	Status typed       `json:"status"`
}

type slotState struct {
	ID     int   `json:"id"`
	Status typed `json:"status"`
}

type slotCounts struct {
	Open  uint64 `json:"open"`
	Total uint64 `json:"total"`
}

func (s system) cluster(*http.Request, func(any) error) (any, error) {
	workers := s.node.Workers()
	ids := newWorkerIDs(workers)
	out := clusterState{Status: clusterStatus(s.node.Cluster().Status), Workers: make(map[uint64]workerState, len(workers))}
	for i := range workers {
		w := &workers[i]
		if w.Status == api.WorkerIdle {
			continue // the original knows members only
		}
		if w.Status != api.WorkerDead {
			out.Slots.Total += uint64(w.Slots)
			out.Slots.Open += uint64(w.Slots - min(w.Busy, w.Slots))
		}
		out.Workers[ids.of(w.ID)] = stateOf(w, ids)
	}
	return out, nil
}

// workerIDs is the ids of workers on these routes: what a worker claims, else its number.
type workerIDs struct {
	byNumber map[uint64]uint64
	claimed  map[uint64]bool
}

func newWorkerIDs(workers []api.Worker) workerIDs {
	ids := workerIDs{map[uint64]uint64{}, map[uint64]bool{}}
	for i := range workers {
		if w := &workers[i]; w.Claim != nil {
			ids.byNumber[w.ID], ids.claimed[*w.Claim] = *w.Claim, true
		}
	}
	return ids
}

// beyondClaims is added to the number of a worker if another one claims that.
const beyondClaims = 1_000_000

// of returns the id of the worker with a number, which may be gone.
func (ids workerIDs) of(number uint64) uint64 {
	if id, ok := ids.byNumber[number]; ok {
		return id
	}
	for ids.claimed[number] {
		number += beyondClaims
	}
	return number
}

// stateOf is a worker in the original's form.
func stateOf(w *api.Worker, ids workerIDs) workerState {
	state := workerState{ID: ids.of(w.ID), Status: workerStatus(w.Status), Slots: []slotState{}}
	if w.Status == api.WorkerDead {
		return state
	}
	slots := make([]string, w.Slots)
	copy(slots, w.SlotStatus)
	unreported := int(w.Busy) // attempts
	for _, status := range slots {
		if status == api.SlotRunning {
			unreported--
		}
	}
	for i := 0; i < len(slots) && unreported > 0; i++ {
		if slots[i] != api.SlotRunning {
			slots[i] = api.SlotRunning
			unreported--
		}
	}
	state.Slots = slotStates(slots)
	return state
}

func slotStates(status []string) []slotState {
	slots := make([]slotState, len(status))
	for i := range slots {
		slots[i] = slotState{ID: i, Status: slotStatus(status[i])}
	}
	return slots
}

// workerConfig is the original's WorkerConfig.
type workerConfig struct {
	ID     *int64 `json:"id"`
	Schema string `json:"schema"`
	Host   string `json:"host"`
	Port   int64  `json:"port"`
}

func (s system) addWorker(r *http.Request, body func(any) error) (any, error) {
	var in workerConfig
	if err := body(&in); err != nil {
		return nil, err
	}
	switch {
	case in.Schema != "" && in.Schema != "http" && in.Schema != "https": // the cluster decides
		return nil, api.Invalid("validation failed").With("body.schema", "expected http or https", nil)
	case in.Host == "":
		return nil, api.Invalid("validation failed").With("body.host", "expected the host that the worker listens on", nil)
	case in.Port < 1 || in.Port > 65535:
		return nil, api.Invalid("validation failed").With("body.port", "expected the port that the worker listens on", in.Port)
	case in.ID != nil && (*in.ID < 0 || *in.ID > api.WorkerIDMax):
		return nil, api.Invalid("validation failed").With("body.id", fmt.Sprintf("expected a number from 0 to %d", api.WorkerIDMax), *in.ID)
	}
	address := net.JoinHostPort(in.Host, strconv.FormatInt(in.Port, 10))
	if err := transport.CheckAddress(address); err != nil {
		return nil, api.Invalid("validation failed").With("body.host", err.Error(), nil)
	}
	var id *uint64
	if in.ID != nil {
		id = new(uint64(*in.ID))
	}
	worker, err := s.node.InviteWorker(r.Context(), address, id)
	if err != nil {
		return nil, err
	}
	return stateOf(&worker, newWorkerIDs(append(s.node.Workers(), worker))), nil
}

// removeWorker answers true, or false if there is no such worker.
func (s system) removeWorker(r *http.Request, _ func(any) error) (any, error) {
	id, err := pathNumber(r, "w")
	if err != nil {
		return nil, err
	}
	workers := s.node.Workers()
	ids := newWorkerIDs(workers)
	at := slices.IndexFunc(workers, func(w api.Worker) bool { return w.Status != api.WorkerIdle && ids.of(w.ID) == id })
	if at < 0 {
		return false, nil
	}
	err = s.node.RemoveWorker(r.Context(), workers[at].ID)
	if api.IsStatus(err, http.StatusNotFound) {
		return false, nil
	}
	if err != nil {
		return nil, err
	}
	return true, nil
}

// raftState is the original's RaftElectionState.
type raftState struct {
	OwnID              uint64              `json:"ownId"`
	Term               uint64              `json:"term"`
	OwnState           map[string]struct{} `json:"ownState"` // one key: Leader, Follower or Candidate
	VotedFor           *uint64             `json:"votedFor"`
	LastElectionEpoch  *int64              `json:"lastElectionEpoch"` // ms
	LastHeartbeatEpoch *int64              `json:"lastHeartbeatEpoch"`
	CurrentLeader      *uint64             `json:"currentLeader"`
	Peers              []raftPeer          `json:"peers"`
}

type raftPeer struct {
	ID     uint64 `json:"id"`
	Schema string `json:"schema"`
	Host   string `json:"host"`
	Port   int    `json:"port"`
}

// leaderID is the number of a leader as in LEADER_ID, which counts from 0.
func leaderID(number uint64) uint64 { return number - 1 }

func (s system) raft(*http.Request, func(any) error) (any, error) {
	c := s.node.Consensus()
	out := raftState{
		OwnID: leaderID(c.ID), Term: c.Term, OwnState: map[string]struct{}{c.Role: {}},
		LastElectionEpoch: epochMillis(c.LastElection), LastHeartbeatEpoch: epochMillis(c.LastHeartbeat),
		Peers: make([]raftPeer, 0, len(c.Peers)),
	}
	if c.VotedFor != nil {
		out.VotedFor = new(leaderID(*c.VotedFor))
	}
	if c.Leader != nil {
		out.CurrentLeader = new(leaderID(*c.Leader))
	}
	for _, p := range c.Peers {
		out.Peers = append(out.Peers, raftPeer{ID: leaderID(p.ID), Schema: "http", Host: p.Host, Port: p.Port})
	}
	return out, nil
}

func epochMillis(t *time.Time) *int64 {
	if t == nil {
		return nil
	}
	return new(t.UnixMilli())
}
