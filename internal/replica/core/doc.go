// Package core is the pure part of package replica: consensus, changes of the members, linearizable reads, transfers of leadership and
// the snapshot policy of one member, as a step function without clock, goroutine or I/O.
//
//	inputs ──> Step(now) ──> effects: batch to persist, messages, deliveries, answers, next wake-up
//	   ^                        │
//	   └── Persisted, Delivered ┘
//
// It wraps the RawNode of go.etcd.io/raft (consensus.go) with asynchronous storage writes: a batch is handed out in Effects.Persist
// and acknowledged with the input Persisted, a delivery in Effects.Deliveries with Delivered. Nothing is delivered before it is on this node's
// own disk.
package core
