// Package worker is a worker: it dials a leader, has slots, and runs in them the attempts that the leader leases to it.
//
// Package core decides. The driver owns the clock, the stream to the leader, the goroutines of the slots and the disk; it steps
// the core and carries out its effects.
package worker
