package keeper

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// A request is a frame: its length in 4 bytes, its kind, and fields. The descriptors of a start are sent with it. Until is in milliseconds of
// the clock bootTime; 0: never.
const (
	kindJob      = 'J' // folder, environment, users (none, or UID, GID and groups): of the starts that follow
	kindConfine  = 'F' // 1 if so, for each of a Confinement; Temp. The first; it is answered
	kindStart    = 'S' // id, memory, number of descriptors (none, standard input, or all three), until and grace in ms, path, arguments, more environment
	kindStop     = 'T' // id, grace in ms
	kindExtend   = 'X' // id, until
	kindPause    = 'P'
	kindContinue = 'C'
)

// frameMax is more than the kernel allows for arguments and environment.
const frameMax = 64 << 20

type encoder struct {
	buf   []byte
	start int // of the frame
}

func (e *encoder) begin(kind byte) {
	e.start = len(e.buf)
	e.buf = append(e.buf, 0, 0, 0, 0, kind)
}

func (e *encoder) end() {
	binary.LittleEndian.PutUint32(e.buf[e.start:], uint32(len(e.buf)-e.start-4)) //nolint:gosec // far below
}

func (e *encoder) number(n uint64) { e.buf = binary.AppendUvarint(e.buf, n) }

func (e *encoder) text(s string) {
	e.number(uint64(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *encoder) texts(list []string) {
	e.number(uint64(len(list)))
	for _, s := range list {
		e.text(s)
	}
}

// decoder reads the fields of a frame; bad reports that some were missing.
type decoder struct {
	buf []byte
	bad bool
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.buf)
	if size <= 0 {
		d.bad = true
		return 0
	}
	d.buf = d.buf[size:]
	return n
}

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.buf)) {
		d.bad = true
		return ""
	}
	s := string(d.buf[:n])
	d.buf = d.buf[n:]
	return s
}

// texts appends to list.
func (d *decoder) texts(list []string) []string {
	for n := d.number(); n > 0 && !d.bad; n-- {
		list = append(list, d.text())
	}
	return list
}

// An answer has a fixed size. It is the end of a command or, with a descriptor, one of its outputs; or the end of the confinement, with
// the part that failed as its status.
type answer struct {
	ID, Errno, Status, Left, Stuck, StuckPID uint32
	OverMemory, CPU, Peak                    uint64
	Stream                                   Stream // of an output, plus one; 0: the end of a command
	Overdue                                  bool
}

const answerSize = 6*4 + 3*8 + 2

func (a *answer) append(buf []byte) []byte {
	for _, n := range []uint32{a.ID, a.Errno, a.Status, a.Left, a.Stuck, a.StuckPID} {
		buf = binary.LittleEndian.AppendUint32(buf, n)
	}
	for _, n := range []uint64{a.OverMemory, a.CPU, a.Peak} {
		buf = binary.LittleEndian.AppendUint64(buf, n)
	}
	overdue := byte(0)
	if a.Overdue {
		overdue = 1
	}
	return append(buf, byte(a.Stream), overdue)
}

func (a *answer) decode(buf []byte) {
	for i, to := range []*uint32{&a.ID, &a.Errno, &a.Status, &a.Left, &a.Stuck, &a.StuckPID} {
		*to = binary.LittleEndian.Uint32(buf[4*i:])
	}
	for i, to := range []*uint64{&a.OverMemory, &a.CPU, &a.Peak} {
		*to = binary.LittleEndian.Uint64(buf[6*4+8*i:])
	}
	a.Stream, a.Overdue = Stream(buf[answerSize-2]), buf[answerSize-1] != 0
}

// bootTime is the time since the machine has started, in milliseconds, with that for which it was suspended. It is the same in all processes.
func bootTime() uint64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)     // since Linux 2.6.39
	return uint64(now.Nano()) / uint64(time.Millisecond) //nolint:gosec // not negative
}

// untilOf is a time as bootTime; 0 for none. A pause of this process between its two clocks makes it too early, never too late.
func untilOf(at time.Time) uint64 {
	if at.IsZero() {
		return 0
	}
	now := bootTime()
	left := time.Until(at).Milliseconds()
	return uint64(max(1, int64(now)+left)) //nolint:gosec // milliseconds
}
