// Package sim runs whole clusters in virtual time, in one thread, from one seed: the real consensus (internal/replica/core), the real
// state machine and leader's core (leader.Controller) and the real worker's core (core.Core of internal/worker), over a network, disks and clocks that
// this package owns. Only their drivers are replaced. Days pass in seconds, and every failure can be played again.
//
// A [World] is described by a [Config], which [Draw] makes of a seed, and by a list of [Fault]s, which is drawn before it begins:
// processes are killed, stopped, restarted, moved and replaced; messages are late, lost, doubled and overtaken; the network is
// cut, one way or both, or split; disks are slow, hung or full, and lose what was not fsynced, or half of it; clocks drift and jump.
// Clients submit, stop and retry jobs, ask again where they got no answer, and read at every consistency.
// When the faults have stopped, every job must end.
//
// A checker that sees everything holds what happens against the promises: all logs are one; what was acknowledged is kept; a term
// has one leader; a task has one winner, which has run to its end, whose file is there and which is published once; fencing
// numbers grow, and what is stale stays so; all machines are the same, byte for byte, at the same position; reads are as fresh as
// was asked for; submits, stops, retries and strong reads are linearizable (by porcupine); and where only leaders suffer, no attempt
// is run again.
//
// What is random comes from streams of its own for each purpose, so that leaving a fault out leaves the rest much as it was: that
// is what lets [Shrink] cut a failing list of faults down.
//
//	make sim SEED=n     plays one world, and tells each step
//	make soak FOR=10m   plays worlds at random for so long
//
// Clocks jump forward only, as after a machine was suspended: what a program takes for durations comes from a monotonic clock.
// What commit attempts do to the output folder is one step here; how they get along with each other is tested in package commit.
// The transports, the files of the log and the drivers have tests of their own.
package sim
