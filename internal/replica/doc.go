// Package replica is the replicated log and the election: what is committed here is what every leader agrees on, and
// what survives kill -9 and power loss.
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
// The saver takes whatever has gathered while its last fsync ran, so the number of entries per fsync grows with the load
// by itself. No entry is delivered before it is on this node's own disk, however small the cluster.
//
// The members are part of the log (core/members.go): an entry that changes them takes effect when it is committed, one at a time, and
// snapshots carry them. The first members of a cluster are at entry 1, which is no entry but where every log of theirs begins;
// who joins later begins at 0, so raft sends it a snapshot first, and with it the members. A new member only follows until
// it keeps up; then the leader makes it a voter. A removed one's number is never used again.
//
// A leader gives up what it should not hold. One that was stopped looks whether a majority still follows it before it does anything
// else (core.Core.Step). One whose disk hangs or is full hands over to another, and does not take it back. One
// that ends in an orderly way hands over first (TransferLeadership). One that hears from no majority for an election
// time steps down by itself.
//
// The files of a data directory:
//
//	LOCK     held (flock) by the process that uses the directory; its pid is in it
//	FORMAT   the version of this layout
//	wal/     the write-ahead log of etcd (go.etcd.io/etcd/server/v3/storage/wal); at the head of each file stands whose it is
//	snap/    INDEX-TERM.snap: snapshots of the state, the newest and one older (snapshot.go gives the format)
//
// A snapshot counts once its record is in the log. The log is kept back to the older of the two snapshots, so that losing
// the newest file loses nothing. A snapshot that came from the leader stands for a log that this node does not have: what was
// before it counts no more, and is removed.
//
// What a start does with a damaged log: a torn tail, which is what power loss leaves of writes that were never
// acknowledged, is cut off and reported; everything else is refused, with the file's name and the way out. The two are told
// apart by the records behind the damage: the log never holds a commit index before the entries it covers have been
// fsynced, so a commit index beyond the damage proves that acknowledged entries are in the damaged part.
package replica
