package keeper

import "encoding/binary"

// A request is a frame: its length in 4 bytes, its kind, and fields. The standard input of a start, if it is not /dev/null, is sent with it.
const (
	kindJob      = 'J' // folder, environment, users (none, or UID, GID and groups): of the starts that follow
	kindConfine  = 'F' // 1 if so, for each of a Confinement; Temp. The first; it is answered
	kindStart    = 'S' // id, memory, 1 if with a descriptor, path, arguments, more environment
	kindStop     = 'T' // id, grace in ms
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
}

const answerSize = 6*4 + 3*8 + 1

func (a *answer) append(buf []byte) []byte {
	for _, n := range []uint32{a.ID, a.Errno, a.Status, a.Left, a.Stuck, a.StuckPID} {
		buf = binary.LittleEndian.AppendUint32(buf, n)
	}
	for _, n := range []uint64{a.OverMemory, a.CPU, a.Peak} {
		buf = binary.LittleEndian.AppendUint64(buf, n)
	}
	return append(buf, byte(a.Stream))
}

func (a *answer) decode(buf []byte) {
	for i, to := range []*uint32{&a.ID, &a.Errno, &a.Status, &a.Left, &a.Stuck, &a.StuckPID} {
		*to = binary.LittleEndian.Uint32(buf[4*i:])
	}
	for i, to := range []*uint64{&a.OverMemory, &a.CPU, &a.Peak} {
		*to = binary.LittleEndian.Uint64(buf[6*4+8*i:])
	}
	a.Stream = Stream(buf[answerSize-1])
}
