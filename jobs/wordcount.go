package jobs

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"runtime"

	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/pages"
)

const (
	wordBlock = 256 << 10 // read size: fits into the second-level cache together with the frequent words
	wordMax   = 64 << 20  // the default
)

// WordCount counts words. Words are separated by white space as in bytes.Fields: ASCII white space and that of Unicode (no-break
// space, line separator, ideographic space and so on). Everything else is part of a word, including case, punctuation and bytes
// that are not UTF-8.
//
// The output is WORD<TAB>COUNT lines, the most frequent words first; equally frequent words are sorted.
//
// A word longer than the setting record_max, or 256 KiB if that is less, is bad input. Lines may have any length.
func WordCount() b4.Job {
	idle := make(wordCounters, runtime.GOMAXPROCS(0))
	return b4.New("wordcount", func(struct{}) (b4.Output, error) {
		words := b4.Map(b4.Splits(), func(t *b4.Task, _ struct{}, emit b4.Emit[[]byte, uint64]) error {
			counter := idle.get()
			defer idle.put(counter)
			flush := func() {
				for word, n := range counter.all() {
					emit(word, n)
				}
				counter.reset()
			}
			for more := true; more; more = t.NextInput() {
				if err := counter.count(t, flush); err != nil {
					return err
				}
			}
			flush()
			return nil
		})
		var sum uint64
		add := func(n uint64) bool { sum += n; return true } // a loop over counts would be two allocations for each word
		counts := b4.Reduce(words, func(_ []byte, counts iter.Seq[uint64]) (uint64, error) {
			sum = 0
			counts(add)
			return sum, nil
		})
		type frequency struct {
			count b4.Desc[uint64]
			word  []byte
		}
		byFrequency := b4.Map(counts, func(_ *b4.Task, p b4.KV[[]byte, uint64], emit b4.Emit[frequency, struct{}]) error {
			emit(frequency{b4.Desc[uint64]{Value: p.Value}, p.Key}, struct{}{})
			return nil
		})
		return b4.Map(b4.SortByKey(byFrequency), func(_ *b4.Task, p b4.KV[frequency, struct{}], emit b4.Emit[[]byte, uint64]) error {
			emit(p.Key.word, p.Key.count.Value)
			return nil
		}), nil
	}, b4.Summary("count words, the most frequent first"), b4.Example("--input books/ --output counts"), b4.RecordKinds(textKinds()...))
}

// wordCounters are idle counters.
type wordCounters chan *wordCounter

// get returns a counter, if possible one that has grown already: growing takes a tenth of the time of a split. A sync.Pool would
// drop it at the next garbage collection.
func (w wordCounters) get() *wordCounter {
	select {
	case c := <-w:
		return c
	default:
		return newWordCounter()
	}
}

// put returns a counter for reuse, unless it has grown too large to stay in memory.
func (w wordCounters) put(counter *wordCounter) {
	const bytesKept = 64 << 20
	if len(counter.buf) > blockKept { // of a long word
		counter.buf = nil
	}
	if counter.memory() > bytesKept {
		return
	}
	counter.reset() // after an error it has words
	select {
	case w <- counter:
	default:
	}
}

// count reads a file to the end. A word that crosses the end of a block is carried over. Flush empties the counter when it takes the memory that a task has for tables.
func (c *wordCounter) count(t *b4.Task, flush func()) error {
	limit, err := t.Settings().Size(b4.SettingRecordMax, wordMax)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = math.MaxInt - 1
	}
	longest := int(max(limit, wordBlock))
	if c.buf == nil {
		c.buf = make([]byte, wordBlock+loadSlack)
	}
	filled := 0
	for {
		room := min(len(c.buf)-loadSlack, longest+1)
		if filled == room {
			if filled > longest {
				return b4.BadInput(fmt.Errorf("%s: word at byte %d exceeds %d bytes; is this text? If it is, raise the limit with --set %s=SIZE",
					t.Input(), t.Offset()-int64(filled), longest, b4.SettingRecordMax))
			}
			grown := make([]byte, pages.Longer(len(c.buf)))
			copy(grown, c.buf)
			c.buf = grown
			continue
		}
		n, err := t.Read(c.buf[filled:room])
		filled += n
		if errors.Is(err, io.EOF) {
			c.buf[filled] = '\n'
			c.words(c.buf, filled+1)
			return nil
		}
		if err != nil {
			return err
		}
		end := lastSpace(c.buf[:filled], filled-n)
		c.words(c.buf, end)
		filled = copy(c.buf, c.buf[end:filled])
		if c.needs() > t.Memory() {
			flush()
		}
	}
}
