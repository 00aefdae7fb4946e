package sim

import (
	"errors"
	"math/rand/v2"
	"time"
)

// disk makes writes durable in order, some time after they were asked for. What it has not made durable is lost with its
// machine, but for a part of it: nobody knows how much a disk has written of its own accord.
type disk struct {
	w    *World
	proc *process
	rng  *rand.Rand

	queue []write
	busy  []write // one fsync covers them
	begun time.Duration

	slow int // so many faults make it slower
	hung int // so many faults keep it from ending anything
	full int // so many faults keep it from taking anything
	lies bool
}

// write is one thing to be made durable.
type write struct {
	bytes int
	apply func()           // makes it so
	tear  func(*rand.Rand) // makes part of it so: it was being written when the machine stopped; may be nil
	done  func(error)      // tells the process
}

var errFull = errors.New("no space left on device")

// What an fsync takes, and what it writes in a second.
const (
	syncMin   = 150 * time.Microsecond
	syncMax   = 2 * time.Millisecond
	diskBytes = 200 << 20
	retryFull = 50 * time.Millisecond
	slowTimes = 200
)

// save asks for a write. Where the disk is full, one that must wait does so.
func (d *disk) save(w write) {
	if d.lies {
		done := w.done
		w.done = func(error) {}
		d.proc.after(0, func() { done(nil) })
	}
	d.queue = append(d.queue, w)
	d.start()
}

// start begins an fsync of all that waits, when there is none under way.
func (d *disk) start() {
	if len(d.busy) > 0 || len(d.queue) == 0 {
		return
	}
	d.busy, d.queue, d.begun = d.queue, nil, d.w.now
	bytes := 0
	for _, w := range d.busy {
		bytes += w.bytes
	}
	took := between(d.rng, syncMin, syncMax) + time.Duration(bytes)*time.Second/diskBytes
	took += took * slowTimes * time.Duration(d.slow)
	d.finish(took)
}

// finish ends the fsync that is under way, after a while.
func (d *disk) finish(after time.Duration) {
	life := d.proc.life
	d.w.after(after, func() {
		switch {
		case d.proc.life != life || !d.proc.up || len(d.busy) == 0:
		case d.hung > 0 || d.full > 0:
			d.finish(retryFull)
		default:
			busy := d.busy
			d.busy = nil
			for _, w := range busy {
				w.apply()
			}
			d.proc.exec(func() {
				for _, w := range busy {
					w.done(nil)
				}
			})
			d.start()
		}
	})
}

// stop is the end of the process, or of its machine. Of what was not fsynced some may have reached the disk all the same, in
// order, the last of it in part.
func (d *disk) stop() {
	pending := append(d.busy, d.queue...)
	d.busy, d.queue = nil, nil
	if len(pending) == 0 {
		return
	}
	kept := d.rng.IntN(len(pending) + 1)
	if d.lies {
		kept = 0
	}
	for _, w := range pending[:kept] {
		w.apply()
	}
	if kept < len(pending) && pending[kept].tear != nil && oneIn(d.rng, 2) {
		pending[kept].tear(d.rng)
	}
}
