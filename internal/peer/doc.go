// Package peer is how the leaders of a cluster talk to each other: it carries raft's messages and snapshots, takes new members in,
// and keeps out who does not belong.
//
// Each leader dials each other one and sends on what it has dialed; what comes the other way comes over what the other has
// dialed. So a leader that moved is heard of at once: it says in its handshake where it is reached now.
//
//	replica ──Send──> link ─┬─ quick lane: votes, heartbeats ──> connection ──┐
//	                        ├─ bulk lane:  entries and the rest ──> connection ┼──> Raft, Snapshot ──Receive──> replica
//	                        └─ snapshots, one at a time ──────────> connection ┘
//
// The lanes have connections of their own, so that a vote never waits behind a megabyte of entries. Their queues are bounded in
// bytes. What does not fit is dropped and the replica told, for raft repeats what matters.
//
// Both ends speak at least every 300 ms. A side that has heard nothing for a second and a half takes the link for cut: what waits is
// dropped, the replica is told, and the address is dialed again after 50 ms to a second.
//
// Every link begins with a handshake (check.go). Who is of another cluster, was removed, or comes with another data directory
// under a known id is refused; both sides log the reason, once, and asking again slows down to every 30 seconds. Where the log
// itself says that there is nothing to hope for, Run ends with a *RefusedError: a node that lost what it had acknowledged
// must not vote.
package peer
