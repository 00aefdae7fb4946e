// Command dna finds the share of G and C in each sequence of FASTA files.
//
//	go run ./examples/dna --input genomes/ --records fasta
package main

import (
	"bytes"

	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/engine"
)

// bases are those of a sequence.
type bases struct{ gc, all int64 }

func share(struct{}) (b4.Output, error) {
	counted := b4.Map(b4.Records(), func(_ *b4.Task, entry []byte, emit b4.Emit[[]byte, bases]) error {
		name, sequence, _ := bytes.Cut(entry, []byte{'\n'})
		var n bases
		for _, base := range sequence {
			switch base {
			case 'G', 'C', 'g', 'c':
				n.gc++
				n.all++
			case 'A', 'T', 'a', 't':
				n.all++
			}
		}
		emit(bytes.TrimPrefix(name, []byte{'>'}), n)
		return nil
	})
	sums := b4.Combine(counted, func(a, b bases) bases { return bases{a.gc + b.gc, a.all + b.all} })
	return b4.Map(b4.SortByKey(sums), func(_ *b4.Task, p b4.KV[[]byte, bases], emit b4.Emit[[]byte, float64]) error {
		emit(p.Key, float64(p.Value.gc)/float64(max(1, p.Value.all)))
		return nil
	}), nil
}

func main() {
	engine.Main(b4.New("dna", share, b4.Summary("the share of G and C in each sequence")))
}
