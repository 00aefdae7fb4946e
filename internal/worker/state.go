package worker

// State is what a worker looks like from outside.
type State struct {
	Worker    uint64 // its number; 0: never welcomed yet
	Connected bool   // it has a leader
	Leader    string // the address of its leader; empty: it has none
	Term      uint64 // of its leader
	Cluster   string // the name of its cluster, as the last leader said
	ClusterID string // the cluster that it belongs to, or was told to join; empty: none yet
	Reason    string // why it has no leader, for people; empty: it has one, or has just begun to look
	Refused   bool   // because a leader will not have it as it is
	Slots     []SlotState
}

// tie is what is told of a worker and its leader.
type tie struct {
	leader, cluster, clusterID, reason string
	term                               uint64
	refused                            bool
}

// SlotState is one slot. While it does not run, only ID counts.
type SlotState struct {
	ID      int
	Running bool
	Job     uint64
	Stage   string
	Index   uint64
	Attempt uint32
	Lease   uint64
}

// State gives a snapshot; it is safe for concurrent use.
func (w *Worker) State() State {
	t := w.tie.Load()
	return State{
		Worker: w.number.Load(), Connected: t.leader != "", Leader: t.leader, Term: t.term, Cluster: t.cluster,
		ClusterID: t.clusterID, Reason: t.reason, Refused: t.refused, Slots: w.Slots(),
	}
}

// Slots gives what each slot does now; it is safe for concurrent use.
func (w *Worker) Slots() []SlotState {
	states := make([]SlotState, len(w.slots))
	for i, s := range w.slots {
		states[i].ID = i
		ch := s.now.Load()
		if ch == nil {
			continue
		}
		at, ok := ch.Running()
		if !ok || at >= ch.Len() {
			continue
		}
		states[i] = SlotState{
			ID: i, Running: true, Job: ch.Job.GetId(), Stage: ch.StageName(), Index: ch.Index[at],
			Attempt: ch.AttemptNumber(at), Lease: ch.Lease(at),
		}
	}
	return states
}
