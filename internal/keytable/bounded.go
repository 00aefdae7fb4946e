package keytable

// Bounded is a table that is emptied when it is full. If few of the keys that filled it were repeated, the next ones pass by it, because a table that rarely hits costs more
// than it saves.
type Bounded[V any] struct {
	Table[V]

	// Refers is the bytes that the values refer to, if their owner counts them.
	Refers int64

	memory int64
	keys   int // since the table was empty, with those that are repeated
	pass   int // keys that pass by
}

const (
	boundedGain = 4  // the table is used if it takes in at least this many keys for 3 that come out
	boundedPass = 8  // tables that are passed by if it is not
	boundedKeys = 16 // keys that fill the table: longer ones pass by
)

// Begin empties the table, which may take so many bytes from now on.
func (b *Bounded[V]) Begin(memory int64) {
	b.clear()
	b.memory, b.keys, b.pass = min(memory/2, MemoryMax), 0, 0 // a table that grows has its old places too
}

func (b *Bounded[V]) clear() {
	b.Clear()
	b.Refers = 0
}

// Passes counts a key, and reports whether it passes by: it is not to be looked up.
func (b *Bounded[V]) Passes(key []byte) bool {
	if b.pass > 0 {
		b.pass--
		return true
	}
	if int64(len(key)) > b.memory/boundedKeys {
		return true
	}
	b.keys++
	return false
}

// Full reports whether the table is to be emptied before another key.
func (b *Bounded[V]) Full(key []byte) bool { return b.Memory()+b.Refers+int64(len(key)) > b.memory }

// Empty removes the keys, and decides whether the next ones pass by.
func (b *Bounded[V]) Empty() {
	if 3*b.keys < boundedGain*b.Len() {
		b.pass = boundedPass * b.keys
	}
	b.clear()
	b.keys = 0
}
