package sim

import "time"

// process is a program on a machine that may be killed, stopped and started again. All that it does goes through exec, and all
// that it plans through after.
type process struct {
	w       *World
	addr    addr
	life    int // counts the starts: what an earlier one has planned never happens
	up      bool
	paused  int      // SIGSTOPped, so many times
	backlog []func() // what has come since: it waits in the kernel's buffers
	dials   []*end   // connections that wait to be accepted
	skew    time.Duration
	drift   int64 // parts in a million that its clock is too fast
	since   time.Duration
}

// start begins a new life.
func (p *process) start() {
	p.life++
	p.up, p.backlog = true, nil
}

// die ends a life. What the process had planned, and what lay in its buffers, is gone.
// Who waits for it to accept a connection is told, unless it is the machine that has ended: quiet.
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

// exec has the process do something now, or as soon as it goes on; a dead one never does.
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

// after has the process do something after a while, unless its life has ended by then.
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
		p.exec(do) // what one of them does may kill or stop the process again
	}
}

// now is what the clock of the process shows.
func (p *process) now() time.Time { return epoch.Add(p.local(p.w.now)) }

// local is the time of its clock at a moment of the world's.
func (p *process) local(at time.Duration) time.Duration {
	run := at - p.since
	return p.since + run + time.Duration(int64(run)/1_000_000*p.drift) + p.skew
}

// world is how long the world takes until the clock of the process has gone on by d, to the microsecond.
func (p *process) world(d time.Duration) time.Duration {
	return d - time.Duration(int64(d)/1_000_000*p.drift) + time.Microsecond
}

// setDrift changes how fast its clock goes, from here on.
func (p *process) setDrift(ppm int64) {
	p.skew = p.local(p.w.now) - p.w.now
	p.since, p.drift = p.w.now, ppm
}
