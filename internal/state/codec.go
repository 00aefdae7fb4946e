package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// errShort: a log entry or snapshot is truncated, or holds an impossible value.
var errShort = errors.New("damaged record")

// encoder appends values to buf: numbers as varints, strings preceded by their length.
type encoder struct{ buf []byte }

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
	if len(d.buf) > 0 && d.buf[0] < 0x80 { // most are small
		v := d.buf[0]
		d.buf = d.buf[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(d.buf)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uint()
	if v > math.MaxUint32 {
		d.fail()
		return 0
	}
	return uint32(v)
}

func (d *decoder) uint8() uint8 {
	v := d.uint()
	if v > math.MaxUint8 {
		d.fail()
		return 0
	}
	return uint8(v)
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

// completions writes a list. Neighbouring tasks with neighbouring leases take five bytes each.
func (e *encoder) completions(list []Completion) {
	e.uint(uint64(len(list)))
	var index, lease int64
	for i := range list {
		c := &list[i]
		e.int(int64(c.Index) - index - 1)
		e.int(int64(c.Lease) - lease - 1)
		index, lease = int64(c.Index), int64(c.Lease)
		e.uint(c.Size)
		e.uint(c.Records)
		e.uint(c.InputBytes)
		if c.Size > 0 {
			e.fixed(c.Checksum)
		}
	}
}

// completions appends a list of completions to list.
func (d *decoder) completions(list []Completion) []Completion {
	var index, lease int64
	for range d.count() {
		index += d.int() + 1
		lease += d.int() + 1
		c := Completion{Index: uint64(index), Lease: Lease(lease), Size: d.uint(), Records: d.uint(), InputBytes: d.uint()}
		if c.Size > 0 {
			c.Checksum = d.fixed()
		}
		if d.err != nil {
			break
		}
		list = append(list, c)
	}
	return list
}

// startedColumn writes the start of each completion as a difference: those in one report are close together.
func (e *encoder) startedColumn(list []Completion) {
	var last int64
	for i := range list {
		e.int(int64(list[i].Started) - last)
		last = int64(list[i].Started)
	}
}

func (d *decoder) startedColumn(list []Completion) {
	var last int64
	for i := range list {
		if last += d.int(); last < 0 || last > math.MaxUint32 {
			d.fail()
			return
		}
		list[i].Started = uint32(last)
	}
}

func (e *encoder) millisColumn(list []Completion) {
	for i := range list {
		e.uint(uint64(list[i].Millis))
	}
}

func (d *decoder) millisColumn(list []Completion) {
	for i := range list {
		list[i].Millis = d.uint32()
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
