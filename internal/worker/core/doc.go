// Package core is the pure part of a worker: which leases are held, what runs in which slot, which leader to dial, when to report.
// It has no goroutine, clock or I/O, so a simulator can run thousands of workers in one thread; package worker is the driver.
//
// All cores step in one form: [Core.Step] gets the time and any number of inputs, and returns the effects and the time of the
// next step.
//
// The path of a lease: Work from the leader → the ledger (one grant per set of columns) → the queue → a [Chunk] of up to some
// hundred leases for one slot → results written in place → files synced in groups → a Report in columns → the leader's verdict →
// dropped.
//
// The worker dials one leader after another, in rounds with a wait between them: the one that another node has named, those of
// its last leader (saved with the cluster's id), those of its configuration, and those of a discovery. It leaves a leader that is
// silent, follows none of a lower term than an earlier one, and stays if it is refused: it tries again every minute. Running
// attempts continue meanwhile.
//
// For each lease that is granted in a session, exactly one of finished, failed or returned is reported, unless the session
// ends before. Results are kept until the leader's verdict, over any number of sessions, and a result's file is removed if the
// verdict is stale.
package core
