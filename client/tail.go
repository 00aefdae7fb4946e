package client

import (
	"bytes"

	"github.com/bridgefour/bridgefour/api"
)

// logTail keeps the last lines of each attempt.
type logTail struct {
	lines  int
	follow bool // what is missing is reported at the end of what follows
	byName map[attemptName]*attemptTail
	order  []*attemptTail
	others []api.LogRecord // that say what is missing
}

// attemptTail is the last records of an attempt: without the first one, they have less than the lines that are kept.
type attemptTail struct {
	records []api.LogRecord
	lines   int
}

// linesOf counts the lines that begin in a text. Records end with a line, but for the last one of an attempt.
func linesOf(text []byte) int {
	n := bytes.Count(text, []byte("\n"))
	if len(text) > 0 && text[len(text)-1] != '\n' {
		n++
	}
	return n
}

func (t *logTail) add(r api.LogRecord) bool {
	if r.Missing != "" {
		t.others = append(t.others, r)
		return true
	}
	a := t.byName[nameOf(&r)]
	if a == nil {
		a = &attemptTail{}
		t.byName[nameOf(&r)] = a
		t.order = append(t.order, a)
	}
	a.records = append(a.records, r)
	a.lines += linesOf(r.Text)
	for n := linesOf(a.records[0].Text); len(a.records) > 1 && a.lines-n >= t.lines; n = linesOf(a.records[0].Text) {
		a.records = a.records[1:]
		a.lines -= n
	}
	return true
}

// emit yields what was kept.
func (t *logTail) emit(yield func(api.LogRecord, error) bool) bool {
	for _, a := range t.order {
		for ; a.lines > t.lines; a.lines-- {
			_, a.records[0].Text, _ = bytes.Cut(a.records[0].Text, []byte("\n"))
		}
		for _, r := range a.records {
			if !yield(r, nil) {
				return false
			}
		}
	}
	for _, r := range t.others {
		if !t.follow && !yield(r, nil) {
			return false
		}
	}
	return true
}
