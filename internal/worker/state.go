package worker

// State is what a worker looks like from outside.
type State struct {
	Worker    uint64 // its number; 0: never welcomed yet
	Connected bool   // it has a leader
	Slots     []SlotState
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
	return State{Worker: w.number.Load(), Connected: w.connected.Load(), Slots: w.Slots()}
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
			ID: i, Running: true, Job: ch.Job.GetId(), Stage: ch.stageName(), Index: ch.Index[at],
			Attempt: ch.AttemptNumber(at), Lease: ch.Lease(at),
		}
	}
	return states
}
