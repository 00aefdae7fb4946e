package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// addr is where a process listens: leaders have small numbers, workers and clients come after them.
type addr int

// network carries messages between processes. A message is late, lost, doubled or overtaken as the weather has it, and never
// passes a cut.
type network struct {
	w       *World
	rng     *rand.Rand
	cuts    []*cut
	weather []*weather
	next    int // of streams
}

// cut lets nothing through from one group to another.
type cut struct {
	from, to func(addr) bool
	both     bool // nor back
}

func (c *cut) blocks(from, to addr) bool {
	return c.from(from) && c.to(to) || c.both && c.from(to) && c.to(from)
}

// weather is how bad the network is, for a while and for some.
type weather struct {
	touches func(addr) bool
	delay   time.Duration // at most
	lose    int           // in a thousand
	repeat  int           // in a thousand
}

func (n *network) blocked(from, to addr) bool {
	return slices.ContainsFunc(n.cuts, func(c *cut) bool { return c.blocks(from, to) })
}

// Latencies of a quiet network, and of programs that come to what has arrived.
const (
	latencyMin = 60 * time.Microsecond
	latencyMax = 900 * time.Microsecond
)

func (n *network) latency(from, to addr) time.Duration {
	d := between(n.rng, latencyMin, latencyMax)
	for _, bad := range n.weather {
		if bad.touches(from) || bad.touches(to) {
			d += between(n.rng, 0, bad.delay)
		}
	}
	return d
}

// luck says how often a message arrives.
func (n *network) luck(from, to addr) (times int) {
	times = 1
	for _, bad := range n.weather {
		if !bad.touches(from) && !bad.touches(to) {
			continue
		}
		if n.rng.IntN(1000) < bad.lose {
			return 0
		}
		if n.rng.IntN(1000) < bad.repeat {
			times++
		}
	}
	return times
}

// post sends something that may be lost, doubled and overtaken. Arrive is called for each time that it arrives.
func (n *network) post(from addr, to *process, arrive func()) {
	for range n.luck(from, to.addr) {
		n.w.after(n.latency(from, to.addr), func() {
			if !n.blocked(from, to.addr) {
				to.exec(arrive)
			}
		})
	}
}

// conn is an ordered stream between two processes: all that is sent arrives, in order and once, or it breaks.
type conn struct {
	net    *network
	number int
	ends   [2]*end
	dead   bool // nothing gets through any more; the sides may not know it yet
}

// end is one side of a conn.
type end struct {
	conn   *conn
	side   int
	proc   *process
	life   int
	open   bool
	recv   func(m any)
	broken func() // the other side has gone, or the network has
	queue  []packet
	pumped bool          // an event will look at the queue
	last   time.Duration // arrival of the last packet of the queue
	stuck  time.Duration // since when the first packet has not got through; 0: it has
}

type packet struct {
	at time.Duration
	m  any // nil: the other side has closed
}

// Bounds of a connection's patience: a packet is sent again after resend, and when nothing has got through for some time between
// giveUpMin and giveUpMax the connection breaks.
const (
	resend    = 100 * time.Millisecond
	giveUpMin = 1500 * time.Millisecond
	giveUpMax = 4 * time.Second
)

// dial connects two processes. Accept is called in the other one when the connection stands; failed is called where nobody
// listens. What is dialed may be closed before that.
func (n *network) dial(from, to *process, accept func(*end), failed func()) *end {
	n.next++
	c := &conn{net: n, number: n.next}
	for i, p := range [2]*process{from, to} {
		c.ends[i] = &end{conn: c, side: i, proc: p, life: p.life, open: true}
	}
	n.knock(c, from, to, accept, failed, time.Second)
	return c.ends[0]
}

// knock asks for the connection, and asks again after a while, and after twice as long, when that is lost.
func (n *network) knock(c *conn, from, to *process, accept func(*end), failed func(), again time.Duration) {
	n.w.after(n.latency(from.addr, to.addr), func() {
		switch {
		case !c.ends[0].open: // who dialed has given up
		case n.blocked(from.addr, to.addr):
			n.w.after(again, func() { n.knock(c, from, to, accept, failed, 2*again) })
		case !to.up:
			n.once(to.addr, from, failed, nil)
		default:
			c.ends[1].life = to.life
			to.dials = append(to.dials, c.ends[1])
			to.exec(func() {
				to.dials = slices.DeleteFunc(to.dials, func(e *end) bool { return e.conn == c })
				if c.ends[0].open {
					accept(c.ends[1])
				}
			})
		}
	})
}

// once sends something that arrives once, if it arrives. Refused, which may be nil, is called in the sender where nobody
// listens.
func (n *network) once(from addr, to *process, arrive, refused func()) {
	if n.luck(from, to.addr) == 0 {
		return
	}
	n.w.after(n.latency(from, to.addr), func() {
		switch {
		case n.blocked(from, to.addr):
		case to.up:
			to.exec(arrive)
		case refused != nil:
			refused()
		}
	})
}

func (e *end) peer() *end { return e.conn.ends[1-e.side] }

// send sends a message to the other side.
func (e *end) send(m any) {
	if !e.open {
		return
	}
	e.push(m)
}

func (e *end) push(m any) {
	if e.conn.dead {
		return // after what was lost nothing may arrive: it is a stream
	}
	net, p := e.conn.net, e.peer()
	p.last = max(p.last, net.w.now+net.latency(e.proc.addr, p.proc.addr))
	p.queue = append(p.queue, packet{p.last, m})
	if !p.pumped {
		p.pumped = true
		net.w.at(p.queue[0].at, p.pump)
	}
}

// pump delivers what has arrived.
func (e *end) pump() {
	net, from := e.conn.net, e.peer().proc.addr
	e.pumped = false
	for len(e.queue) > 0 && e.queue[0].at <= net.w.now {
		if net.blocked(from, e.proc.addr) {
			if e.stuck == 0 {
				e.stuck = net.w.now
			}
			if net.w.now-e.stuck > between(net.rng, giveUpMin, giveUpMax) {
				e.conn.snap()
				return
			}
			e.pumped = true
			net.w.after(resend, e.pump)
			return
		}
		e.stuck = 0
		m := e.queue[0].m
		e.queue[0] = packet{}
		e.queue = e.queue[1:]
		e.deliver(m)
	}
	if len(e.queue) > 0 {
		e.pumped = true
		net.w.at(e.queue[0].at, e.pump)
	}
}

func (e *end) deliver(m any) {
	if e.proc.life != e.life {
		return
	}
	e.proc.exec(func() {
		switch {
		case !e.open, e.recv == nil: // closed from here, or never accepted
		case m == nil:
			e.open = false
			e.broken()
		default:
			e.recv(m)
		}
	})
}

// snap breaks a connection whose packets do not get through: each side notices in its own time.
func (c *conn) snap() {
	c.dead = true
	for _, e := range c.ends {
		e.queue = nil
		c.net.w.after(between(c.net.rng, 0, giveUpMin), func() { e.deliver(nil) })
	}
}

// close ends the connection from this side. What was sent before still arrives.
func (e *end) close() {
	if !e.open {
		return
	}
	e.open = false
	e.push(nil)
}

// lose is the end of this side's machine without a word: the other side finds out when it has heard nothing for long.
func (e *end) lose() {
	if !e.open {
		return
	}
	e.open = false
	p := e.peer()
	p.queue = nil // what has not got through is not sent again
	e.conn.net.w.after(between(e.conn.net.rng, giveUpMin, giveUpMax), func() { p.deliver(nil) })
}
