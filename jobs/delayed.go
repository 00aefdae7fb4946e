package jobs

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour"
)

// DelayedWordCount is the job of that name of the original system: it sleeps, then counts words. Words are separated by single
// spaces, as in the original's line.split(" "): there is an empty word between two spaces, an empty line is one empty word, and
// empty words at the end of a line do not count.
//
// It writes WORD,COUNT lines, sorted by word.
//
// Settings: timeout, the seconds to sleep. Defaults to 30.
type DelayedWordCount struct{}

// Name is DelayedWordCount.
func (DelayedWordCount) Name() string { return "DelayedWordCount" }

// Describe lists the settings.
func (DelayedWordCount) Describe() bridgefour.Description {
	return bridgefour.Description{
		Summary: "sleep, then count words, as the original system's job does", Example: "--input books/ --output counts --set timeout=5", Records: textKinds(),
		Settings: []bridgefour.Setting{{Key: "timeout", Usage: "seconds to sleep", Type: "number", Default: "30"}},
	}
}

// Map sleeps and counts.
func (DelayedWordCount) Map(ctx context.Context, t *bridgefour.Task) error {
	const secondsDefault = 30
	seconds, err := t.Settings().Float("timeout", secondsDefault)
	if err != nil {
		return err
	}
	sleep := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer sleep.Stop()
	select {
	case <-sleep.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	counts := make(delayedCounts)
	records := t.Records()
	for records.Scan() {
		counts.addLine(records.Bytes())
	}
	if err := records.Err(); err != nil {
		return err
	}
	return counts.write(t.Out())
}

// Collect adds the counts of all parts.
func (DelayedWordCount) Collect(_ context.Context, c *bridgefour.Collection) error {
	counts := make(delayedCounts)
	for part, err := range c.Parts() {
		if err != nil {
			return err
		}
		records := part.Records()
		for records.Scan() {
			word, count, err := delayedLine(records.Bytes())
			if err != nil {
				return fmt.Errorf("part %d: %w", part.Index(), err)
			}
			counts.add(word, count)
		}
		if err := records.Err(); err != nil {
			return err
		}
	}
	return counts.write(c.Out())
}

type delayedCounts map[string]*int64

func (d delayedCounts) addLine(line []byte) {
	if len(line) == 0 {
		d.add(line, 1)
		return
	}
	line = bytes.TrimRight(line, " ")
	for more := len(line) > 0; more; {
		var word []byte
		word, line, more = bytes.Cut(line, []byte{' '})
		d.add(word, 1)
	}
}

func (d delayedCounts) add(word []byte, n int64) {
	if count, ok := d[string(word)]; ok {
		*count += n
		return
	}
	d[string(word)] = &n
}

func (d delayedCounts) write(out *bridgefour.Writer) error {
	words := make([]string, 0, len(d))
	for word := range d {
		words = append(words, word)
	}
	slices.Sort(words)
	var line []byte
	for _, word := range words {
		line = append(append(line[:0], word...), ',')
		line = append(strconv.AppendInt(line, *d[word], 10), '\n')
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// delayedLine parses WORD,COUNT; the word may contain commas.
func delayedLine(line []byte) (word []byte, count int64, err error) {
	comma := bytes.LastIndexByte(line, ',')
	if comma < 0 {
		return nil, 0, fmt.Errorf("invalid line %q: want WORD,COUNT", line)
	}
	count, err = strconv.ParseInt(string(line[comma+1:]), 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("invalid line %q: want WORD,COUNT: %w", line, err)
	}
	return line[:comma], count, nil
}
