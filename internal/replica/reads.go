package replica

import (
	"encoding/binary"
	"slices"
)

// readTicks is after how many ticks a round of reads is asked for again: its messages may be lost.
const readTicks = 4 * heartbeatTicks

// read is somebody who waits for ReadIndex.
type read struct {
	gone <-chan struct{} // closed when nobody waits any more
	out  chan uint64     // room for one
}

// reads are those who wait. All who come while a round is under way share the next one: only what is asked after they came
// answers them.
type reads struct {
	waiting []read
	round   []read // of the round under way
	number  uint64 // of that round
	asked   bool   // raft was asked
	at      int    // ticks when
}

// name is what raft calls the round; no other read of this member, in this process or an older one, has it.
func (q *reads) name(nonce [8]byte) []byte { return binary.BigEndian.AppendUint64(nonce[:], q.number) }

// settleReads begins a round when there is none, and asks for it again when it takes long.
func (l *loop) settleReads() {
	q := &l.reads
	if len(q.round) == 0 {
		if len(q.waiting) == 0 {
			return
		}
		q.round, q.waiting = q.waiting, nil
		q.number++
		q.asked = false
	}
	if q.asked && l.core.ticks-q.at < readTicks {
		return
	}
	if l.core.ReadIndex(q.name(l.r.nonce)) == nil {
		q.asked, q.at = true, l.core.ticks
	}
}

// answerReads answers the round under way, if these are answers to it.
func (l *loop) answerReads(answers []Read) {
	q := &l.reads
	for _, a := range answers {
		if len(q.round) == 0 || !slices.Equal(a.Context, q.name(l.r.nonce)) {
			continue // of a round that was asked for twice
		}
		for _, r := range q.round {
			r.out <- a.Index
		}
		q.round = nil
	}
}

// dropReads forgets those who wait no more, which there may be many of while there is no leader.
func (l *loop) dropReads() {
	gone := func(r read) bool {
		select {
		case <-r.gone:
			return true
		default:
			return false
		}
	}
	l.reads.waiting = slices.DeleteFunc(l.reads.waiting, gone)
	l.reads.round = slices.DeleteFunc(l.reads.round, gone)
}
