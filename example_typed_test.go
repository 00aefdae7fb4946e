package bridgefour_test

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
)

// The most frequent letters. Of those that are as frequent, the first ones come first.
func ExampleTop() {
	letters := func(struct{}) (b4.Output, error) {
		pairs := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, int]) error {
			for _, c := range line {
				emit(string(c), 1)
			}
			return nil
		})
		return b4.Top(b4.Combine(pairs, b4.Sum[int]), 2, func(p b4.KV[string, int]) b4.Desc[int] { return b4.Desc[int]{Value: p.Value} }), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("letters", letters), bridgefourtest.Input{Files: []string{"banana\n", "ananas\n"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// a	6
	// n	4
	// <nil>
}

// Lines in order, whatever task read them. Equal ones stay in the order of the input.
func ExampleSortByKey() {
	sorted := func(struct{}) (b4.Output, error) {
		return b4.SortByKey(b4.Map(b4.Lines(), func(t *b4.Task, line []byte, emit b4.Emit[string, string]) error {
			emit(string(line), t.Input())
			return nil
		})), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("sorted", sorted), bridgefourtest.Input{Files: []string{"pear\nfig\n", "fig\napple\n"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// apple	input-1
	// fig	input-0
	// fig	input-1
	// pear	input-0
	// <nil>
}

// The keys are in order over all parts, and the values of each are read one by one.
func ExampleGroupsInOrder() {
	firsts := func(struct{}) (b4.Output, error) {
		byLetter := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, string]) error {
			emit(string(line[:1]), string(line))
			return nil
		})
		return b4.Map(b4.GroupsInOrder(byLetter), func(_ *b4.Task, g b4.Group[string, string], emit b4.Emit[string, string]) error {
			for word := range g.Values {
				emit(g.Key, word)
				break // the others are passed over
			}
			return nil
		}), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("firsts", firsts), bridgefourtest.Input{Files: []string{"pear\napple\n", "plum\nfig\n"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// a	apple
	// f	fig
	// p	pear
	// <nil>
}

// A function that reads a whole split by itself.
func ExampleSplits() {
	sizes := func(struct{}) (b4.Output, error) {
		return b4.Map(b4.Splits(), func(t *b4.Task, _ struct{}, emit b4.Emit[string, int64]) error {
			n, err := io.Copy(io.Discard, t)
			emit(t.Input(), n)
			return err
		}), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("sizes", sizes), bridgefourtest.Input{Files: []string{"banana\n", ""}, Names: []string{"a", "b"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// a	7
	// b	0
	// <nil>
}

// A search: the first task that succeeds ends the job, and those that fail do not matter then.
func ExampleFirstSuccess() {
	divisor := func(struct{}) (b4.Output, error) {
		return b4.Map(b4.Lines(), func(_ *b4.Task, item []byte, emit b4.Emit[string, struct{}]) error {
			n, err := strconv.Atoi(string(item))
			if err != nil || 8633%n != 0 {
				return b4.BadInput(fmt.Errorf("%s does not divide 8633", item))
			}
			emit(string(item), struct{}{})
			return nil
		}), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("divisor", divisor, b4.FirstSuccess()), bridgefourtest.Input{Items: []string{"87", "88", "89", "90"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// 89
	// <nil>
}

// Values of one key are combined before the shuffle and again after it.
func ExampleCombine() {
	warmest := func(struct{}) (b4.Output, error) {
		readings := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, float64]) error {
			station, text, _ := strings.Cut(string(line), ";")
			degrees, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return b4.BadInput(err)
			}
			emit(station, degrees)
			return nil
		})
		return b4.Combine(readings, b4.Max[float64]), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("warmest", warmest), bridgefourtest.Input{Files: []string{"oslo;-3.5\nrome;17\n", "oslo;4\n"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// oslo	4
	// rome	17
	// <nil>
}

// Distinct keys: their values do not matter.
func ExampleAny() {
	visitors := func(struct{}) (b4.Output, error) {
		seen := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, struct{}]) error {
			emit(string(line), struct{}{})
			return nil
		})
		return b4.Combine(seen, b4.Any), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("visitors", visitors), bridgefourtest.Input{Files: []string{"ann\nbob\n", "bob\n"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// ann
	// bob
	// <nil>
}

// An order of several fields: the longest words first, and words of one length by the alphabet.
func ExampleSort() {
	type order struct {
		size b4.Desc[int]
		word string
	}
	longest := func(struct{}) (b4.Output, error) {
		words := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, int]) error {
			emit(string(line), len(line))
			return nil
		})
		return b4.Sort(words, func(p b4.KV[string, int]) order { return order{b4.Desc[int]{Value: p.Value}, p.Key} }), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("longest", longest), bridgefourtest.Input{Files: []string{"pear\nfig\n", "plum\n"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// pear	4
	// plum	4
	// fig	3
	// <nil>
}

// A job that makes its data from its settings. A wrong one refuses the submit.
func ExampleNoInput() {
	type limits struct {
		From, To int
		Step     int `b4:",default=1"`
	}
	squares := b4.New("squares", func(c limits) (b4.Output, error) {
		if c.Step < 1 {
			return nil, fmt.Errorf("step %d: want at least 1", c.Step)
		}
		return b4.Map(b4.Splits(), func(_ *b4.Task, _ struct{}, emit b4.Emit[int, int]) error {
			for n := c.From; n <= c.To; n += c.Step {
				emit(n, n*n)
			}
			return nil
		}), nil
	}, b4.NoInput())
	got, err := bridgefourtest.Run(context.Background(), squares, bridgefourtest.Input{Settings: b4.Settings{"from": "2", "to": "4"}})
	fmt.Print(got.Text(), err, "\n")
	_, err = bridgefourtest.Run(context.Background(), squares, bridgefourtest.Input{Settings: b4.Settings{"from": "2", "to": "4", "step": "0"}})
	fmt.Println(err)
	// Output:
	// 2	4
	// 3	9
	// 4	16
	// <nil>
	// job squares: step 0: want at least 1
}
