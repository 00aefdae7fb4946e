// Package sim runs whole clusters in virtual time, in one thread, from one seed: the real consensus (internal/replica/core), the real
// state machine and leader's core (leader.Controller) and the real worker's core (internal/worker/core), over a simulated network, disks
// and clocks. Only their drivers are replaced. Days pass in seconds, and every failure can be replayed.
//
// A [World] is described by a [Config], which [Draw] makes of a seed, and by a list of [Fault]s, which is drawn before it starts:
// processes are killed, stopped, restarted, moved and replaced; messages are late, lost, duplicated and reordered; the network is
// cut, one way or both, or split; disks are slow, hung or full, and lose all or a part of what was not fsynced; clocks drift and jump;
// attempts leave processes behind; files change that jobs read; workers report on leases that are not theirs. A malicious program runs with the key
// of a worker (see hostile), and a node that is no member sends messages of raft with the certificate of a leader (see door). Clients submit, stop and retry
// jobs, repeat requests that got no answer, and read at every consistency. Others hold named locks, and vanish. After the faults have ended, every job must end.
//
// An oracle that sees all processes checks the promises: all logs are the same; what was acknowledged is kept; a term has one leader; a
// task has one winner, which has run to its end, whose file exists and which is published once; fencing numbers grow, and what is
// stale stays stale; a worker has the slots and the memory for what it runs, and uses no slot while a process of an earlier attempt lives
// there; the outputs of a job are of its input as it was at the submit or the last retry, and all tasks of a stage have read the same outputs of the one before; all states are the same, byte for byte, at the
// same position; reads are as fresh as requested; holders of named locks that conflict do not act at the same time, by their own clocks; submits, stops, retries and strong reads are linearizable (by porcupine); and if only
// leaders have faults, no attempt is run again. The invariants of the leader's core are checked after each step.
//
// Each purpose has its own stream of random numbers, so that a world without one of its faults is much the same otherwise: that lets
// [Shrink] shorten a failing list of faults.
//
//	make sim SEED=n     runs one world, and prints each step
//	make soak FOR=10m   runs random worlds for that time
//
// Clocks jump forward only, as after a machine was suspended: programs measure durations with a monotonic clock. A commit attempt
// publishes the output folder in one step here; concurrent ones are tested in package commit. The transports, the files of the log
// and the drivers have tests of their own. So has what authenticates nodes by their certificates: a simulated connection has the identity of its
// process, and what it sends is checked by the functions that check it in the real program.
//
// Nothing but tests uses it, so all of its code is in files of tests.
package sim
