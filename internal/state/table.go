package state

import (
	"iter"
	"maps"
	"slices"
)

// table is an immutable map. A changed copy shares all buckets but one, so a change costs little however large the table is, and any
// goroutine may read a table.
type table[T any] struct {
	buckets [256]map[string]*T
	size    int
}

// tableOf returns the table of these values. Of two with one key it has the later one.
func tableOf[T any](values []*T, key func(*T) string) table[T] {
	var t table[T]
	for _, v := range values {
		k := key(v)
		bucket := &t.buckets[t.bucket(k)]
		if *bucket == nil {
			*bucket = map[string]*T{}
		}
		(*bucket)[k] = v
	}
	for _, bucket := range t.buckets {
		t.size += len(bucket)
	}
	return t
}

// bucket is the number of a key's bucket: FNV-1a, folded.
func (*table[T]) bucket(key string) uint8 {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return uint8(h ^ h>>8 ^ h>>16 ^ h>>24)
}

func (t *table[T]) get(key string) *T { return t.buckets[t.bucket(key)][key] }

// with returns a copy in which key has a value; nil removes it.
func (t *table[T]) with(key string, v *T) table[T] {
	c, b := *t, t.bucket(key)
	bucket := maps.Clone(c.buckets[b])
	c.size -= len(bucket)
	if v == nil {
		delete(bucket, key)
	} else {
		if bucket == nil {
			bucket = map[string]*T{}
		}
		bucket[key] = v
	}
	c.size += len(bucket)
	c.buckets[b] = bucket
	return c
}

// all returns the values in no order.
func (t *table[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, bucket := range t.buckets {
			for _, v := range bucket {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// sorted returns the values in the order of compare.
func (t *table[T]) sorted(compare func(a, b *T) int) []*T { return slices.SortedFunc(t.all(), compare) }
