// Package node is a leader process, whether it leads or follows.
//
// The goroutine of [Node.Run] owns the clock, the log, the state and the worker sessions. It feeds the pure [leader.Controller] and
// carries out its effects: entries for the log, messages for workers, answers for clients. Leading is the duration of a function of
// this package, lead, whose deferred calls undo it.
//
// Every node serves reads, through package view. They reflect the log and, for leases and heartbeats, the volatile state, which only the
// leader has: it sends it to each other node several times a second. A reader that needs a later state than this node has takes a
// position of the log, from an earlier answer (WaitIndex) or from a majority (ReadIndex), and waits until the views reflect it.
//
// A request that is in flight when leadership is lost gets no guess for an answer. The deposed node keeps applying the log: it
// answers when it applies the request, or reports that it was not carried out once it has passed the last position at which it
// could be. Only if no majority gives that position does it report the outcome as unknown.
package node
