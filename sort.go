package bridgefour

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/stage"
)

// Sort orders pairs by what by makes of them; in the output, also over all its parts. [Desc] inverts an order, and a struct is ordered by
// its fields, the first one first:
//
//	b4.Sort(counts, func(c b4.KV[string, int64]) b4.Desc[int64] { return b4.Desc[int64]{Value: c.Value} })
//
// The order is that of the bytes of encoded values, as for the keys of [Pairs], and so costs no call for each comparison. Pairs that are equal in
// it stay in the order in which the stage before made them.
func Sort[K, V, S any](in Pairs[K, V], by func(pair KV[K, V]) S) Pairs[K, V] {
	from, _, err := orderBy(in, by).shuffled(node{name: "sort", partition: stage.ByRange}, nil)
	return ordered[K, V](from, err, -1)
}

// SortByKey orders pairs by their keys; in the output, also over all its parts. It moves a key once, where [Sort] moves what it orders by as well.
// Pairs of equal keys stay in the order in which the stage before made them.
func SortByKey[K, V any](in Pairs[K, V]) Pairs[K, V] {
	sorted := grouped(in, node{name: "sort", partition: stage.ByRange}, nil)
	return Pairs[K, V]{from: sorted.from, err: sorted.err, link: func(x *execution, emit Emit[K, V]) func() error {
		var key K // of a group after the other
		one := func(v V) bool {
			emit(key, v)
			return x.err == nil
		}
		return sorted.link(x, func(g Group[K, V]) error {
			key = g.Key
			g.Values(one)
			return x.err
		})
	}}
}

// GroupsInOrder are [Groups] whose keys are in order also over all parts of the output.
func GroupsInOrder[K, V any](in Pairs[K, V]) Dataset[Group[K, V]] {
	return grouped(in, node{name: "sort", partition: stage.ByRange}, nil)
}

// Top is the first n pairs in the order of [Sort]. Each task keeps n pairs, and one task of another stage those of all: they must fit into memory.
func Top[K, V, S any](in Pairs[K, V], n int, by func(pair KV[K, V]) S) Pairs[K, V] {
	keyed := orderBy(in, by)
	c, err := codecsOf[S, KV[K, V]]()
	if n < 1 {
		err = errors.Join(err, fmt.Errorf("the top %d pairs; want at least 1", n))
	}
	before := keyed.from
	before.link = func(x *execution) func() error {
		s := &sink[S, KV[K, V]]{x: x, codecs: c}
		first := &smallest{n: n}
		run := keyed.link(x, func(key S, pair KV[K, V]) {
			if k := s.encodeKey(key); first.wants(k) {
				s.value = pair
				s.valTo = c.value.value(s.valTo[:0], unsafe.Pointer(&s.value), true)
				first.add(k, s.valTo)
			}
		})
		return func() error {
			first.list, first.full = first.list[:0], false
			if err := run(); err != nil {
				return err
			}
			for _, p := range first.sorted() {
				if err := x.spec.Emit(p.Key, p.Value); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return ordered[K, V](node{before: &before, name: "top", partitions: 1}, errors.Join(keyed.err, err), n)
}

func orderBy[K, V, S any](in Pairs[K, V], by func(pair KV[K, V]) S) Pairs[S, KV[K, V]] {
	out := Map(in, func(_ *Task, pair KV[K, V], emit Emit[S, KV[K, V]]) error {
		emit(by(pair), pair)
		return nil
	})
	out.err = errors.Join(out.err, notNil("Sort or Top", by == nil))
	return out
}

// ordered are the values of a partition, which are pairs; at most most, if that is not negative.
func ordered[K, V any](from node, err error, most int) Pairs[K, V] {
	c, codecErr := codecOf[KV[K, V]]()
	return Pairs[K, V]{from: from, err: errors.Join(err, codecErr), link: func(x *execution, emit Emit[K, V]) func() error {
		pairs := valuesOf[KV[K, V]](x, c)
		return func() error {
			n := 0
			for pair := range pairs {
				emit(pair.Key, pair.Value)
				if n++; n == most {
					break
				}
			}
			return x.err
		}
	}}
}

// smallest keeps the n pairs of the smallest keys; of equal ones, those that came first. It sorts when it holds twice as many.
type smallest struct {
	n     int
	list  []stage.Pair
	limit []byte // keys from here on are not among the first; valid if full
	full  bool
}

// wants reports whether a key may be among the first.
func (s *smallest) wants(key []byte) bool { return !s.full || bytes.Compare(key, s.limit) < 0 }

func (s *smallest) add(key, value []byte) {
	both := append(append(make([]byte, 0, len(key)+len(value)), key...), value...)
	s.list = append(s.list, stage.Pair{Key: both[:len(key):len(key)], Value: both[len(key):]})
	if len(s.list) >= 2*s.n {
		s.sorted()
	}
}

// sorted drops what is not among the first, and sorts what is.
func (s *smallest) sorted() []stage.Pair {
	slices.SortStableFunc(s.list, func(a, b stage.Pair) int { return bytes.Compare(a.Key, b.Key) })
	if len(s.list) >= s.n {
		clear(s.list[s.n:])
		s.list = s.list[:s.n]
		s.limit, s.full = s.list[s.n-1].Key, true
	}
	return s.list
}
