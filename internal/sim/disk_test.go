package sim

import (
	"errors"
	"math/rand/v2"
	"time"
)

// disk makes writes durable in order, after some time. Writes that are not durable are lost with the machine, except for a random
// part that the disk has written already.
type disk struct {
	w    *World
	proc *process
	rng  *rand.Rand

	queue []write
	busy  []write // one fsync covers them
	begun time.Duration

	slow int // number of faults that make it slow
	hung int // number of faults in which no write ends
	full int // number of faults in which no write starts
	lies bool
}

// write is one write to be made durable.
type write struct {
	bytes int
	apply func()           // makes it durable
	tear  func(*rand.Rand) // makes a part durable, if the machine stops during the write; may be nil
	done  func(error)      // notifies the process
}

var errFull = errors.New("no space left on device")

// Duration of an fsync, and bytes written in a second.
const (
	syncMin   = 150 * time.Microsecond
	syncMax   = 2 * time.Millisecond
	diskBytes = 200 << 20
	retryFull = 50 * time.Millisecond
	slowTimes = 200
)

// save queues a write. If the disk is full, it waits.
func (d *disk) save(w write) {
	if d.lies {
		done := w.done
		w.done = func(error) {}
		d.proc.after(0, func() { done(nil) })
	}
	d.queue = append(d.queue, w)
	d.start()
}

// start starts an fsync of all queued writes, unless one is running.
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

// finish ends the running fsync after a while.
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

// stop is the end of the process, or of its machine. Some of the writes that were not fsynced may be durable nevertheless, in order,
// the last one in part.
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
