// Package core is the part of a worker that decides: which leases are held, what runs in which slot, what has finished and
// is not acknowledged, which leader to dial, when to report. It is a step function with no goroutine, clock or I/O, so a
// simulator can run thousands of them in one thread; package worker is its driver.
package core
