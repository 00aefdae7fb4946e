// Package sched assigns open tasks to workers. It is pure: open tasks and free slots in, grants out. The leader's core carries out the
// grants, and reports when their leases end.
//
// Order: priority, then the user with the least load for the weight of the quota, then the job with the least load, then the older job, then its earlier stage.
// Within a stage, tasks that are open again come first, then the longest split. A task that has failed on a worker goes to another one
// if there is one.
//
// Load is measured in slot-time, not in tasks. A lease costs one slot, or less if the tasks of its stage are shorter than the horizon:
// a worker is granted one long task for each slot, but as many short ones as keep a slot busy for the horizon, so that it never waits
// for the network. A grant fills at most one slot, so jobs share the slots of each worker as they share all slots. Jobs that need
// several slots, memory, resources, or a time between their starts are strict: their attempts must get what they need, so nothing is leased ahead
// beside them. If the turn of such a job comes and its task fits nowhere, a worker is reserved, and emptied, for it.
//
// The cost of a decision does not grow with the number of tasks: a stage is a cursor over the tasks that were never leased, and a heap
// of the few that are open again. It grows with the logarithm of the number of jobs, which are in heaps, by user, need
// and priority, and with the number of different needs.
package sched
