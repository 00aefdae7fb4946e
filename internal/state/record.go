package state

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// codec writes or reads records. One method describes each kind of record, for both: it passes the fields, in ascending order of their
// numbers, to the functions below, then calls end, then checks what it has read. It must not change a record that it writes: snapshots are
// written while other goroutines read them.
//
// A record is a list of fields, each a tag (number and wire type, as in protobuf) and a value, in ascending order of their numbers. Zero
// values are not written, and an absent field is zero, so fields can be added. Numbers are never reused. An unknown number is an error: if
// one node applied a field and another skipped it, they would diverge. In version 1 a record is the values of its first fields, without
// tags, so nothing can be added: what came later depends on level.
//
// CONTRIBUTING.md says how to add a field; docs/adr/0010-records-can-grow.md, why.
type codec struct {
	e *encoder
	d *decoder // nil: it writes
	// level is the feature level of what is written. 0 is version 1; all of version 2 is read at the highest level.
	level uint32

	// Of the record that is being read:
	next  int            // the number of the next field; 0: its tag has not been read
	wire  protowire.Type // of the next field
	asked int            // the last number passed to has
}

// has reports whether the value of field n must be written or read now. Zero says that it need not be written.
func (c *codec) has(n int, wire protowire.Type, zero bool) bool {
	switch {
	case c.level == 0:
		return true
	case c.d == nil:
		if !zero {
			c.e.tag(n, wire)
		}
		return !zero
	}
	c.asked = n
	if c.peek() != n {
		return false
	}
	if c.wire != wire {
		c.d.fail()
	}
	c.next = 0
	return true
}

// peek returns the number of the next field; 0: none.
func (c *codec) peek() int {
	if c.next == 0 && len(c.d.buf) > 0 {
		number, wire, size := protowire.ConsumeTag(c.d.buf)
		if size < 0 {
			c.d.fail()
			return 0
		}
		c.next, c.wire, c.d.buf = int(number), wire, c.d.buf[size:]
	}
	return c.next
}

// end ends a record. It fails if a field is left: only a newer program knows a larger number; a smaller one is out of order.
func (c *codec) end(record string) {
	switch {
	case c.level == 0 || c.d == nil || c.peek() == 0:
	case c.next > c.asked:
		c.d.newer(fmt.Sprintf("unknown field %d of %s", c.next, record))
	default:
		c.d.fail()
	}
}

// check fails if ok is false for a record that was read.
func (c *codec) check(ok func() bool) {
	if c.d != nil && c.d.err == nil && !ok() {
		c.d.fail()
	}
}

// nested writes or reads the value of a field that is a record or packed columns.
func (c *codec) nested(value func()) {
	switch {
	case c.level == 0:
		value()
	case c.d == nil:
		c.e.sized(value)
	default:
		asked := c.asked
		c.d.nest(value)
		c.asked, c.next = asked, 0
	}
}

// The functions with a number write or read a field, the others a value.

func number[T ~uint8 | ~uint32 | ~uint64](c *codec, n int, v *T) {
	if c.has(n, protowire.VarintType, *v == 0) {
		numberValue(c, v)
	}
}

func numberValue[T ~uint8 | ~uint32 | ~uint64](c *codec, v *T) {
	if c.d == nil {
		c.e.uint(uint64(*v))
		return
	}
	u := c.d.uint()
	if *v = T(u); uint64(*v) != u {
		c.d.fail()
	}
}

func (c *codec) int(n int, v *int64) {
	if c.has(n, protowire.VarintType, *v == 0) {
		c.intValue(v)
	}
}

func (c *codec) intValue(v *int64) {
	if c.d == nil {
		c.e.int(*v)
	} else {
		*v = c.d.int()
	}
}

func (c *codec) bool(n int, v *bool) {
	if c.has(n, protowire.VarintType, !*v) {
		c.boolValue(v)
	}
}

func (c *codec) boolValue(v *bool) {
	if c.d == nil {
		c.e.bool(*v)
	} else {
		*v = c.d.bool()
	}
}

func (c *codec) fixed(n int, v *uint64) {
	if c.has(n, protowire.Fixed64Type, *v == 0) {
		c.fixedValue(v)
	}
}

func (c *codec) fixedValue(v *uint64) {
	if c.d == nil {
		c.e.fixed(*v)
	} else {
		*v = c.d.fixed()
	}
}

func (c *codec) string(n int, v *string) {
	if c.has(n, protowire.BytesType, *v == "") {
		c.stringValue(v)
	}
}

func (c *codec) stringValue(v *string) {
	if c.d == nil {
		c.e.string(*v)
	} else {
		*v = c.d.string()
	}
}

func (c *codec) bytes(n int, v *[]byte) {
	if c.has(n, protowire.BytesType, len(*v) == 0) {
		c.bytesValue(v)
	}
}

func (c *codec) bytesValue(v *[]byte) {
	if c.d == nil {
		c.e.bytes(*v)
	} else {
		*v = c.d.bytes()
	}
}

// nest is a record, which is written also if it is empty.
func nest[T any](c *codec, n int, v *T, fields func(*codec, *T)) {
	if c.has(n, protowire.BytesType, false) {
		c.nested(func() { fields(c, v) })
	}
}

// optional is a record that may be nil. Version 1 writes whether it is there.
func optional[T any](c *codec, n int, v **T, fields func(*codec, *T)) {
	there := *v != nil
	if !c.has(n, protowire.BytesType, !there) {
		return
	}
	if c.level == 0 {
		if c.boolValue(&there); !there {
			return
		}
	}
	c.nested(func() { fields(c, made(v)) })
}

// made returns *v, which is allocated before it is read.
func made[T any](v **T) *T {
	if *v == nil {
		*v = new(T)
	}
	return *v
}

// list writes each element as a field of number n, also zero ones; version 1, their count before them.
func list[T any](c *codec, n int, wire protowire.Type, v *[]T, value func(*codec, *T)) {
	switch {
	case c.d != nil && c.level == 0:
		for range c.d.count() {
			if c.d.err != nil {
				return
			}
			readItem(c, v, value)
		}
	case c.d != nil:
		for c.has(n, wire, false) {
			readItem(c, v, value)
		}
	default:
		if c.level == 0 {
			c.e.uint(uint64(len(*v)))
		}
		for i := range *v {
			c.has(n, wire, false)
			value(c, &(*v)[i])
		}
	}
}

// readItem appends to v.
func readItem[T any](c *codec, v *[]T, value func(*codec, *T)) {
	*v = append(*v, *new(T))
	value(c, &(*v)[len(*v)-1])
}

func records[T any](c *codec, n int, v *[]T, fields func(*codec, *T)) {
	list(c, n, protowire.BytesType, v, func(c *codec, item *T) {
		c.nested(func() { fields(c, item) })
	})
}

// mapOf is a list of records {1: key, 2: value}, in key order.
func (c *codec) mapOf(n int, m *map[string]string) {
	var items [][2]string
	for _, k := range slices.Sorted(maps.Keys(*m)) {
		items = append(items, [2]string{k, (*m)[k]})
	}
	records(c, n, &items, func(c *codec, item *[2]string) {
		c.string(1, &item[0])
		c.string(2, &item[1])
		c.end("a setting, label or variable")
	})
	if c.d != nil && len(items) > 0 {
		*m = make(map[string]string, len(items))
		for _, item := range items {
			(*m)[item[0]] = item[1]
		}
	}
}

func (c *codec) spec(s *Spec) {
	c.string(1, &s.Name)
	c.string(2, &s.User)
	c.string(3, &s.Builtin)
	list(c, 4, protowire.BytesType, &s.Argv, (*codec).bytesValue)
	nest(c, 5, &s.Input, (*codec).input)
	list(c, 6, protowire.BytesType, &s.InputNames, (*codec).stringValue)
	c.string(7, &s.Output)
	c.bool(8, &s.Spool)
	c.bool(9, &s.Overwrite)
	c.bool(10, &s.KeepPartial)
	c.bool(11, &s.FirstSuccess)
	c.bool(12, &s.Collect)
	c.mapOf(13, &s.Settings)
	c.string(14, &s.Dir)
	number(c, 15, &s.Retries)
	number(c, 16, &s.Priority)
	number(c, 17, &s.SlotsPerTask)
	number(c, 18, &s.TimeoutMS)
	number(c, 19, &s.Memory)
	c.mapOf(20, &s.Labels)
	if c.level > 0 {
		records(c, 21, &s.Stages, (*codec).stageSpec)
	}
	if c.level >= 2 {
		number(c, 22, &s.GraceMS)
		c.string(23, &s.Records)
		number(c, 24, &s.Header)
		c.mapOf(25, &s.Env)
		records(c, 26, &s.Secrets, (*codec).secret)
		c.bool(27, &s.Sandbox)
		c.bool(28, &s.NoNetwork)
		number(c, 29, &s.Placeholders)
		c.string(30, &s.Placeholder)
		c.bool(31, &s.Shell)
		optional(c, 32, &s.MaxFails, (*codec).failLimit)
		number(c, 33, &s.RetryDelayMS)
		number(c, 34, &s.DelayMS)
		number(c, 35, &s.MaxRunning)
		records(c, 36, &s.Resources, (*codec).resource)
		c.string(40, &s.NameParts)
		records(c, 45, &s.After, (*codec).dependency)
		optional(c, 46, &s.Deferred, (*codec).deferred)
		c.specReduce(s)
		c.specLocks(s)
		c.bool(60, &s.NoSecond)
		number(c, 62, &s.SplitMax)
		optional(c, 63, &s.Pack, (*codec).packing)
	}
	c.end("a job's spec")
	if c.d != nil && len(s.Stages) == 0 {
		s.Stages = DefaultPlan(s.Input.Tasks, s.Collect, !s.Spool)
	}
	c.check(func() bool { return checkPlan(s.Stages, &s.Input) == nil && len(s.After) <= AfterMax })
}

func (c *codec) specReduce(s *Spec) {
	c.string(48, &s.Combine)
	c.string(53, &s.Class)
	c.string(54, &s.Reduce)
	number(c, 55, &s.Partitions)
}

func (c *codec) dependency(d *Dependency) {
	number(c, 1, &d.Job)
	c.bool(2, &d.Any)
	number(c, 3, &d.Peer)
	c.end("a job that another comes after")
}

func (c *codec) deferred(d *Deferred) {
	number(c, 1, &d.Split)
	c.end("a deferred input")
}

func (c *codec) packing(p *Packing) {
	number(c, 1, &p.Size)
	c.bool(2, &p.Fitted)
	c.end("the packing of small files")
}

func (c *codec) submission(s *Submission) {
	c.string(1, &s.UID)
	optional(c, 2, &s.Spec, (*codec).spec)
	number(c, 3, &s.Staged)
	c.end("a job of a submission")
	c.check(func() bool { return s.Spec != nil })
}

func (c *codec) growth(g *Growth) {
	number(c, 1, &g.Tasks)
	number(c, 2, &g.Bytes)
	c.bool(3, &g.Last)
	c.end("the growth of a job's input")
}

func (c *codec) failLimit(l *FailLimit) {
	number(c, 1, &l.N)
	c.bool(2, &l.Percent)
	c.end("a limit of failed tasks")
}

func (c *codec) resource(r *Resource) {
	c.string(1, &r.Name)
	number(c, 2, &r.N)
	c.end("a resource")
}

func (c *codec) secret(s *Secret) {
	c.string(1, &s.Name)
	c.bytes(2, &s.Sealed)
	c.end("a secret")
}

func (c *codec) stageSpec(s *StageSpec) {
	c.string(1, &s.Name)
	number(c, 2, &s.Role)
	number(c, 3, &s.Tasks)
	list(c, 4, protowire.VarintType, &s.From, numberValue)
	c.bool(5, &s.Ranges)
	c.bool(6, &s.Fitted)
	c.end("a stage's plan")
}

func (c *codec) input(in *Input) {
	number(c, 1, &in.Kind)
	number(c, 2, &in.Tasks)
	number(c, 3, &in.Bytes)
	c.int(4, &in.From)
	number(c, 5, &in.SplitSize)
	records(c, 6, &in.Blocks, (*codec).block)
	if c.level >= 2 {
		records(c, 7, &in.Changed, (*codec).fileChange)
		records(c, 8, &in.Axes, (*codec).axis)
		number(c, 9, &in.Items)
		c.fixed(10, &in.Seed)
		number(c, 11, &in.Batch)
		c.bool(12, &in.Growing)
	}
	c.end("a job's input")
	c.check(func() bool { return in.valid() && in.Tasks <= MaxTasks })
}

func (c *codec) axis(a *Axis) {
	list(c, 1, protowire.BytesType, &a.Columns, (*codec).stringValue)
	c.bool(2, &a.Linked)
	number(c, 3, &a.Rows)
	records(c, 4, &a.Ranges, (*codec).numbers)
	number(c, 5, &a.Blocks)
	c.end("an axis of a list")
}

func (c *codec) numbers(n *Numbers) {
	c.int(1, &n.From)
	c.int(2, &n.To)
	number(c, 3, &n.Step)
	number(c, 4, &n.Width)
	c.end("a range of numbers")
}

func (c *codec) block(b *Block) {
	number(c, 1, &b.First)
	c.bytes(2, &b.Data)
	if c.level >= 2 {
		c.bytes(3, &b.Versions)
		c.bytes(4, &b.Cuts)
		c.bytes(5, &b.Packs)
	}
	c.end("an input block")
	if c.e != nil {
		c.e.drain()
	}
}

func (c *codec) fileChange(f *FileChange) {
	number(c, 1, &f.Task)
	number(c, 2, &f.Version.Size)
	c.int(3, &f.Version.Modified)
	number(c, 4, &f.Version.Identity)
	c.fixed(5, &f.Version.Tail)
	number(c, 6, &f.File)
	c.end("a changed file")
}

func (c *codec) outputRange(r *OutputRange) {
	number(c, 1, &r.Stage)
	number(c, 2, &r.First)
	number(c, 3, &r.Tasks)
	c.end("lost outputs")
}

func (c *codec) warning(w *Warning) {
	number(c, 1, &w.Stage)
	number(c, 2, &w.Task)
	c.string(3, &w.Text)
	c.end("a warning")
}

func (c *codec) workerInfo(w *WorkerInfo) {
	c.string(1, &w.Identity)
	c.string(2, &w.Host)
	c.string(3, &w.Address)
	c.string(4, &w.Version)
	number(c, 5, &w.Slots)
	number(c, 6, &w.Memory)
	c.mapOf(7, &w.Labels)
	if c.level >= 2 {
		list(c, 8, protowire.BytesType, &w.Confinement, (*codec).stringValue)
		records(c, 9, &w.Resources, (*codec).resource)
		number(c, 10, &w.Claim)
	}
	c.end("a worker")
}

func (c *codec) failure(f *Failure) {
	number(c, 1, &f.Kind)
	number(c, 2, &f.Attempt)
	number(c, 3, &f.Worker)
	number(c, 4, &f.Lease)
	c.int(5, &f.Time)
	c.string(6, &f.Message)
	if c.level >= 2 {
		number(c, 7, &f.Millis)
		number(c, 8, &f.WaitMS)
		c.bool(9, &f.Cancel)
	}
	c.end("a failure")
	c.check(func() bool { return f.Kind < failureKinds })
}
