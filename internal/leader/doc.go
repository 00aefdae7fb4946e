// Package leader is the leader: the one who decides, for one term at a time, who runs what.
//
// It has two layers. The [Core] owns all that is volatile in a term: the workers' sessions, their leases, what is open. It is
// a step function: what has happened and the time go in, effects come out. On each step it does the three duties of a
// leader: updateClusterStatus (who lives), updateJobStates (what the log has decided) and rebalance (who runs what next).
//
// The driver, [Leader], is the goroutine that owns the clock, the log, the state machine and the workers' streams. It feeds the
// core and carries out its effects: entries for the log, messages for workers, answers for clients. Clients' reads are
// served from views that it publishes and nobody changes, so they neither wait for it nor slow it.
//
// What is not in the log when a leader dies is brought back by the workers: they say what they hold, and the next leader
// adopts it before it gives any of those tasks to somebody else.
package leader
