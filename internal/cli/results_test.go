package cli

import (
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// TestTakenSums finds the outputs that were made again since they were taken.
func TestTakenSums(t *testing.T) {
	final := func(task, sum uint64) api.Part { return api.Part{Task: task, Sum: sum, Final: true} }
	for name, c := range map[string]struct {
		parts    []api.Part
		replaced []uint64
	}{
		"the same":                         {[]api.Part{{Task: 0, Sum: 5}, {Task: 0, Sum: 5, Offset: 3}, {Task: 600, Sum: 6}, final(0, 5), final(1, 0)}, nil},
		"another one":                      {[]api.Part{{Task: 0, Sum: 5}, {Task: 600, Sum: 6}, final(600, 7), final(0, 6), final(600, 7)}, []uint64{0, 600}},
		"nothing any more":                 {[]api.Part{{Task: 2, Sum: 5}, final(2, 0)}, []uint64{2}},
		"nothing before":                   {[]api.Part{{Task: 2, Sum: 5}, final(1, 4)}, []uint64{1}},
		"in the middle":                    {[]api.Part{{Task: 2, Sum: 5}, {Task: 2, Sum: 6, Offset: 3}, final(2, 6)}, []uint64{2}},
		"an old server":                    {[]api.Part{{Task: 2}, {Task: 3}}, nil},
		"a part of it from an old server":  {[]api.Part{{Task: 2}, {Task: 3, Sum: 1}, final(2, 5)}, nil},
		"an old one after a newer version": {[]api.Part{{Task: 3, Sum: 1}, {Task: 3, Offset: 3}, final(3, 1)}, nil},
	} {
		var taken takenSums
		for i := range c.parts {
			taken.add(&c.parts[i])
		}
		if !slices.Equal(taken.replaced, c.replaced) {
			t.Errorf("%s: replaced = %v, want %v", name, taken.replaced, c.replaced)
		}
	}
}
