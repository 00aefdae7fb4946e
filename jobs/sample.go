package jobs

import (
	"hash/fnv"

	b4 "github.com/bridgefour/bridgefour"
)

type sampleConfig struct {
	N    int    `b4:"n,default=10" help:"how many lines"`
	Seed uint64 `b4:"seed,default=1" help:"another seed is another sample; of standard input, each run draws another one"`
}

// SampleLines draws lines at random. The sample depends on the seed, the names of the inputs and where lines are in them, and so is the same whenever a
// task runs again. Standard input has another name in each run. The job is named apart from Sample, which the original system has.
func SampleLines() b4.Job {
	return b4.New("sample", func(cfg sampleConfig) (b4.Output, error) {
		if err := checkSize("n", cfg.N); err != nil {
			return nil, err
		}
		lines := b4.Map(b4.Splits(), func(t *b4.Task, _ struct{}, emit b4.Emit[uint64, []byte]) error {
			h := fnv.New64a()
			_, _ = h.Write([]byte(t.Input())) // never fails
			input := h.Sum64() ^ mixed(cfg.Seed)
			if t.Input() == "" { // items of a list
				input ^= mixed(t.Index())
			}
			records := t.Records()
			for records.Scan() {
				emit(mixed(input+uint64(records.Offset())), records.Bytes()) //nolint:gosec // not negative
			}
			return records.Err()
		})
		drawn := b4.Top(lines, cfg.N, func(p b4.KV[uint64, []byte]) uint64 { return p.Key })
		return b4.Map(drawn, func(_ *b4.Task, p b4.KV[uint64, []byte], emit b4.Emit[struct{}, []byte]) error {
			emit(struct{}{}, p.Value)
			return nil
		}), nil
	}, b4.Summary("draw lines at random, each with the same probability"), b4.Example("--input logs/ --set n=100 --set seed=7"),
		b4.RecordKinds(lineKinds()...))
}

// mixed is the output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
func mixed(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
