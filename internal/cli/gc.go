package cli

import (
	"runtime"
	"runtime/debug"
)

// delayCollection lets the heap grow to 32 MiB before the first garbage collection, instead of 4 MiB. A run of a few milliseconds ends before that, and
// would take a third of its CPU time to collect what it leaves behind anyway.
func delayCollection() {
	const percentDefault, percent = 100, 800
	if before := debug.SetGCPercent(percent); before != percentDefault { // the user has chosen another
		debug.SetGCPercent(before)
		return
	}
	first := new([16]byte)
	runtime.AddCleanup(first, func(p int) { debug.SetGCPercent(p) }, percentDefault)
}
