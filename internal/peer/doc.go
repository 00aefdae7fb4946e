// Package peer connects the leaders of a cluster: it carries raft's messages and snapshots, adds new members, and refuses nodes that do
// not belong to the cluster.
//
// Each leader dials each other one and sends over the connections that it has dialed. So a new address of a leader is known at
// once: the handshake announces it.
//
//	replica ──Send──> link ─┬─ quick lane: votes, heartbeats ──> connection ──┐
//	                        ├─ bulk lane:  entries and the rest ──> connection ┼──> Raft, Snapshot ──Receive──> replica
//	                        └─ snapshots, one at a time ──────────> connection ┘
//
// The lanes have connections of their own, so that a vote never waits behind a megabyte of entries. Their queues are bounded in
// bytes. Messages that do not fit are dropped and reported to the replica; raft repeats what matters.
//
// Both ends send something at least every 300 ms. After a second and a half of silence a link counts as cut: its queue is dropped,
// the member is reported as unreachable, and the address is dialed again after 50 ms to a second.
//
// Every link begins with a handshake (handshake.go). A node of another cluster, a removed one, or one with another data directory
// under a known id is refused; both sides log the reason once, and retries slow down to every 30 seconds. If the log itself proves
// the refusal final, Run ends with a *RefusedError: a node that lost what it had acknowledged must not vote.
package peer
