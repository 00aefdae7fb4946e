package jobs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bridgefour/bridgefour"
)

// lineRest is the minimum length of a result line beyond its word: tab, digit, newline.
const lineRest = 3

// wordRun is a list of sorted, distinct words.
type wordRun struct {
	words []wordRef
	bytes int64 // of the words as lines; a lower bound
}

// wordMerger adds sorted parts. It merges runs of about equal length, as a merge sort does, so that a part costs its length times
// the logarithm of the number of parts. It holds about twice the words of the result.
type wordMerger struct {
	counter *wordCounter // interns long words
	runs    []wordRun    // each less than half as long as the one before it
	free    [][]wordRef
}

// part adds the lines of a part.
func (m *wordMerger) part(part *bridgefour.Part) error {
	const lineGuess = 12 // bytes; initial guess
	run := wordRun{words: m.room(int(min(part.Size()/lineGuess, 1<<20)))}
	ordered := true
	records := part.Records()
	for records.Scan() {
		word, count, err := keyCount(records.Bytes())
		if err != nil {
			return fmt.Errorf("part %d: %w", part.Index(), err)
		}
		ref := m.ref(word, uint64(count))
		if n := len(run.words); n > 0 && m.counter.compare(run.words[n-1], ref) >= 0 {
			ordered = false
		}
		run.words = append(run.words, ref)
		run.bytes += int64(len(word)) + lineRest
	}
	if err := records.Err(); err != nil {
		return err
	}
	if !ordered {
		return fmt.Errorf("part %d is not sorted: another program has written to it", part.Index())
	}
	if len(run.words) == 0 {
		m.free = append(m.free, run.words)
		return nil
	}
	m.runs = append(m.runs, run)
	for n := len(m.runs); n > 1 && len(m.runs[n-2].words) < 2*len(m.runs[n-1].words); n = len(m.runs) {
		m.mergeLast()
	}
	return nil
}

// ref returns the reference of a word. A long word is interned in the counter's table, so that the arena holds it once.
func (m *wordMerger) ref(word []byte, count uint64) wordRef {
	if isLong(word) {
		return m.counter.longWordRef(m.counter.addLong(word, 0), count)
	}
	var first [16]byte
	copy(first[:], word)
	return wordRef{head: binary.BigEndian.Uint64(first[:8]), tail: binary.BigEndian.Uint64(first[8:]), count: count}
}

// largest is the size of the longest run: the result is at least as long.
func (m *wordMerger) largest() int64 {
	if len(m.runs) == 0 {
		return 0
	}
	return m.runs[0].bytes
}

// all merges the remaining runs.
func (m *wordMerger) all() []wordRef {
	for len(m.runs) > 1 {
		m.mergeLast()
	}
	if len(m.runs) == 0 {
		return nil
	}
	return m.runs[0].words
}

func (m *wordMerger) mergeLast() {
	n := len(m.runs)
	a, b := m.runs[n-2], m.runs[n-1]
	merged := wordRun{words: m.room(len(a.words) + len(b.words)), bytes: a.bytes + b.bytes}
	left, right, into := a.words, b.words, merged.words
	for len(left) > 0 && len(right) > 0 {
		switch order := m.counter.compare(left[0], right[0]); {
		case order < 0:
			into, left = append(into, left[0]), left[1:]
		case order > 0:
			into, right = append(into, right[0]), right[1:]
		default:
			into = append(into, left[0])
			into[len(into)-1].count += right[0].count
			merged.bytes -= int64(len(m.counter.bytes(&left[0]))) + lineRest
			left, right = left[1:], right[1:]
		}
	}
	merged.words = append(append(into, left...), right...)
	m.free = append(m.free, a.words, b.words)
	m.runs = append(m.runs[:n-2], merged)
}

// room returns an empty list for n words, reusing a free one if possible.
func (m *wordMerger) room(n int) []wordRef {
	for i, list := range m.free {
		if cap(list) >= n {
			m.free = slices.Delete(m.free, i, i+1)
			return list[:0]
		}
	}
	const kept = 2
	if len(m.free) > kept {
		m.free = m.free[:0] // too short for the current runs
	}
	return make([]wordRef, 0, n)
}

// frequent sorts sorted words for a result: the most frequent first; equally frequent ones keep their order.
func (c *wordCounter) frequent(words []wordRef) []wordRef {
	const rare = 1 << 10 // most words are rare: they are distributed, the others sorted
	var places [rare]int
	common := 0
	for i := range words {
		if words[i].count < rare {
			places[words[i].count]++
		} else {
			common++
		}
	}
	at := common
	for count := rare - 1; count >= 0; count-- {
		places[count], at = at, at+places[count]
	}
	list := slices.Grow(c.list[:0], len(words))[:len(words)]
	common = 0
	for i := range words {
		place := &common
		if count := words[i].count; count < rare {
			place = &places[count]
		}
		list[*place] = words[i]
		*place++
	}
	slices.SortFunc(list[:common], func(a, b wordRef) int {
		if a.count != b.count {
			return cmp.Compare(b.count, a.count)
		}
		return c.compare(a, b)
	})
	c.list = list
	return list
}
