package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// errShort: a log entry or snapshot is truncated, or holds an impossible value.
var errShort = errors.New("damaged record")

// encoder appends values to buf: numbers as varints, strings preceded by their length.
type encoder struct {
	buf []byte
	sum hash.Hash64 // not nil: what is written is summed, and not kept
}

// drain sums what was written so far.
func (e *encoder) drain() {
	if e.sum != nil {
		_, _ = e.sum.Write(e.buf)
		e.buf = e.buf[:0]
	}
}

func (e *encoder) uint(v uint64)   { e.buf = binary.AppendUvarint(e.buf, v) }
func (e *encoder) int(v int64)     { e.buf = binary.AppendVarint(e.buf, v) }
func (e *encoder) fixed(v uint64)  { e.buf = binary.LittleEndian.AppendUint64(e.buf, v) }
func (e *encoder) string(s string) { e.uint(uint64(len(s))); e.buf = append(e.buf, s...) }
func (e *encoder) bytes(s []byte)  { e.uint(uint64(len(s))); e.buf = append(e.buf, s...) }

func (e *encoder) bool(v bool) {
	if v {
		e.buf = append(e.buf, 1)
	} else {
		e.buf = append(e.buf, 0)
	}
}

func (e *encoder) tag(n int, wire protowire.Type) {
	e.buf = protowire.AppendTag(e.buf, protowire.Number(n), wire)
}

// sized writes the output of fill, preceded by its length. The length is written afterwards: one byte is reserved, enough for records
// below 128 bytes, and the value is moved if it needs more.
func (e *encoder) sized(fill func()) {
	at := len(e.buf)
	e.buf = append(e.buf, 0)
	fill()
	size := len(e.buf) - at - 1
	if more := protowire.SizeVarint(uint64(size)) - 1; more > 0 {
		e.buf = append(e.buf, make([]byte, more)...)
		copy(e.buf[at+1+more:], e.buf[at+1:at+1+size])
	}
	protowire.AppendVarint(e.buf[:at], uint64(size))
}

// decoder reads what encoder wrote. The first error sticks; every later read returns zero.
type decoder struct {
	buf   []byte
	err   error
	needs string // for errors: a version that can read all records of this cluster; empty: unknown
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errShort
	}
	d.buf = nil
}

// newer fails with ErrVersion: only a newer program can read this.
func (d *decoder) newer(what string) {
	if d.err == nil {
		version := "a newer version"
		if d.needs != "" {
			version = d.needs + " or newer"
		}
		d.err = fmt.Errorf("%s: %w: install %s on this node and start it again", what, ErrVersion, version)
	}
	d.buf = nil
}

func (d *decoder) uint() uint64 {
	b := d.buf
	switch { // most are small
	case len(b) > 0 && b[0] < 0x80:
		d.buf = b[1:]
		return uint64(b[0])
	case len(b) > 1 && b[1] < 0x80:
		d.buf = b[2:]
		return uint64(b[0]&0x7f) | uint64(b[1])<<7
	}
	v, n := binary.Uvarint(d.buf)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) int() int64 { return protowire.DecodeZigZag(d.uint()) }

func (d *decoder) fixed() uint64 {
	if len(d.buf) < 8 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.buf)
	d.buf = d.buf[8:]
	return v
}

func (d *decoder) copyTo(to []byte) {
	if len(d.buf) < len(to) {
		d.fail()
		return
	}
	d.buf = d.buf[copy(to, d.buf):]
}

func (d *decoder) raw() []byte {
	n := d.uint()
	if n > uint64(len(d.buf)) {
		d.fail()
		return nil
	}
	v := d.buf[:n:n]
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) string() string { return string(d.raw()) }
func (d *decoder) bytes() []byte  { return slices.Clone(d.raw()) }

func (d *decoder) bool() bool {
	if len(d.buf) == 0 || d.buf[0] > 1 {
		d.fail()
		return false
	}
	v := d.buf[0] == 1
	d.buf = d.buf[1:]
	return v
}

// count reads the length of a list. Each element takes at least one byte, so a damaged length does not allocate more than the
// record could fill.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.buf)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (c *codec) completions(list *[]Completion) {
	if c.d == nil {
		c.e.completions(*list)
	} else {
		*list = c.d.completions(*list)
	}
}

// completions writes a list. Neighbouring tasks with neighbouring leases take five bytes each.
func (e *encoder) completions(list []Completion) {
	e.uint(uint64(len(list)))
	buf := e.buf
	var index, lease int64
	for i := range list {
		c := &list[i]
		buf = binary.AppendVarint(buf, int64(c.Index)-index-1)
		buf = binary.AppendVarint(buf, int64(c.Lease)-lease-1)
		index, lease = int64(c.Index), int64(c.Lease)
		buf = binary.AppendUvarint(buf, c.Size)
		buf = binary.AppendUvarint(buf, c.Records)
		buf = binary.AppendUvarint(buf, c.InputBytes)
		if c.Size > 0 {
			buf = binary.LittleEndian.AppendUint64(buf, c.Checksum)
		}
	}
	e.buf = buf
}

// completions appends a list of completions to list.
func (d *decoder) completions(list []Completion) []Completion {
	var index, lease int64
	for range d.count() {
		var i, l, size, records, input uint64
		if b := d.buf; len(b) >= 5 && b[0]|b[1]|b[2]|b[3]|b[4] < 0x80 { // most of those without output
			i, l, size, records, input = uint64(b[0]), uint64(b[1]), uint64(b[2]), uint64(b[3]), uint64(b[4])
			d.buf = b[5:]
		} else {
			i, l, size, records, input = d.uint(), d.uint(), d.uint(), d.uint(), d.uint()
		}
		index += protowire.DecodeZigZag(i) + 1
		lease += protowire.DecodeZigZag(l) + 1
		list = append(list, Completion{Index: uint64(index), Lease: Lease(lease), Size: size, Records: records, InputBytes: input})
		if c := &list[len(list)-1]; c.Size > 0 {
			c.Checksum = d.fixed()
		}
		if d.err != nil {
			return list[:len(list)-1]
		}
	}
	return list
}

// started is the start of each completion as a difference: those in one report are close together.
func (c *codec) started(list []Completion) {
	var last int64
	for i := range list {
		v := &list[i].Started
		if c.d == nil {
			c.e.int(int64(*v) - last)
			last = int64(*v)
			continue
		}
		last += c.d.int()
		if *v = uint32(last); int64(*v) != last {
			c.d.fail()
		}
	}
}

func (c *codec) millis(list []Completion) {
	for i := range list {
		numberValue(c, &list[i].Millis)
	}
}

func (c *codec) peaks(list []Completion) {
	for i := range list {
		numberValue(c, &list[i].PeakKiB)
	}
}

func (c *codec) seconds(list []Completion) {
	for i := range list {
		second := uint8(0)
		if list[i].Second {
			second = 1
		}
		numberValue(c, &second)
		list[i].Second = second == 1
	}
}

// nest reads a value that is a record or packed columns.
func (d *decoder) nest(read func()) {
	value := d.raw()
	rest := d.buf
	d.buf = value
	read()
	if len(d.buf) > 0 {
		d.fail()
	}
	if d.err == nil {
		d.buf = rest
	}
}

// finish returns the error, or that bytes are left. What and args name the record.
func (d *decoder) finish(what string, args ...any) error {
	err := d.err
	if err == nil && len(d.buf) > 0 {
		err = fmt.Errorf("%d bytes too many: %w", len(d.buf), errShort)
	}
	if err != nil {
		return fmt.Errorf(what+": %w", append(args, err)...)
	}
	return nil
}
