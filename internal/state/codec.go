package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// errShort is a log entry or snapshot that ends too early or has a number that cannot be.
var errShort = errors.New("damaged record")

// encoder appends values to buf: numbers as varints, strings with their length before them.
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

// stringMap writes m in key order, so that equal maps have equal bytes.
func (e *encoder) stringMap(m map[string]string) {
	e.uint(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.string(k)
		e.string(m[k])
	}
}

func (e *encoder) strings(list []string) {
	e.uint(uint64(len(list)))
	for _, s := range list {
		e.string(s)
	}
}

// decoder reads what encoder wrote. The first error sticks; after it every read gives zero.
type decoder struct {
	buf []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errShort
	}
	d.buf = nil
}

func (d *decoder) uint() uint64 {
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

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.buf)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) fixed() uint64 {
	if len(d.buf) < 8 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.buf)
	d.buf = d.buf[8:]
	return v
}

func (d *decoder) copy(to []byte) {
	if len(d.buf) < len(to) {
		d.fail()
		return
	}
	d.buf = d.buf[copy(to, d.buf):]
}

func (d *decoder) take() []byte {
	n := d.uint()
	if n > uint64(len(d.buf)) {
		d.fail()
		return nil
	}
	v := d.buf[:n:n]
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) string() string { return string(d.take()) }
func (d *decoder) bytes() []byte  { return slices.Clone(d.take()) }

func (d *decoder) bool() bool {
	if len(d.buf) == 0 || d.buf[0] > 1 {
		d.fail()
		return false
	}
	v := d.buf[0] == 1
	d.buf = d.buf[1:]
	return v
}

// count reads the length of a list whose entries take at least one byte each, so a damaged length cannot ask for memory
// that the record could never fill.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.buf)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) stringMap() map[string]string {
	n := d.count()
	if n == 0 {
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := d.string()
		m[k] = d.string()
	}
	return m
}

func (d *decoder) strings() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, d.string())
	}
	return list
}

func (e *encoder) spec(s *Spec) {
	e.string(s.Name)
	e.string(s.User)
	e.string(s.Builtin)
	e.uint(uint64(len(s.Argv)))
	for _, a := range s.Argv {
		e.bytes(a)
	}
	e.input(&s.Input)
	e.strings(s.InputNames)
	e.string(s.Output)
	for _, b := range []bool{s.Spool, s.Overwrite, s.KeepPartial, s.FirstSuccess, s.Collect} {
		e.bool(b)
	}
	e.stringMap(s.Settings)
	e.string(s.Dir)
	for _, v := range []uint64{uint64(s.Retries), uint64(s.Priority), uint64(s.SlotsPerTask), s.TimeoutMS, s.Memory} {
		e.uint(v)
	}
	e.stringMap(s.Labels)
}

func (d *decoder) spec() *Spec {
	s := &Spec{Name: d.string(), User: d.string(), Builtin: d.string()}
	for range d.count() {
		s.Argv = append(s.Argv, d.bytes())
	}
	s.Input = d.input()
	s.InputNames = d.strings()
	s.Output = d.string()
	for _, b := range []*bool{&s.Spool, &s.Overwrite, &s.KeepPartial, &s.FirstSuccess, &s.Collect} {
		*b = d.bool()
	}
	s.Settings = d.stringMap()
	s.Dir = d.string()
	s.Retries, s.Priority, s.SlotsPerTask = d.uint32(), d.uint32(), d.uint32()
	s.TimeoutMS, s.Memory = d.uint(), d.uint()
	s.Labels = d.stringMap()
	return s
}

func (e *encoder) input(in *Input) {
	e.uint(uint64(in.Kind))
	e.uint(in.Tasks)
	e.uint(in.Bytes)
	e.int(in.From)
	e.uint(in.SplitSize)
	e.uint(uint64(len(in.Blocks)))
	for _, b := range in.Blocks {
		e.uint(b.First)
		e.bytes(b.Data)
	}
}

func (d *decoder) input() Input {
	in := Input{Kind: InputKind(d.uint8()), Tasks: d.uint(), Bytes: d.uint(), From: d.int(), SplitSize: d.uint()}
	if in.Kind > InputFiles || in.Tasks > MaxTasks {
		d.fail()
	}
	for range d.count() {
		in.Blocks = append(in.Blocks, Block{First: d.uint(), Data: d.bytes()})
	}
	return in
}

func (e *encoder) workerInfo(w *WorkerInfo) {
	e.string(w.Identity)
	e.string(w.Host)
	e.string(w.Address)
	e.string(w.Version)
	e.uint(uint64(w.Slots))
	e.uint(w.Memory)
	e.stringMap(w.Labels)
}

func (d *decoder) workerInfo() WorkerInfo {
	return WorkerInfo{
		Identity: d.string(), Host: d.string(), Address: d.string(), Version: d.string(),
		Slots: d.uint32(), Memory: d.uint(), Labels: d.stringMap(),
	}
}

func (e *encoder) failure(f Failure) {
	e.uint(uint64(f.Kind))
	e.uint(uint64(f.Attempt))
	e.uint(uint64(f.Worker))
	e.uint(uint64(f.Lease))
	e.int(f.Time)
	e.string(f.Message)
}

func (d *decoder) failure() Failure {
	f := Failure{Kind: FailureKind(d.uint8())}
	if f.Kind >= failureKinds {
		d.fail()
	}
	f.Attempt, f.Worker, f.Lease, f.Time = d.uint32(), WorkerID(d.uint()), Lease(d.uint()), d.int()
	f.Message = d.string()
	return f
}

// completions writes a list: neighbouring tasks of neighbouring leases take five bytes each.
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

// done is the check that a record was read to its end. What and args name the record.
func (d *decoder) done(what string, args ...any) error {
	err := d.err
	if err == nil && len(d.buf) > 0 {
		err = fmt.Errorf("%d bytes too many: %w", len(d.buf), errShort)
	}
	if err != nil {
		return fmt.Errorf(what+": %w", append(args, err)...)
	}
	return nil
}
