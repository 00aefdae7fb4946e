// Package leader is the pure part of a leader: it decides, for one term at a time, which worker runs which task. Package node drives it,
// and so does the simulator.
//
// The [Core] owns the volatile state of a term: the workers' sessions, their leases, the open tasks, the commands on their way into
// the log. In each step it does the three duties of a leader: updateClusterStatus (which workers are alive), updateJobStates (what
// the log has decided) and rebalance (which worker runs what next).
//
// The [Controller] is the state machine and, while the node leads, the core of the term over it. While the node follows, it applies the
// entries of the log.
//
// Leases are in no log. When a leader dies, the workers report what they hold, and the next leader adopts it before it grants any of
// those tasks again.
//
// # Steps
//
// All cores of this repository (leader, worker/core, replica/core) have one form: Step(now, inputs...) (*Effects, error), without the
// error if the core cannot fail. Inputs are what has happened since the last step, one type for each kind, handled in order as of
// now. Effects are what the driver must do, one field for each kind, valid until the next step; Effects.Wake is when the driver calls
// Step again if no input comes before. After an error the core must not be used again. A core has no goroutine and no clock, does no
// I/O, draws random numbers from a seed that it is given, and never depends on the order of a map: the same inputs at the same times
// give the same effects.
package leader
