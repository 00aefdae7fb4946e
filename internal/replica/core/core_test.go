package core

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// coreRig is a lone core in virtual time, whose batches and deliveries are acknowledged when the test says so.
type coreRig struct {
	t       *testing.T
	core    *Core
	now     time.Time
	persist *Batch // handed out and not acknowledged
	queue   []Delivery
	answers map[Ref]Answer
	last    *Effects
}

func newCoreRig(t *testing.T) *coreRig {
	t.Helper()
	c, err := New(Config{
		ID: 1, Tick: time.Millisecond, ElectionTicks: rigElection, HeartbeatTicks: rigHeartbeat, Start: Beginning(voters(1)),
		SnapshotBytes: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &coreRig{t: t, core: c, now: time.Unix(1, 0), answers: map[Ref]Answer{}}
	r.step()
	for !c.Status().Leader {
		r.settle()
	}
	r.settle()
	return r
}

func (r *coreRig) step(inputs ...Input) {
	r.t.Helper()
	e, err := r.core.Step(r.now, inputs...)
	if err != nil {
		r.t.Fatal(err)
	}
	if e.Persist != nil && r.persist != nil {
		r.t.Fatal("a batch is handed out while another one is under way")
	}
	if e.Persist != nil {
		r.persist = e.Persist
	}
	if !e.Wake.After(r.now) {
		r.t.Fatalf("Wake = %v at %v, want later", e.Wake, r.now)
	}
	r.queue = append(r.queue, e.Deliveries...)
	for _, a := range e.Answers {
		r.answers[a.Ref] = a
	}
	r.last = e
}

// settle acknowledges everything.
func (r *coreRig) settle() {
	r.t.Helper()
	for r.persist != nil || len(r.queue) > 0 {
		if r.persist != nil {
			r.persist = nil
			r.step(Persisted{})
			continue
		}
		r.queue = r.queue[1:]
		r.step(Delivered{})
	}
}

// pass lets time pass, one tick after the other.
func (r *coreRig) pass(ticks int) {
	r.t.Helper()
	for range ticks {
		r.now = r.last.Wake
		r.step()
	}
}

func TestOneBatchAtATime(t *testing.T) {
	r := newCoreRig(t)
	r.step(Propose{Ref: 1, Data: [][]byte{{1}}})
	if r.persist == nil || r.answers[1].Err != nil {
		t.Fatalf("batch %v, answer %+v, want a batch and no error", r.persist, r.answers[1])
	}
	r.step(Propose{Ref: 2, Data: [][]byte{{2}}}, Propose{Ref: 3, Data: [][]byte{{3}}}) // gather in the next batch
	r.persist = nil
	r.step(Persisted{})
	if r.persist == nil || r.persist.Bytes != 2 {
		t.Fatalf("next batch %+v, want both entries", r.persist)
	}
	r.settle()
	if s := r.core.Status(); s.Applied != s.Last {
		t.Errorf("applied %d of %d", s.Applied, s.Last)
	}
}

func TestHungDiskIsReportedOnce(t *testing.T) {
	r := newCoreRig(t)
	r.step(Propose{Ref: 1, Data: [][]byte{{1}}})
	reports, since := 0, r.core.Status().Writing
	for range 5 * rigElection {
		r.pass(1)
		if now := r.core.Status().Writing; now != since || since.IsZero() {
			t.Fatalf("the disk writes since %v, want %v", now, since)
		}
		if r.last.DiskHung > 0 {
			reports++
		}
	}
	if reports != 1 {
		t.Errorf("a hung disk is reported %d times, want once", reports)
	}
	if r.settle(); !r.core.Status().Writing.IsZero() {
		t.Error("the disk is written when all is done")
	}
}

func TestFullDiskRefusesProposals(t *testing.T) {
	r := newCoreRig(t)
	full := errors.New("full")
	r.step(DiskRoom{Full: full}, Propose{Ref: 1, Data: [][]byte{{1}}})
	if got := r.answers[1].Err; !errors.Is(got, full) || !r.last.Room {
		t.Errorf("Propose with a full disk = %v, room %v, want %v at once", got, r.last.Room, full)
	}
	if len(r.queue) != 1 || !errors.Is(r.queue[0].LogFull, full) {
		t.Errorf("deliveries %+v, want LogFull", r.queue)
	}
	r.step(DiskRoom{}, Propose{Ref: 2, Data: [][]byte{{1}}})
	if got := r.answers[2].Err; got != nil {
		t.Errorf("Propose with room again = %v", got)
	}
}

func TestSnapshotIsRequestedWhenTheLogHasGrown(t *testing.T) {
	r := newCoreRig(t)
	wanted := func() bool {
		n := 0
		for len(r.queue) > 0 || r.persist != nil {
			if len(r.queue) > 0 && r.queue[0].WantSnapshot {
				n++
			}
			if r.persist != nil {
				r.persist = nil
				r.step(Persisted{})
			} else {
				r.queue = r.queue[1:]
				r.step(Delivered{})
			}
		}
		return n > 0
	}
	grow := func(ref Ref) { r.step(Propose{Ref: ref, Data: [][]byte{make([]byte, 1100)}}) }
	grow(1)
	if !wanted() {
		t.Fatal("no snapshot is requested")
	}
	index := r.core.Status().Applied
	r.step(BeginSnapshot{Ref: 2, Index: index})
	r.step(BeginSnapshot{Ref: 3, Index: index})
	if r.answers[2].Err != nil || r.answers[3].Err == nil {
		t.Errorf("BeginSnapshot = %v, then %v, want one at a time", r.answers[2].Err, r.answers[3].Err)
	}
	r.step(RecordSnapshot{Ref: 4, Position: r.answers[2].Position})
	if r.persist == nil || r.persist.Snapshot == nil {
		t.Fatalf("batch %+v, want the record of the snapshot", r.persist)
	}
	r.settle()
	if got := r.answers[4].Snapshots; len(got) != 1 || got[0].Index != index {
		t.Errorf("snapshots to keep = %v, want one at %d", got, index)
	}
	r.step(EndSnapshot{})
	if wanted() {
		t.Error("another one is requested, though the log has not grown")
	}
	grow(5)
	if !wanted() {
		t.Error("none is requested after more growth")
	}
}

func TestReadsShareARoundAndCanBeCanceled(t *testing.T) {
	r := newCoreRig(t)
	r.step(Propose{Ref: 1, Data: [][]byte{{1}}})
	r.settle()
	r.step(ReadIndex{Ref: 2}, ReadIndex{Ref: 3})
	for _, ref := range []Ref{2, 3} {
		if got, want := r.answers[ref].Index, r.core.Status().Committed; got != want {
			t.Errorf("read %d = %d, want %d", ref, got, want)
		}
	}
	// One member of two: nothing confirms reads.
	c, err := New(Config{ID: 1, Tick: time.Millisecond, ElectionTicks: rigElection, HeartbeatTicks: rigHeartbeat, Start: Beginning(voters(1, 2))})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * rigElection {
		inputs := []Input{ReadIndex{Ref: Ref(i)}, Cancel{Ref: Ref(i)}}
		if _, err := c.Step(time.Unix(1, int64(i)*int64(time.Millisecond)), inputs...); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.reads.waiting) + len(c.reads.round) + len(c.canceled); n > 2*2 {
		t.Errorf("%d canceled reads are remembered", n)
	}
}

func TestBrokenInvariantIsAnError(t *testing.T) {
	_, err := New(Config{
		ID: 1, Tick: time.Millisecond, ElectionTicks: rigElection, HeartbeatTicks: rigHeartbeat, Start: Beginning(voters(1, 2)),
		State: &raftpb.HardState{Term: new(uint64(5)), Vote: new(uint64(0)), Commit: new(uint64(100))}, // of entries that are not there
	})
	if _, ok := errors.AsType[InvariantError](err); !ok {
		t.Errorf("New() = %v, want an InvariantError", err)
	}
}
