package sim

import "time"

// process is a program on a machine that may be killed, stopped and started again. It runs everything through exec, and schedules
// through after.
type process struct {
	w       *World
	addr    addr
	life    int // counts the starts: what an earlier one has scheduled never runs
	up      bool
	paused  int      // number of SIGSTOPs
	backlog []func() // what has arrived since, in the kernel's buffers
	dials   []*end   // connections that wait to be accepted
	skew    time.Duration
	drift   int64 // of its clock, in parts per million
	since   time.Duration
}

// start begins a new life.
func (p *process) start() {
	p.life++
	p.up, p.backlog = true, nil
}

// die ends a life: what the process has scheduled and buffered is lost. Connections that it has not accepted end, unless the machine has
// ended: quiet.
func (p *process) die(quiet bool) {
	dials := p.dials
	p.up, p.backlog, p.dials = false, nil, nil
	for _, e := range dials {
		if quiet {
			e.lose()
		} else {
			e.close()
		}
	}
}

// exec runs do in the process now, or once it is resumed; a dead process never does.
func (p *process) exec(do func()) {
	switch {
	case !p.up:
	case p.paused > 0:
		life := p.life
		p.backlog = append(p.backlog, func() {
			if p.life == life {
				do()
			}
		})
	default:
		do()
	}
}

// after runs do in the process after a while, unless its life has ended by then.
func (p *process) after(d time.Duration, do func()) {
	life := p.life
	p.w.after(d, func() {
		if p.life == life {
			p.exec(do)
		}
	})
}

func (p *process) pause() { p.paused++ }

func (p *process) resume() {
	if p.paused--; p.paused > 0 {
		return
	}
	backlog := p.backlog
	p.backlog = nil
	for _, do := range backlog {
		p.exec(do) // which may kill or stop the process again
	}
}

// now is the time of the process's clock.
func (p *process) now() time.Time { return epoch.Add(p.local(p.w.now)) }

// local converts a time of the world to one of its clock.
func (p *process) local(at time.Duration) time.Duration {
	run := at - p.since
	return p.since + run + time.Duration(int64(run)/1_000_000*p.drift) + p.skew
}

// world converts a duration of its clock to one of the world, to the microsecond.
func (p *process) world(d time.Duration) time.Duration {
	return d - time.Duration(int64(d)/1_000_000*p.drift) + time.Microsecond
}

// setDrift changes the drift of its clock.
func (p *process) setDrift(ppm int64) {
	p.skew = p.local(p.w.now) - p.w.now
	p.since, p.drift = p.w.now, ppm
}
