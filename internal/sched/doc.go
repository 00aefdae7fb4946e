// Package sched decides which open task goes to which worker next. It is pure: what is open and what is free come in, grants
// go out; the leader carries them out and tells it when they end.
//
// Order: priority, then the user with the least in use, then the job with the least in use, then the older job; within a
// job, tasks that wait for another attempt first, then the longest split first. A task that has failed on a worker goes to
// another one if there is one.
//
// Load is counted in slot-time, not in tasks. A lease costs one slot, or less when the tasks of its job are shorter than
// the horizon: so a worker is given one long task a slot, but as many short ones as keep a slot busy for the horizon, and
// never waits for the network. One grant fills at most one slot, so jobs share the slots of one worker as they share all.
// Jobs that ask for several slots or for memory are strict: their attempts are promised what they ask for, so nothing is
// leased ahead beside them, and a worker is emptied for one that fits nowhere.
//
// The cost of a decision does not grow with the number of tasks: a stage is a cursor over the tasks never leased, and a heap
// of the few that were and failed.
package sched
