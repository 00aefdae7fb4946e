// Package leader is the leader: the one who decides, for one term at a time, who runs what.
//
// It has three layers. The [Core] owns all that is volatile in a term: the workers' sessions, their leases, what is open. It is
// a step function: what has happened and the time go in, effects come out. On each step it does the three duties of a
// leader: updateClusterStatus (who lives), updateJobStates (what the log has decided) and rebalance (who runs what next).
//
// The [Node] is the state machine with, while this process leads, the core of the term over it. It follows when it does not
// lead: then it applies what the log brings. It is pure as well, and the simulator runs it.
//
// The driver, [Leader], is the goroutine that owns the clock, the log, the node and the workers' streams. It feeds the
// node and carries out its effects: entries for the log, messages for workers, answers for clients. Clients' reads are
// served from views that it publishes and nobody changes, so they neither wait for it nor slow it.
//
// Every leader process publishes views, whoever leads. What they show comes from the log, except for what runs where, which the
// leader's core alone knows: it tells the others, several times a second, over a stream that each of them opens (Shadow). A
// reader that wants more than what this process happens to have takes a position of the log, from an answer that it got
// (WaitIndex) or from a majority (ReadIndex), and waits until the views reflect it.
//
// A request in flight when leadership is lost is not answered with a guess. The deposed node goes on watching the log: it answers when it
// sees the request applied, says that it was not carried out when a position is reached behind which it cannot come any more, and
// says that nobody knows only when no majority can be asked for that position.
//
// What is not in the log when a leader dies is brought back by the workers: they say what they hold, and the next leader
// adopts it before it gives any of those tasks to somebody else.
package leader
