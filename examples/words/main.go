// Command words has two jobs: words counts words, the most frequent first, and longest finds the length of the longest line of each file.
//
//	go run ./examples/words words --input README.md --set min_length=4
//	go run ./examples/words longest --input docs/
package main

import (
	"bytes"
	"iter"

	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/engine"
)

type config struct {
	MinLength int `b4:"min_length,default=1" help:"shortest word that counts, in bytes"`
}

// order is by count, the greatest first, then by word.
type order struct {
	count b4.Desc[int64]
	word  string
}

func words(cfg config) (b4.Output, error) {
	words := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, int64]) error {
		for w := range bytes.FieldsSeq(line) {
			if len(w) >= cfg.MinLength {
				emit(string(w), 1)
			}
		}
		return nil
	})
	counts := b4.Combine(words, b4.Sum[int64]) // before the shuffle, and again after it
	return b4.Sort(counts, func(c b4.KV[string, int64]) order { return order{b4.Desc[int64]{Value: c.Value}, c.Key} }), nil
}

func longest(struct{}) (b4.Output, error) {
	byFile := b4.Map(b4.Lines(), func(t *b4.Task, line []byte, emit b4.Emit[string, int]) error {
		emit(t.Input(), len(line))
		return nil
	})
	return b4.Reduce(byFile, func(_ string, lengths iter.Seq[int]) (most int, err error) { // once for each file
		for n := range lengths {
			most = max(most, n)
		}
		return most, nil
	}), nil
}

func main() {
	engine.Main(
		b4.New("words", words, b4.Summary("count words, the most frequent first")),
		b4.New("longest", longest, b4.Summary("length of the longest line of each file")),
	)
}
