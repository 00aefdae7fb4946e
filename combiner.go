package bridgefour

import (
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/keytable"
)

// combiner adds values by key before a shuffle, as far as its table's memory goes. A pair whose key is there costs no allocation.
type combiner[V any] struct {
	table keytable.Bounded[V]
	add   func(a, b V) V
	value *codec // V's
	emit  func(key []byte, value *V)
	held  V
}

func (c *combiner[V]) put(key []byte, value V) {
	if c.table.Passes(key) {
		c.held = value // its address would move every value to the heap
		c.emit(key, &c.held)
		return
	}
	if c.table.Full(key) {
		c.flush()
	}
	sum, isNew := c.table.At(key, keytable.WordsOf(key))
	if isNew {
		*sum = value
	} else {
		c.refers(sum, -1)
		*sum = c.add(*sum, value)
	}
	if c.value.own != nil {
		c.value.own(unsafe.Pointer(sum))
	}
	c.refers(sum, 1)
}

// refers adds n times what a value refers to.
func (c *combiner[V]) refers(value *V, n int) {
	if c.value.size != nil {
		c.table.Refers += int64(n * c.value.size(unsafe.Pointer(value)))
	}
}

// flush emits the pairs in the order in which their keys came first.
func (c *combiner[V]) flush() {
	for key, sum := range c.table.All() {
		c.emit(key, sum)
	}
	c.table.Empty()
}
