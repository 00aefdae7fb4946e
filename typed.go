package bridgefour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/hooks"
	"github.com/bridgefour/bridgefour/internal/stage"
)

// A Dataset is what a stage reads: the records of the input ([Lines], [Records], [CSV], [JSONL]), the pairs of another stage ([Pairs]), or these by
// key ([Groups]).
type Dataset[T any] interface {
	data() data[T]
}

// Emit takes a pair. Key and value are copied. It must not be called after the function that it was given to has returned.
type Emit[K, V any] func(key K, value V)

// KV is a key with a value.
type KV[K, V any] struct {
	Key   K
	Value V
}

// Output is what a job's building function returns: the pairs that its last stage writes, as lines KEY<TAB>VALUE. The fields of a struct
// have tabs between them. Of a pair whose value is struct{}, the line is the key.
type Output interface {
	output() (*node, error)
}

// node is a stage and those before it.
type node struct {
	before     *node // nil: the first stage
	name       string
	partition  stage.Partition // of what it reads
	partitions int             // 0: depends on the size of the input
	// link returns what runs a task of the stage.
	link func(x *execution) func() error
}

// execution runs the tasks of one slot, one after the other.
type execution struct {
	task Task
	spec *stage.Task
	err  error // the first one of a sink, or of reading pairs
}

func (x *execution) fail(err error) {
	if x.err == nil {
		x.err = err
	}
}

// data is a dataset in the making: what its stage will read, and how elements come from that.
type data[T any] struct {
	from node // but for its name and link
	err  error
	// link returns what runs a task of the stage that calls take for each element. It stops at an error of take, and returns it.
	link func(x *execution, take func(T) error) func() error
}

// Pairs are pairs of a key and a value. As a [Dataset], they are read by the stage that makes them: no shuffle takes place.
//
// Keys and values are strings, []byte, booleans, numbers, or structs of these, whose fields may be unexported. Keys have the order of [cmp.Compare], field by
// field; false is before true. A []byte is valid until the function that it was given to returns or takes the next one.
type Pairs[K, V any] struct {
	from node
	err  error
	link func(x *execution, emit Emit[K, V]) func() error
}

func (p Pairs[K, V]) data() data[KV[K, V]] {
	return data[KV[K, V]]{from: p.from, err: p.err, link: func(x *execution, take func(KV[K, V]) error) func() error {
		return p.link(x, func(key K, value V) {
			if x.err == nil {
				x.err = take(KV[K, V]{key, value})
			}
		})
	}}
}

// Map calls f for each element. It may emit any number of pairs.
func Map[T, K, V any](in Dataset[T], f func(t *Task, element T, emit Emit[K, V]) error) Pairs[K, V] {
	d := in.data()
	return Pairs[K, V]{from: d.from, err: errors.Join(d.err, notNil("Map", f == nil)), link: func(x *execution, emit Emit[K, V]) func() error {
		return d.link(x, func(element T) error {
			if err := f(&x.task, element, emit); err != nil {
				return err
			}
			return x.err
		})
	}}
}

// notNil is an error of the function of a stage, if that is nil.
func notNil(stage string, isNil bool) error {
	if isNil {
		return fmt.Errorf("the function of a %s is nil", stage)
	}
	return nil
}

// codecs are those of a pair.
type codecs struct{ key, value *codec }

func codecsOf[K, V any]() (c codecs, err error) {
	if c.key, err = codecOf[K](); err != nil {
		return c, fmt.Errorf("key: %w", err)
	}
	if c.value, err = codecOf[V](); err != nil {
		return c, fmt.Errorf("value: %w", err)
	}
	return c, nil
}

// sink encodes pairs and emits them. It holds them while they are encoded, so that they do not escape to the heap one by one.
type sink[K, V any] struct {
	x            *execution
	codecs       codecs
	key          K
	value        V
	keyTo, valTo []byte
}

// free frees the buffers if they are large, and what they hold, after a task.
func (s *sink[K, V]) free() {
	*s = sink[K, V]{x: s.x, codecs: s.codecs, keyTo: kept(s.keyTo), valTo: kept(s.valTo)}
}

// kept is a buffer for the next task, unless a long record has made it large.
func kept(buf []byte) []byte {
	if cap(buf) > bufferKept {
		return nil
	}
	return buf
}

func (s *sink[K, V]) encodeKey(key K) []byte {
	s.key = key
	s.keyTo = s.codecs.key.key(s.keyTo[:0], unsafe.Pointer(&s.key), true)
	return s.keyTo
}

// emit emits a pair whose key is encoded.
func (s *sink[K, V]) emit(key []byte, value *V) {
	s.valTo = s.codecs.value.value(s.valTo[:0], unsafe.Pointer(value), true)
	if s.x.err == nil {
		s.x.err = s.x.spec.Emit(key, s.valTo)
	}
}

// shuffled ends the stage that makes pairs: they are read by next. A combine that is not nil adds values before that.
func (p Pairs[K, V]) shuffled(next node, combine func(a, b V) V) (node, codecs, error) {
	c, err := codecsOf[K, V]()
	before := p.from
	next.before = &before
	before.link = func(x *execution) func() error {
		s := &sink[K, V]{x: x, codecs: c}
		if combine == nil {
			run := p.link(x, func(key K, value V) {
				s.value = value
				s.emit(s.encodeKey(key), &s.value)
			})
			return func() error {
				defer s.free()
				return run()
			}
		}
		sums := combiner[V]{add: combine, value: c.value, emit: s.emit}
		run := p.link(x, func(key K, value V) { sums.put(s.encodeKey(key), value) })
		return func() error {
			defer s.free()
			sums.table.Begin(x.spec.Memory)
			err := run()
			if err == nil {
				sums.flush()
			}
			return err
		}
	}
	return next, c, errors.Join(p.err, err)
}

// Combine adds the values of each key, such as by [Sum]. It does so before the shuffle, as far as memory allows, and again after it. So add must
// be associative; values are added in no certain order unless it also is commutative.
func Combine[K, V any](in Pairs[K, V], add func(a, b V) V) Pairs[K, V] {
	out := grouped(in, node{name: "combine"}, add)
	return Pairs[K, V]{from: out.from, err: errors.Join(out.err, notNil("Combine", add == nil)), link: func(x *execution, emit Emit[K, V]) func() error {
		var sum V // of a key after the other
		first := true
		one := func(v V) bool {
			if first {
				sum, first = v, false
			} else {
				sum = add(sum, v)
			}
			if own := out.codecs.value.own; own != nil {
				own(unsafe.Pointer(&sum))
			}
			return true
		}
		return out.link(x, func(g Group[K, V]) error {
			first = true
			if g.Values(one); x.err == nil {
				emit(g.Key, sum)
			}
			return x.err
		})
	}}
}

// Group is a key with its values. They are in the order of the splits of the input, and in which each task emitted them. They can be read
// once, as far as is needed: they need not fit into memory. After the function that a group was given to has returned, they are those of another one.
type Group[K, V any] struct {
	Key    K
	Values iter.Seq[V]
}

// Groups are the pairs by key, in order of the keys.
func Groups[K, V any](in Pairs[K, V]) Dataset[Group[K, V]] {
	return grouped(in, node{name: "reduce"}, nil)
}

// grouped ends the stage that makes pairs, as shuffled: next reads them by key.
func grouped[K, V any](in Pairs[K, V], next node, combine func(a, b V) V) groups[K, V] {
	from, c, err := in.shuffled(next, combine)
	return groups[K, V]{from: from, codecs: c, err: err}
}

type groups[K, V any] struct {
	from   node
	codecs codecs
	err    error
}

func (g groups[K, V]) data() data[Group[K, V]] { return data[Group[K, V]]{g.from, g.err, g.link} }

func (g groups[K, V]) link(x *execution, take func(Group[K, V]) error) func() error {
	r := &groupReader[K, V]{x: x, codecs: g.codecs}
	r.group.Values = r.values // once: it would be an allocation for each key
	return func() error { return r.run(take) }
}

// groupReader reads the groups of a partition.
type groupReader[K, V any] struct {
	x       *execution
	codecs  codecs
	current []byte // the key
	pair    stage.Pair
	more    bool // pair is not read yet
	group   Group[K, V]
	value   V
}

// next goes to the next pair. It returns false at the end, or after an error, which it saves.
func (r *groupReader[K, V]) next() bool {
	var err error
	r.pair = stage.Pair{} // not held beside the next one
	r.pair, err = r.x.spec.Pairs.Next()
	if r.more = err == nil; !r.more && !errors.Is(err, io.EOF) {
		r.x.fail(err)
	}
	return r.more
}

func (r *groupReader[K, V]) run(take func(Group[K, V]) error) error {
	defer r.free()
	for r.next(); r.more && r.x.err == nil; {
		r.current = append(r.current[:0], r.pair.Key...)
		if _, err := r.codecs.key.unkey(r.current, unsafe.Pointer(&r.group.Key), true); err != nil {
			return err
		}
		if err := take(r.group); err != nil {
			return err
		}
		for r.more && string(r.pair.Key) == string(r.current) {
			r.next()
		}
	}
	return r.x.err
}

// free frees what the last group holds.
func (r *groupReader[K, V]) free() {
	var key K
	var value V
	r.current, r.pair, r.group.Key, r.value = kept(r.current), stage.Pair{}, key, value
}

func (r *groupReader[K, V]) values(yield func(V) bool) {
	for r.more && string(r.pair.Key) == string(r.current) {
		if _, err := r.codecs.value.unvalue(r.pair.Value, unsafe.Pointer(&r.value), true); err != nil {
			r.x.fail(err)
			return
		}
		ok := yield(r.value)
		if r.next(); !ok {
			return
		}
	}
}

// Reduce calls f once for each key, in order of the keys, with its values: see [Group]. The pairs have f's result.
func Reduce[K, V, R any](in Pairs[K, V], f func(key K, values iter.Seq[V]) (R, error)) Pairs[K, R] {
	out := Map(Groups(in), func(_ *Task, g Group[K, V], emit Emit[K, R]) error {
		result, err := f(g.Key, g.Values)
		if err == nil {
			emit(g.Key, result)
		}
		return err
	})
	out.err = errors.Join(out.err, notNil("Reduce", f == nil))
	return out
}

// output ends the last stage with lines of text.
func (p Pairs[K, V]) output() (*node, error) {
	if p.link == nil {
		return nil, errors.New("its output is a Pairs that no function has made")
	}
	c, err := codecsOf[K, V]()
	last := p.from
	last.link = func(x *execution) func() error {
		s := &sink[K, V]{x: x}
		run := p.link(x, func(key K, value V) {
			s.key, s.value = key, value
			s.keyTo = c.key.text(s.keyTo[:0], unsafe.Pointer(&s.key))
			if !c.key.empty && !c.value.empty {
				s.keyTo = append(s.keyTo, '\t')
			}
			s.keyTo = append(c.value.text(s.keyTo, unsafe.Pointer(&s.value)), '\n')
			if _, err := x.task.out.Write(s.keyTo); err != nil {
				x.fail(err)
			}
		})
		return func() error {
			defer s.free()
			return run()
		}
	}
	return &last, errors.Join(p.err, err)
}

// typedProgram implements stage.Program.
type typedProgram struct {
	x      execution
	stages []stage.Stage
	runs   []func() error
}

func newTypedProgram(last *node) *typedProgram {
	p := &typedProgram{}
	var line []*node
	for n := last; n != nil; n = n.before {
		line = append(line, n)
	}
	names := map[string]int{}
	for _, n := range slices.Backward(line) {
		name := n.name
		if names[n.name]++; names[n.name] > 1 {
			name = fmt.Sprintf("%s%d", name, names[n.name])
		}
		p.stages = append(p.stages, stage.Stage{Name: name, Partition: n.partition, Partitions: n.partitions})
		p.runs = append(p.runs, n.link(&p.x))
	}
	return p
}

// Stages returns the line of stages.
func (p *typedProgram) Stages() []stage.Stage { return p.stages }

// Run runs a task.
func (p *typedProgram) Run(ctx context.Context, t *stage.Task) error {
	if last := t.Stage == len(p.stages)-1; !last && t.Emit == nil {
		return fmt.Errorf("stage %s has no stage to emit to: is the leader of another version, with other stages of this job, or does its building function make others each time?", p.stages[t.Stage].Name)
	}
	p.x.spec, p.x.err = t, nil
	spec := hooks.TaskSpec{
		JobID: t.Job, Index: t.Index, Attempt: t.Attempt, Settings: t.Settings, Input: t.Path, Item: t.Item, Output: t.Part, Log: t.Log, Records: t.Records, Memory: t.Memory,
	}
	if t.Split != nil {
		spec.Source = t.Split
	}
	p.x.task.reset(ctx, &spec)
	err := p.runs[t.Stage]()
	if err == nil {
		err = p.x.err
	}
	if _, finished := p.x.task.finish(); err == nil {
		err = finished
	}
	return err
}
