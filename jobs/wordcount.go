package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/bridgefour/bridgefour"
)

const (
	wordBlock = 256 << 10 // read at once: fits the processor's second-level cache together with the hot words
	wordMax   = 1 << 20
)

// WordCount counts words. A word is what stands between white space, as bytes.Fields has it: ASCII white space and the
// white space of Unicode (no-break space, line separator, ideographic space and so on) divide words, everything else is
// part of one, case and punctuation included. Bytes that are no UTF-8 are part of words too.
//
// Its parts are WORD<TAB>COUNT lines sorted by word, byte by byte; its result has the counts of all parts added up and
// begins with the most frequent word; words that are equally frequent are sorted.
//
// A word of more than 1 MiB is bad input. A line may have any length.
type WordCount struct {
	counters chan *wordCounter // at rest
}

// NewWordCount makes the job.
func NewWordCount() WordCount {
	return WordCount{counters: make(chan *wordCounter, runtime.GOMAXPROCS(0))}
}

// take gives a counter that has grown with the words it has seen, if one is at rest. A sync.Pool would lose it at the next
// garbage collection, and growing takes a tenth of the time of a split.
func (w WordCount) take() *wordCounter {
	select {
	case c := <-w.counters:
		return c
	default:
		return newWordCounter()
	}
}

// Name is wordcount.
func (WordCount) Name() string { return "wordcount" }

// Map counts the words of a split.
func (w WordCount) Map(_ context.Context, t *bridgefour.Task) error {
	counter := w.take()
	defer w.put(counter)
	if err := counter.count(t); err != nil {
		return err
	}
	out := t.Out()
	for _, word := range counter.sorted() {
		if err := out.EmitInt(counter.bytes(&word), int64(word.count)); err != nil {
			return err
		}
	}
	return nil
}

// Collect adds the counts of all parts up, as far as the result may grow.
func (w WordCount) Collect(_ context.Context, c *bridgefour.Collection) error {
	counter := w.take()
	defer w.put(counter)
	merger := wordMerger{counter: counter}
	for part, err := range c.Parts() {
		if err != nil {
			return err
		}
		if err := merger.part(part); err != nil {
			return err
		}
		if merger.largest() > c.SizeMax() {
			return bridgefour.ErrResultTooLarge
		}
	}
	out := c.Out()
	for _, word := range counter.frequent(merger.all()) {
		if err := out.EmitInt(counter.bytes(&word), int64(word.count)); err != nil {
			return err
		}
	}
	return nil
}

// put gives a counter back, unless it has grown so large that it should not stay in memory.
func (w WordCount) put(counter *wordCounter) {
	const bytesKept = 64 << 20
	if counter.memory() > bytesKept {
		return
	}
	counter.reset()
	select {
	case w.counters <- counter:
	default:
	}
}

// count reads to the end. A word that a block cuts in two is carried over to the next.
func (c *wordCounter) count(t *bridgefour.Task) error {
	if c.buf == nil {
		c.buf = make([]byte, wordBlock+loadSlack)
	}
	filled := 0
	for {
		if filled == len(c.buf)-loadSlack {
			if filled > wordMax {
				return bridgefour.BadInput(fmt.Errorf("%s: the word that begins at byte %d is longer than %d bytes; is this text?",
					t.Input(), t.Offset()-int64(filled), wordMax))
			}
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
		}
		n, err := t.Read(c.buf[filled : len(c.buf)-loadSlack])
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
	}
}
