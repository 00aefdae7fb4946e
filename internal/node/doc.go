// Package node is a leader process, whether it leads or follows.
//
// The [Node] is the goroutine that owns the clock, the log, the state and the workers' streams. It feeds the pure
// [leader.Controller] and carries out its effects: entries for the log, messages for workers, answers for clients. Clients'
// reads are served by package view.
//
// Every node publishes views, whoever leads. What they show comes from the log, except for the volatile state, what runs
// where, which the leader's core alone knows: the leader sends it to the others, several times a second, over a stream that
// each of them opens. A reader that wants more than what this node happens to have takes a position of the log, from an
// answer that it got (WaitIndex) or from a majority (ReadIndex), and waits until the views reflect it.
//
// A request in flight when leadership is lost is not answered with a guess. The deposed node goes on watching the log: it answers when it
// sees the request applied, says that it was not carried out when a position is reached behind which it cannot come any more, and
// says that nobody knows only when no majority can be asked for that position.
package node
