package core

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Ref names a request; its answer carries it. The caller chooses them, each once.
type Ref uint64

// Input is an event or a request for a core.
type Input interface{ input() }

// The inputs.
type (
	// Receive is a message of another member. With a MsgSnap its file must be durable.
	Receive struct{ Message *raftpb.Message }
	// Propose appends Data to the log, in order, one entry each, all or none. Answer: Err is ErrNotLeader, or why the log is full; then
	// nothing is in the log. It may be sent only while Effects.Room is set.
	Propose struct {
		Ref  Ref
		Data [][]byte
	}
	// ReadIndex requests the index that must have been applied before a read is linearizable. It is retried until it is answered or canceled.
	ReadIndex struct{ Ref Ref }
	// ChangeMembers changes the members. Answer: Member is the member as it is then.
	ChangeMembers struct {
		Ref    Ref
		Change Change
		Force  bool // also when too few members that answer would be left
	}
	// Transfer hands leadership to the most up-to-date voter that answers. Answered without an error when this node does not lead.
	Transfer struct{ Ref Ref }
	// Cancel drops a request whose answer is not needed any more.
	Cancel struct{ Ref Ref }

	// Persisted acknowledges that the batch under way is durable.
	Persisted struct{}
	// Delivered acknowledges that the oldest delivery has reached the consumer.
	Delivered struct{}
	// DiskRoom reports that there is no room for the log, for the reason Full, or (nil) that there is again.
	DiskRoom struct{ Full error }

	// ReportSnapshot is the outcome of the MsgSnap last sent to a member.
	ReportSnapshot struct {
		To uint64
		OK bool
	}
	// ReportUnreachable reports that messages to a member were lost.
	ReportUnreachable struct{ To uint64 }

	// BeginSnapshot requests the position of a snapshot of the state after the entry at Index, which must have been delivered. Answer:
	// Position. There is one at a time, until EndSnapshot or an error.
	BeginSnapshot struct {
		Ref   Ref
		Index uint64
	}
	// RecordSnapshot has the snapshot at Position, whose file is durable, recorded in the log. Answer: Snapshots are those to keep,
	// newest first; none when a snapshot of the leader has overtaken it.
	RecordSnapshot struct {
		Ref      Ref
		Position Position
	}
	// EndSnapshot lets another snapshot begin.
	EndSnapshot struct{ Failed bool }
)

func (Receive) input()           {}
func (Propose) input()           {}
func (ReadIndex) input()         {}
func (ChangeMembers) input()     {}
func (Transfer) input()          {}
func (Cancel) input()            {}
func (Persisted) input()         {}
func (Delivered) input()         {}
func (DiskRoom) input()          {}
func (ReportSnapshot) input()    {}
func (ReportUnreachable) input() {}
func (BeginSnapshot) input()     {}
func (RecordSnapshot) input()    {}
func (EndSnapshot) input()       {}

// Effects is what the driver must do after a step. Entries and messages must not be changed.
type Effects struct {
	// Persist must be made durable and then acknowledged with Persisted; nil: nothing. There is one at a time.
	Persist *Batch
	// LastMessages go out first, then Members are given to the transport (nil: unchanged), then Messages go out. Messages may be lost, but the
	// loss of a MsgSnap must be reported by ReportSnapshot.
	LastMessages []*raftpb.Message
	Members      *Members
	Messages     []*raftpb.Message
	// Deliveries follow those of earlier steps; each is to be acknowledged with Delivered, in order.
	Deliveries []Delivery
	Answers    []Answer

	Room     bool          // Propose may be sent
	Refused  []error       // why messages were refused; they have changed nothing
	Accepted []Position    // snapshots of the leader that are going to be recorded: their files must be kept
	DiskHung time.Duration // the batch under way has taken so long, and leadership is given up if possible; set once
	Removed  bool          // this member was removed, and that is on its disk
	Wake     time.Time     // step again at this time, if not earlier
}

// Batch is what must be made durable at once: its saves in order, then the record of the snapshot.
type Batch struct {
	Saves     []*raftpb.Message
	Bytes     int64     // of the entries
	Installed *Position // the last snapshot of the leader in Saves, without its members; nil: none
	Snapshot  *Position // a snapshot of this node to record; nil: none
	Keep      uint64    // with Snapshot: the log is needed from this entry on
}

// Delivery is one event for the consumer; one of its fields (with LogFull, one of two) is set.
type Delivery struct {
	Entries      []Entry   // committed, and on this node's disk
	Role         *Role     // changed
	Snapshot     *Position // the state to start from, in place of the entries up to it
	WantSnapshot bool      // begin a snapshot soon
	LogFull      error     // there is no room for the log, until LogRoom
	LogRoom      bool

	index     uint64 // applied once delivered; 0: unchanged
	responses []*raftpb.Message
}

// silent deliveries are for raft only.
func (d *Delivery) silent() bool {
	return len(d.Entries) == 0 && d.Role == nil && d.Snapshot == nil && !d.WantSnapshot && d.LogFull == nil && !d.LogRoom
}

// Entry is one proposal that is committed.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// Role is what a node is in a term. Leader is set once every entry of earlier terms has been delivered; LeaderID is 0 while no
// leader is known.
type Role struct {
	Leader   bool
	Term     uint64
	LeaderID uint64
}

// Answer is the outcome of the request Ref. Which fields are set depends on the request.
type Answer struct {
	Ref       Ref
	Err       error
	Index     uint64
	Member    Member
	Position  Position
	Snapshots []Position
}

// The values of Status.Role.
const (
	RoleLeader    = "Leader"
	RoleFollower  = "Follower"
	RoleCandidate = "Candidate"
)

// Status is the state of a member at one moment.
type Status struct {
	ID        uint64
	Term      uint64
	Leader    bool
	LeaderID  uint64
	Committed uint64 // index
	Applied   uint64 // index up to which entries were delivered
	Last      uint64 // index of the last entry, durable or not
	LogFull   error  // why there is no room for the log

	Role       string       // "Leader", "Follower" or "Candidate"; a leader that is not ready yet is one here already
	VotedFor   uint64       // in this term; 0: none
	Heard      time.Time    // the leader's last valid message; zero: none
	Writing    time.Time    // since when the disk of the log has been writing a batch; zero: it is not
	Campaigned time.Time    // the last election that this node stood in or saw; zero: none
	Peers      []PeerStatus // on the leader, of the others, by ID
}

// PeerStatus is what a leader knows of another member.
type PeerStatus struct {
	ID     uint64
	Match  uint64 // its log is the leader's up to this index
	Heard  time.Time
	Active bool // heard from within an election time
}
