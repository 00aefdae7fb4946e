// Package worker is a spren: it dials a leader, holds slots, and runs the attempts that the leader leases to it.
//
// It has two layers. Package core decides: which leases are held, what runs in which slot, what has finished and is not
// acknowledged, when to dial, when to flush. The [Worker] is its driver: it owns the clock, the stream to the leader, the
// slots' goroutines and the disk, feeds the core and carries out its effects.
//
// The way of a lease: Work from the leader → the ledger (one grant per column set) → the queue → a [core.Chunk] of up to
// some hundred leases for one slot → results written in place → files fsynced in groups → a Report in columns →
// the leader's verdict → forgotten.
//
// Leaders come and go. The worker dials, in rounds with a wait between them, the one that a node has named as leading, those that
// its last leader has told of (kept in the data directory, with the cluster's id), those of its configuration, and those that
// looking around finds. It leaves a leader that is silent, never follows one of a lower term than it has followed, and stays
// where it is refused: it asks again every minute. Its attempts go on meanwhile.
//
// What holds for each lease that is granted in a session, and is tested: the leader hears exactly one of finished, failed
// or returned of it, unless the session ends before. What finished is kept until the leader's verdict, over any number of
// sessions, and its file is removed when the verdict is that it lost.
package worker
