package jobs

import (
	"fmt"
	"math/rand/v2"

	b4 "github.com/bridgefour/bridgefour"
)

type piConfig struct {
	Points int64  `b4:"points,default=10000000" help:"points of each task"`
	Seed   uint64 `b4:"seed,default=1" help:"another seed is another estimate"`
}

// Pi estimates π: each task throws points into a square and counts those in the circle.
func Pi() b4.Job {
	return b4.New("pi", func(cfg piConfig) (b4.Output, error) {
		if cfg.Points < 1 {
			return nil, fmt.Errorf("invalid setting points=%d: want at least 1", cfg.Points)
		}
		type points struct{ inside, all int64 }
		thrown := b4.Map(b4.Splits(), func(t *b4.Task, _ struct{}, emit b4.Emit[string, points]) error {
			random := rand.New(rand.NewPCG(cfg.Seed, t.Index())) //nolint:gosec // for points
			p := points{all: cfg.Points}
			for i := range cfg.Points {
				x, y := random.Float64(), random.Float64()
				if x*x+y*y < 1 {
					p.inside++
				}
				if i%(1<<20) == 0 && t.Context().Err() != nil {
					return t.Context().Err()
				}
			}
			emit("pi", p)
			return nil
		})
		sums := b4.Combine(thrown, func(a, b points) points { return points{a.inside + b.inside, a.all + b.all} })
		return b4.Map(sums, func(_ *b4.Task, s b4.KV[string, points], emit b4.Emit[string, float64]) error {
			emit(s.Key, 4*float64(s.Value.inside)/float64(s.Value.all))
			return nil
		}), nil
	}, b4.NoInput(), b4.Partitions(1), b4.Summary("estimate π by points thrown at random"), b4.Example("--range 1-100"))
}
