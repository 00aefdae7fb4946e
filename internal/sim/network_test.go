package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// addr is the address of a process: leaders have small numbers, workers and clients follow.
type addr int

// network carries messages between processes. Disturbances delay, lose, duplicate and reorder messages; nothing passes a cut.
type network struct {
	w            *World
	rng          *rand.Rand
	cuts         []*cut
	disturbances []*disturbance
	next         int // of streams
}

// cut drops all messages from one group to another.
type cut struct {
	from, to func(addr) bool
	both     bool // nor back
}

func (c *cut) blocks(from, to addr) bool {
	return c.from(from) && c.to(to) || c.both && c.from(to) && c.to(from)
}

// disturbance is a fault of the network for some processes.
type disturbance struct {
	touches func(addr) bool
	delay   time.Duration // at most
	lose    int           // in a thousand
	repeat  int           // in a thousand
}

func (n *network) blocked(from, to addr) bool {
	return slices.ContainsFunc(n.cuts, func(c *cut) bool { return c.blocks(from, to) })
}

// Latencies of an undisturbed network, and of programs that read from it.
const (
	latencyMin = 60 * time.Microsecond
	latencyMax = 900 * time.Microsecond
)

func (n *network) latency(from, to addr) time.Duration {
	d := between(n.rng, latencyMin, latencyMax)
	for _, bad := range n.disturbances {
		if bad.touches(from) || bad.touches(to) {
			d += between(n.rng, 0, bad.delay)
		}
	}
	return d
}

// luck returns how often a message arrives.
func (n *network) luck(from, to addr) (times int) {
	times = 1
	for _, bad := range n.disturbances {
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

// post sends a message that may be lost, duplicated and reordered. Arrive is called each time that it arrives.
func (n *network) post(from addr, to *process, arrive func()) {
	for range n.luck(from, to.addr) {
		n.w.after(n.latency(from, to.addr), func() {
			if !n.blocked(from, to.addr) {
				to.exec(arrive)
			}
		})
	}
}

// conn is an ordered stream between two processes: every message arrives, in order and once, or the stream breaks.
type conn struct {
	net    *network
	number int
	ends   [2]*end
	dead   bool // nothing arrives any more; the sides may not know it yet
}

// end is one side of a conn.
type end struct {
	conn   *conn
	side   int
	proc   *process
	life   int
	open   bool
	recv   func(m any)
	broken func() // the other side has closed, or the network has failed
	queue  []packet
	pumped bool          // an event will deliver the queue
	last   time.Duration // arrival of the last packet of the queue
	stuck  time.Duration // since when the first packet has not arrived; 0: it has
}

type packet struct {
	at time.Duration
	m  any // nil: the other side has closed
}

// Timeouts of a connection: a packet is sent again after resend, and the connection breaks when nothing has arrived for a time between
// giveUpMin and giveUpMax.
const (
	resend    = 100 * time.Millisecond
	giveUpMin = 1500 * time.Millisecond
	giveUpMax = 4 * time.Second
)

// dial connects two processes. Accept is called in the other one once it is connected; failed is called if no process listens. The end
// that is returned may be closed before that.
func (n *network) dial(from, to *process, accept func(*end), failed func()) *end {
	n.next++
	c := &conn{net: n, number: n.next}
	for i, p := range [2]*process{from, to} {
		c.ends[i] = &end{conn: c, side: i, proc: p, life: p.life, open: true}
	}
	n.knock(c, from, to, accept, failed, time.Second)
	return c.ends[0]
}

// knock sends the request for the connection, and repeats it after a while, and after twice as long, if it is lost.
func (n *network) knock(c *conn, from, to *process, accept func(*end), failed func(), again time.Duration) {
	n.w.after(n.latency(from.addr, to.addr), func() {
		switch {
		case !c.ends[0].open: // the dialing side has given up
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

// once sends a message that arrives at most once. Refused, which may be nil, is called in the sender if no process listens.
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
		return // a stream: nothing may arrive after a lost message
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

// snap breaks a connection as if its packets were lost: each side notices after its own timeout.
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

// lose is the end of this side's machine: the other side notices after its timeout.
func (e *end) lose() {
	if !e.open {
		return
	}
	e.open = false
	p := e.peer()
	p.queue = nil // lost packets are not sent again
	e.conn.net.w.after(between(e.conn.net.rng, giveUpMin, giveUpMax), func() { p.deliver(nil) })
}
