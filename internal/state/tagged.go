package state

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// A tagged record is a list of fields, each a tag (number and wire type, as in protobuf) and a value, in ascending order of
// their numbers. Zero values are not written, and an absent field is zero, so fields can be added. Numbers are never reused. An
// unknown number is an error: if one node applied a field and another skipped it, they would diverge.
//
// CONTRIBUTING.md says how to add a field; docs/adr/0010-records-can-grow.md, why.

func (e *encoder) tag(n int, t protowire.Type) {
	e.buf = protowire.AppendTag(e.buf, protowire.Number(n), t)
}

func (e *encoder) uintField(n int, v uint64) {
	if v != 0 {
		e.tag(n, protowire.VarintType)
		e.uint(v)
	}
}

func (e *encoder) intField(n int, v int64) { e.uintField(n, protowire.EncodeZigZag(v)) }

func (e *encoder) boolField(n int, v bool) { e.uintField(n, protowire.EncodeBool(v)) }

func (e *encoder) fixedField(n int, v uint64) {
	if v != 0 {
		e.tag(n, protowire.Fixed64Type)
		e.fixed(v)
	}
}

func (e *encoder) stringField(n int, s string) {
	if s != "" {
		e.tag(n, protowire.BytesType)
		e.string(s)
	}
}

func (e *encoder) bytesField(n int, b []byte) {
	if len(b) > 0 {
		e.bytesItem(n, b)
	}
}

// bytesItem writes an element of a list: unlike a field, also if it is empty.
func (e *encoder) bytesItem(n int, b []byte) {
	e.tag(n, protowire.BytesType)
	e.bytes(b)
}

func (e *encoder) stringItems(n int, list []string) {
	for _, s := range list {
		e.tag(n, protowire.BytesType)
		e.string(s)
	}
}

// mapField writes m as a list of records {1: key, 2: value}, in key order.
func (e *encoder) mapField(n int, m map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.nest(n, func() {
			e.stringField(1, k)
			e.stringField(2, m[k])
		})
	}
}

// nest writes the output of fill as the value of field n, also if it is empty. The length is written afterwards: one byte is reserved,
// enough for records below 128 bytes, and the value is moved if it needs more.
func (e *encoder) nest(n int, fill func()) {
	e.tag(n, protowire.BytesType)
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

// fields yields the field numbers of the record in d. The loop's body reads the value of each, and calls unknown for other numbers.
func (d *decoder) fields() iter.Seq[int] {
	return func(yield func(int) bool) {
		for last := 0; d.err == nil && len(d.buf) > 0; {
			number, t, tagBytes := protowire.ConsumeTag(d.buf)
			n := int(number)
			if tagBytes < 0 || n < last {
				d.fail()
				return
			}
			last, d.buf = n, d.buf[tagBytes:]
			size := protowire.ConsumeFieldValue(number, t, d.buf)
			if size < 0 {
				d.fail()
				return
			}
			rest := len(d.buf) - size
			if !yield(n) {
				return
			}
			if d.err == nil && len(d.buf) != rest {
				d.fail() // the value is not of the field's type
			}
		}
	}
}

// unknown fails because of field n of a record.
func (d *decoder) unknown(n int, record string) {
	d.newer(fmt.Sprintf("unknown field %d of %s", n, record))
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

func nested[T any](d *decoder, read func(*decoder) T) (v T) {
	d.nest(func() { v = read(d) })
	return v
}

// mapItem reads one record of mapField into *m.
func (d *decoder) mapItem(m *map[string]string) {
	if *m == nil {
		*m = map[string]string{}
	}
	item := nested(d, func(d *decoder) (item [2]string) {
		for n := range d.fields() {
			switch n {
			case 1, 2:
				item[n-1] = d.string()
			default:
				d.unknown(n, "a setting or label")
			}
		}
		return item
	})
	(*m)[item[0]] = item[1]
}

func (e *encoder) spec(s *Spec) {
	e.stringField(1, s.Name)
	e.stringField(2, s.User)
	e.stringField(3, s.Builtin)
	for _, a := range s.Argv {
		e.bytesItem(4, a)
	}
	e.nest(5, func() { e.input(&s.Input) })
	e.stringItems(6, s.InputNames)
	e.stringField(7, s.Output)
	e.boolField(8, s.Spool)
	e.boolField(9, s.Overwrite)
	e.boolField(10, s.KeepPartial)
	e.boolField(11, s.FirstSuccess)
	e.boolField(12, s.Collect)
	e.mapField(13, s.Settings)
	e.stringField(14, s.Dir)
	e.uintField(15, uint64(s.Retries))
	e.uintField(16, uint64(s.Priority))
	e.uintField(17, uint64(s.SlotsPerTask))
	e.uintField(18, s.TimeoutMS)
	e.uintField(19, s.Memory)
	e.mapField(20, s.Labels)
	for i := range s.Stages {
		e.nest(21, func() { e.stageSpec(&s.Stages[i]) })
	}
}

func (d *decoder) spec() *Spec {
	s := &Spec{}
	for n := range d.fields() {
		switch n {
		case 1:
			s.Name = d.string()
		case 2:
			s.User = d.string()
		case 3:
			s.Builtin = d.string()
		case 4:
			s.Argv = append(s.Argv, d.bytes())
		case 5:
			s.Input = nested(d, (*decoder).input)
		case 6:
			s.InputNames = append(s.InputNames, d.string())
		case 7:
			s.Output = d.string()
		case 8:
			s.Spool = d.bool()
		case 9:
			s.Overwrite = d.bool()
		case 10:
			s.KeepPartial = d.bool()
		case 11:
			s.FirstSuccess = d.bool()
		case 12:
			s.Collect = d.bool()
		case 13:
			d.mapItem(&s.Settings)
		case 14:
			s.Dir = d.string()
		case 15:
			s.Retries = d.uint32()
		case 16:
			s.Priority = d.uint32()
		case 17:
			s.SlotsPerTask = d.uint32()
		case 18:
			s.TimeoutMS = d.uint()
		case 19:
			s.Memory = d.uint()
		case 20:
			d.mapItem(&s.Labels)
		case 21:
			s.Stages = append(s.Stages, nested(d, (*decoder).stageSpec))
		default:
			d.unknown(n, "a job's spec")
		}
	}
	d.checkPlan(s)
	return s
}

// checkPlan refuses an invalid plan, and makes the default one if there is none.
func (d *decoder) checkPlan(s *Spec) {
	if len(s.Stages) == 0 {
		s.Stages = DefaultPlan(s.Input.Tasks, s.Collect, !s.Spool)
	}
	if d.err == nil && checkPlan(s.Stages, &s.Input) != nil {
		d.fail()
	}
}

func (e *encoder) stageSpec(s *StageSpec) {
	e.stringField(1, s.Name)
	e.uintField(2, uint64(s.Role))
	e.uintField(3, s.Tasks)
	for _, from := range s.From {
		e.tag(4, protowire.VarintType)
		e.uint(uint64(from))
	}
}

func (d *decoder) stageSpec() (s StageSpec) {
	for n := range d.fields() {
		switch n {
		case 1:
			s.Name = d.string()
		case 2:
			s.Role = StageRole(d.uint8())
		case 3:
			s.Tasks = d.uint()
		case 4:
			s.From = append(s.From, d.uint32())
		default:
			d.unknown(n, "a stage's plan")
		}
	}
	return s
}

func (e *encoder) input(in *Input) {
	e.uintField(1, uint64(in.Kind))
	e.uintField(2, in.Tasks)
	e.uintField(3, in.Bytes)
	e.intField(4, in.From)
	e.uintField(5, in.SplitSize)
	for _, b := range in.Blocks {
		e.nest(6, func() {
			e.uintField(1, b.First)
			e.bytesField(2, b.Data)
		})
	}
}

func (d *decoder) input() Input {
	var in Input
	for n := range d.fields() {
		switch n {
		case 1:
			in.Kind = InputKind(d.uint8())
		case 2:
			in.Tasks = d.uint()
		case 3:
			in.Bytes = d.uint()
		case 4:
			in.From = d.int()
		case 5:
			in.SplitSize = d.uint()
		case 6:
			in.Blocks = append(in.Blocks, nested(d, (*decoder).block))
		default:
			d.unknown(n, "a job's input")
		}
	}
	d.checkInput(&in)
	return in
}

// checkInput fails if a decoded input is out of bounds.
func (d *decoder) checkInput(in *Input) {
	if in.Kind > InputFiles || in.Tasks > MaxTasks {
		d.fail()
	}
}

func (d *decoder) block() (b Block) {
	for n := range d.fields() {
		switch n {
		case 1:
			b.First = d.uint()
		case 2:
			b.Data = d.bytes()
		default:
			d.unknown(n, "an input block")
		}
	}
	return b
}

func (e *encoder) workerInfo(w *WorkerInfo) {
	e.stringField(1, w.Identity)
	e.stringField(2, w.Host)
	e.stringField(3, w.Address)
	e.stringField(4, w.Version)
	e.uintField(5, uint64(w.Slots))
	e.uintField(6, w.Memory)
	e.mapField(7, w.Labels)
}

func (d *decoder) workerInfo() (w WorkerInfo) {
	for n := range d.fields() {
		switch n {
		case 1:
			w.Identity = d.string()
		case 2:
			w.Host = d.string()
		case 3:
			w.Address = d.string()
		case 4:
			w.Version = d.string()
		case 5:
			w.Slots = d.uint32()
		case 6:
			w.Memory = d.uint()
		case 7:
			d.mapItem(&w.Labels)
		default:
			d.unknown(n, "a worker")
		}
	}
	return w
}

func (e *encoder) failure(f *Failure) {
	e.uintField(1, uint64(f.Kind))
	e.uintField(2, uint64(f.Attempt))
	e.uintField(3, uint64(f.Worker))
	e.uintField(4, uint64(f.Lease))
	e.intField(5, f.Time)
	e.stringField(6, f.Message)
}

func (d *decoder) failure() (f Failure) {
	for n := range d.fields() {
		switch n {
		case 1:
			f.Kind = FailureKind(d.uint8())
		case 2:
			f.Attempt = d.uint32()
		case 3:
			f.Worker = WorkerID(d.uint())
		case 4:
			f.Lease = Lease(d.uint())
		case 5:
			f.Time = d.int()
		case 6:
			f.Message = d.string()
		default:
			d.unknown(n, "a failure")
		}
	}
	if f.Kind >= failureKinds {
		d.fail()
	}
	return f
}
