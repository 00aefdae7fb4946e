package core

import (
	"sync/atomic"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// Result is the outcome of an attempt. A slot writes it in place; the core reads it once it is published (see [Chunk]).
type Result struct {
	Size, Records, Input, Checksum uint64
	Peak                           uint64 // bytes of memory of a process
	Nanos                          int64
	ended                          int64              // Unix ms, when the core collected it
	Failure                        *wire.Failure      // nil: success, or canceled
	Canceled                       bool               // stopped from outside before its end
	File                           bool               // there is a file in the attempt-private folder
	Segment                        bool               // the file need not be durable: it is read while the job runs, and its task can run again
	Warning                        string             // for the job's user
	Lost                           []*wire.OutputLost // of an attempt that was canceled, because outputs that it reads are missing
}

// SlotStatus is the status of the slot of the attempt until its next one begins.
func (r *Result) SlotStatus() wire.SlotStatus {
	if r.Failure != nil || r.Canceled {
		return wire.SlotStatus_SLOT_FAILED
	}
	return wire.SlotStatus_SLOT_DONE
}

// Chunk is a run of leases that a slot gets at once, so that short attempts cost no channel operation each. It is the only
// state that core and slots share. The slot claims entries in order and publishes each result; the core may cut the chunk at
// any moment, which keeps unclaimed entries from being run.
type Chunk struct {
	Job        *wire.Job
	Stage      uint32
	FirstLease uint64
	Index      []uint64
	Attempt    []uint32      // nil: all 1
	Splits     []*wire.Split // nil: none
	Action     wire.CommitAction
	Resources  map[string][]string // ids by name, which its attempts have one after the other; nil: none

	grant *grant
	from  int // of the grant's entries

	// results[i] belongs to the slot until done passes i, and to the core afterwards.
	results []Result
	// cursor packs next (high half: the first entry not claimed) and limit (low half: entries that may be claimed).
	cursor atomic.Uint64
	done   atomic.Uint32
}

// Claim returns the next entry to run; false if there is none left.
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

// Split of entry i; nil if the stage has none.
func (c *Chunk) Split(i int) *wire.Split {
	if c.Splits == nil {
		return nil
	}
	return c.Splits[i]
}

// Lease of entry i.
func (c *Chunk) Lease(i int) uint64 { return c.FirstLease + uint64(i) }

// Running is the entry that the slot runs; false between two entries.
func (c *Chunk) Running() (int, bool) {
	done := int(c.done.Load())
	next := int(c.cursor.Load() >> 32)
	return done, next > done
}

// has reports whether the chunk holds the lease. Entries behind a cut may be in another chunk.
func (c *Chunk) has(r ref) bool {
	return c.grant == r.g && r.i >= c.from && r.i < c.from+int(c.cursor.Load()&0xffffffff)
}

// cut stops further claims, and returns the entries [next, limit) that are not going to be run.
func (c *Chunk) cut() (next, limit int) {
	for {
		v := c.cursor.Load()
		if c.cursor.CompareAndSwap(v, v>>32<<32|v>>32) {
			return int(v >> 32), int(v & 0xffffffff)
		}
	}
}

// StageName is the name of the stage.
func (c *Chunk) StageName() string { return wire.StageOf(c.Job, c.Stage).GetName() }
