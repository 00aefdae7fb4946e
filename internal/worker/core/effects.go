package core

import (
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// Input is an event outside the core.
type Input interface{ input() }

// Received is a message on the session of that epoch.
type Received struct {
	Epoch   uint64
	Message *wire.ToWorker
}

// Sent reports that one message of a [Send] that was not urgent has been written to the stream.
type Sent struct{ Epoch uint64 }

// SessionEnded reports that a session ended or could not be opened. Refused: the leader rejects this worker as it is
// configured; Err then gives the reason, in words that are the same at each attempt. Removed: the key of this worker was revoked.
type SessionEnded struct {
	Epoch   uint64
	Err     error
	Refused bool
	Removed bool
}

// SlotIdle reports that a slot has finished its chunk.
type SlotIdle struct{ Slot int }

// Synced completes a [Sync]. Errs is nil, or has one entry per file, in the order of the request.
type Synced struct{ Errs []error }

// Discovered completes a [Discover] with addresses of leaders, and with the reason why the list may be incomplete.
type Discovered struct {
	Leaders []string
	Err     error
}

// Invite is a leader's request to join its cluster. [InviteAnswered] in the same step is the answer.
type Invite struct {
	Leaders     []string
	ClusterID   string
	ClusterName string
	Claim       uint64 // its id there, plus 1; 0: not given
}

// Drain requests a shutdown: return what has not started, finish what runs (StopRunning: cancel it), and exit.
type Drain struct{ StopRunning bool }

func (Received) input()     {}
func (Sent) input()         {}
func (SessionEnded) input() {}
func (SlotIdle) input()     {}
func (Synced) input()       {}
func (Discovered) input()   {}
func (Invite) input()       {}
func (Drain) input()        {}

// Effects is what the driver must do after a step.
type Effects struct {
	List []Effect  // in order
	Wake time.Time // step again by then, without an input if there is none; zero: not before the next input
}

// Effect is one thing that the driver must do.
type Effect interface{ effect() }

// Connect dials Leader and opens a session with Hello as its first message. It replaces the session before.
type Connect struct {
	Epoch  uint64
	Leader string
	Hello  *wire.Hello
}

// Disconnect ends the session of that epoch; no SessionEnded is needed.
type Disconnect struct{ Epoch uint64 }

// Send sends a message. An urgent one overtakes the others and is not acknowledged with [Sent].
type Send struct {
	Epoch   uint64
	Message *wire.FromWorker
	Urgent  bool
}

// Start gives a chunk to an idle slot.
type Start struct {
	Slot  int
	Chunk *Chunk
}

// Stop cancels the attempt that a slot runs. The rest of its chunk has been cut off already.
type Stop struct{ Slot int }

// AttemptRef names an attempt's file.
type AttemptRef struct {
	Job   *wire.Job
	Stage string
	Index uint64
	Lease uint64
}

// ToSync is a file to be fsynced.
type ToSync struct {
	AttemptRef
	Output uint64 // bytes of the files of all tasks of its stage, if each is as large
}

// Sync fsyncs files. At most one is under way.
type Sync struct{ Files []ToSync }

// Remove removes the files of attempts that lost; a missing file is no error.
type Remove struct{ Files []AttemptRef }

// RemoveStage removes the files of the attempts of a stage up to a lease.
type RemoveStage struct {
	Job   *wire.Job
	Stage string
	Lease uint64
}

// SendLog answers a leader's request for logs.
type SendLog struct{ Request *wire.LogRequest }

// Discover searches for leaders, of one cluster if ClusterID is not empty. At most one is under way.
type Discover struct{ ClusterID string }

// SaveMembership saves the worker's cluster and its leaders: at once if the cluster has changed, else soon.
type SaveMembership struct{ Membership Membership }

// Membership is the worker's cluster and the addresses of its leaders.
type Membership struct {
	ClusterID string
	Leaders   []string
	Waits     bool // it was removed, and waits for an invitation
}

// Welcomed reports that the leader at that address has accepted the worker.
type Welcomed struct {
	Leader  string
	Welcome *wire.Welcome
}

// LeaderLost reports that the session with the worker's leader has ended.
type LeaderLost struct{ Err error }

// Unled reports that attempts were stopped, and leases given up, because no leader has heard of the worker for so long.
type Unled struct {
	Leases int
	For    time.Duration
}

// NoLeader reports why there is no leader, whenever the reason changes. Refused: a leader rejects this worker as it is
// configured.
type NoLeader struct {
	Reason  string
	Refused bool
}

// Refused reports that a leader rejects this worker, once per reason.
type Refused struct{ Err error }

// Removed reports that this worker was removed from its cluster for good: it stops its attempts, and exits.
type Removed struct{ Err error }

// Released reports that this worker was removed from its cluster: it drops its leases, and waits for an invitation.
type Released struct{ Reason string }

// StaleLeader reports a leader that was left because its term is over.
type StaleLeader struct {
	Leader           string
	Term, LatestTerm uint64
}

// DiscoveryFailed reports why a [Discover] may have missed leaders, whenever the reason changes.
type DiscoveryFailed struct{ Err error }

// InviteAnswered answers an [Invite]. Nil: accepted.
type InviteAnswered struct{ Err error }

// DrainOrdered reports that the leader has ordered the worker to drain.
type DrainOrdered struct{ Reason string }

// BadMessage reports an invalid message of the leader. It was ignored.
type BadMessage struct {
	Job, Lease uint64
	Reason     string
}

// Exit is the last effect of a drain.
type Exit struct{}

func (Connect) effect()         {}
func (Disconnect) effect()      {}
func (Send) effect()            {}
func (Start) effect()           {}
func (Stop) effect()            {}
func (Sync) effect()            {}
func (Remove) effect()          {}
func (RemoveStage) effect()     {}
func (SendLog) effect()         {}
func (Discover) effect()        {}
func (SaveMembership) effect()  {}
func (Welcomed) effect()        {}
func (LeaderLost) effect()      {}
func (Unled) effect()           {}
func (NoLeader) effect()        {}
func (Refused) effect()         {}
func (Removed) effect()         {}
func (Released) effect()        {}
func (StaleLeader) effect()     {}
func (DiscoveryFailed) effect() {}
func (InviteAnswered) effect()  {}
func (DrainOrdered) effect()    {}
func (BadMessage) effect()      {}
func (Exit) effect()            {}
