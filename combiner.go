package bridgefour

import (
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/keytable"
)

// combiner adds values by key before a shuffle, as far as its table's memory goes. A pair whose key is there costs no allocation.
type combiner[V any] struct {
	table keytable.Bounded[V]
	add   func(a, b V) V
	own   func(p unsafe.Pointer) // of V's codec
	emit  func(key []byte, value *V)
	held  V
}

func (c *combiner[V]) put(key []byte, value V) {
	if c.table.Passes() {
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
		*sum = c.add(*sum, value)
	}
	if c.own != nil {
		c.own(unsafe.Pointer(sum))
	}
}

// flush emits the pairs in the order in which their keys came first.
func (c *combiner[V]) flush() {
	for key, sum := range c.table.All() {
		c.emit(key, sum)
	}
	c.table.Empty()
}
