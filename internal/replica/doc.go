// Package replica is the replicated log and the election: all leaders agree on what is committed here, and it survives kill -9 and
// power loss.
//
// It has two layers. The core (internal/replica/core) wraps go.etcd.io/raft's RawNode as a step function: inputs and the time go in,
// effects come out; it has no goroutine, clock or I/O, so a simulator can drive it. The driver (loop.go, saver.go) owns the
// goroutines: the loop, which alone steps the core, and the saver, which alone touches the write-ahead log.
//
//	Propose ──> loop ──> core ──> batch to persist ──> saver: one write + one fsync
//	               ^                                    │
//	               └────────── persisted ───────────────┘
//	Events  <── loop <── core: committed, and on this node's disk
//
// A batch holds everything that has gathered during the fsync before it, so the number of entries per fsync grows with the load. No
// entry is delivered before it is on this node's own disk, however small the cluster.
//
// The members are part of the log (core/members.go): a change takes effect when its entry is committed, one at a time, and snapshots carry
// the members. The logs of the first members of a cluster begin at index 1, those of later ones at 0, so that raft sends them a
// snapshot first, with the members. A new member is a learner until it has caught up; then the leader makes it a voter. The id of a
// removed member is never used again.
//
// A leader that may have lost its leadership steps down. After a pause it checks that a majority still follows it before it does anything
// else (core.Core.Step). With a hung or full disk it hands leadership over and does not accept it again. At an orderly end it hands
// over first (TransferLeadership). Without a majority for an election time it steps down by itself.
//
// The files of a data directory:
//
//	LOCK     held (flock) by the process that uses the directory; its pid is in it
//	FORMAT   the version of this layout
//	OPENING  while the log is opened: the name of its newest file, and where the records of that end
//	wal/     the write-ahead log of etcd (go.etcd.io/etcd/server/v3/storage/wal); the head of each file has its identity
//	snap/    INDEX-TERM.snap: snapshots of the state, the newest and one older (snapshot.go gives the format)
//
// A snapshot is valid once its record is in the log. The log is kept back to the older of the two snapshots, so that losing the newest
// file loses nothing. A snapshot of the leader replaces a log that this node does not have: everything before it is void, and removed.
//
// At a start with a damaged log, a torn tail, which power loss leaves of unacknowledged writes, is cut off and reported; any other
// damage is refused, with the file's name and the way out. The records behind the damage distinguish the two: the log never holds a
// commit index before the entries up to it have been fsynced, so a commit index behind the damage proves that acknowledged entries
// are damaged. A newest file that lacks its end is damaged, too, unless OPENING says that it was cut off there by a start that did not finish.
package replica
