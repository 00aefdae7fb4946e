package bridgefour_test

import (
	"context"
	"fmt"
	"io"
	"strconv"

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
