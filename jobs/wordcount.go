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
	wordBlock = 256 << 10 // read size: fits into the second-level cache together with the frequent words
	wordMax   = 1 << 20
)

// WordCount counts words. Words are separated by white space as in bytes.Fields: ASCII white space and that of Unicode (no-break
// space, line separator, ideographic space and so on). Everything else is part of a word, including case, punctuation and bytes
// that are not UTF-8.
//
// Its parts are WORD<TAB>COUNT lines in byte order of the words. Its result has the sums of all parts, the most frequent words
// first; equally frequent words are sorted.
//
// A word longer than 1 MiB is bad input. Lines may have any length.
type WordCount struct {
	counters chan *wordCounter // idle
}

// NewWordCount returns the job.
func NewWordCount() WordCount {
	return WordCount{counters: make(chan *wordCounter, runtime.GOMAXPROCS(0))}
}

// get returns a counter, if possible one that has grown already: growing takes a tenth of the time of a split. A sync.Pool would
// drop it at the next garbage collection.
func (w WordCount) get() *wordCounter {
	select {
	case c := <-w.counters:
		return c
	default:
		return newWordCounter()
	}
}

// Name is wordcount.
func (WordCount) Name() string { return "wordcount" }

// Describe has an example.
func (WordCount) Describe() bridgefour.Description {
	return bridgefour.Description{Summary: "count words, the most frequent first", Example: "--input books/ --output counts"}
}

// Map counts the words of a split.
func (w WordCount) Map(_ context.Context, t *bridgefour.Task) error {
	counter := w.get()
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

// Collect adds the counts of all parts, up to the size limit of the result.
func (w WordCount) Collect(_ context.Context, c *bridgefour.Collection) error {
	counter := w.get()
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

// put returns a counter for reuse, unless it has grown too large to stay in memory.
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

// count reads to the end. A word that crosses the end of a block is carried over.
func (c *wordCounter) count(t *bridgefour.Task) error {
	if c.buf == nil {
		c.buf = make([]byte, wordBlock+loadSlack)
	}
	filled := 0
	for {
		if filled == len(c.buf)-loadSlack {
			if filled > wordMax {
				return bridgefour.BadInput(fmt.Errorf("%s: word at byte %d exceeds %d bytes; is this text?",
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
