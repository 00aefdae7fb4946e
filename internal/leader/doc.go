// Package leader is the pure part of a leader: who runs what, decided for one term at a time. It has no goroutine and no clock
// and does no I/O; package node drives it, and so does the simulator.
//
// The [Core] owns all that is volatile in a term: the workers' sessions, their leases, what is open. It is a step function: what
// has happened and the time go in, effects come out. On each step it does the three duties of a leader:
// updateClusterStatus (who lives), updateJobStates (what the log has decided) and rebalance (who runs what next).
//
// The [Controller] is the state machine with, while the node leads, the core of the term over it. It follows when the node does
// not lead: then it applies what the log brings.
//
// What is not in the log when a leader dies is brought back by the workers: they say what they hold, and the next leader
// adopts it before it gives any of those tasks to somebody else.
package leader
