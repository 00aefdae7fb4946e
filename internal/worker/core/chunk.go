package core

import (
	"sync/atomic"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// Result is what an attempt came to. A slot writes it in place; the core reads it once it is published (see [Chunk]).
type Result struct {
	Size, Records, Input, Checksum uint64
	Nanos                          int64
	Failure                        *wire.Failure // nil: it succeeded, or was canceled
	Canceled                       bool          // it was stopped from outside before its end
	File                           bool          // it left a file in the attempt-private folder
}

// Chunk is a run of leases handed to a slot at once, so that short attempts cost no channel hop each. It is the one thing
// that core and slot share. The slot claims entries in order and publishes each result; the core may cut the chunk at
// any moment, which keeps the entries that are not claimed yet from being run.
type Chunk struct {
	Job        *wire.Job
	Stage      uint32
	FirstLease uint64
	Index      []uint64
	Attempt    []uint32      // nil: all 1
	Splits     []*wire.Split // nil: none
	Action     wire.CommitAction

	grant *grant
	from  int // of the grant's entries

	// results[i] belongs to the slot until done passes i, and to the core after.
	results []Result
	// cursor packs next (high half: the first entry not claimed) and limit (low half: entries that may be claimed).
	cursor atomic.Uint64
	done   atomic.Uint32
}

// Claim gives the slot the next entry to run; false when there is none left.
func (c *Chunk) Claim() (int, bool) {
	for {
		v := c.cursor.Load()
		next, limit := v>>32, v&0xffffffff
		if next >= limit {
			return 0, false
		}
		if c.cursor.CompareAndSwap(v, (next+1)<<32|limit) {
			return int(next), true
		}
	}
}

// Finish publishes the result of entry i, the last one claimed.
func (c *Chunk) Finish(i int, r Result) {
	c.results[i] = r
	c.done.Store(uint32(i) + 1)
}

// Len is how many entries the chunk had before any cut.
func (c *Chunk) Len() int { return len(c.Index) }

// AttemptNumber of entry i.
func (c *Chunk) AttemptNumber(i int) uint32 {
	if c.Attempt == nil {
		return 1
	}
	return c.Attempt[i]
}

// Split of entry i; nil where the stage has none.
func (c *Chunk) Split(i int) *wire.Split {
	if c.Splits == nil {
		return nil
	}
	return c.Splits[i]
}

// Lease of entry i.
func (c *Chunk) Lease(i int) uint64 { return c.FirstLease + uint64(i) }

// Running is the entry in the slot now; false between two entries.
func (c *Chunk) Running() (int, bool) {
	done := int(c.done.Load())
	next := int(c.cursor.Load() >> 32)
	return done, next > done
}

// has says whether the chunk has the lease: entries behind a cut are no longer its own, and may lie in another chunk.
func (c *Chunk) has(r ref) bool {
	return c.grant == r.g && r.i >= c.from && r.i < c.from+int(c.cursor.Load()&0xffffffff)
}

// cut stops further claims. What it returns, [next, limit), nobody will run.
func (c *Chunk) cut() (next, limit int) {
	for {
		v := c.cursor.Load()
		if c.cursor.CompareAndSwap(v, v>>32<<32|v>>32) {
			return int(v >> 32), int(v & 0xffffffff)
		}
	}
}

// StageName is the name of the stage.
func (c *Chunk) StageName() string { return stageName(c.Job, c.Stage) }
