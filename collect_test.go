package bridgefour_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
	"testing/iotest"

	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
)

// Collect sees all pairs in order, in one task: here it gives each word its rank, and ends with their number.
func ExampleCollect() {
	ranks := func(cfg wordsConfig) (b4.Output, error) {
		sorted, err := words(cfg)
		return b4.Collect(sorted.(b4.Pairs[string, int64]), func(_ *b4.Task, pairs iter.Seq[b4.KV[string, int64]], emit b4.Emit[int, string]) error {
			rank := 0
			for p := range pairs {
				rank++
				emit(rank, p.Key)
			}
			emit(rank, "words")
			return nil
		}), err
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("ranks", ranks), bridgefourtest.Input{Files: []string{"to be or not to be", "to do is to be"}})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// 1	to
	// 2	be
	// 3	do
	// 4	is
	// 5	not
	// 6	or
	// 6	words
	// <nil>
}

// The result of a job as typed pairs.
func ExampleReadPairs() {
	got, err := bridgefourtest.Run(context.Background(), b4.New("words", words), bridgefourtest.Input{Files: []string{"to be or not to be"}})
	if err != nil {
		fmt.Println(err)
	}
	for pair, err := range b4.ReadPairs[string, int64](strings.NewReader(got.Text())) {
		fmt.Println(pair.Key, pair.Value, err)
	}
	// Output:
	// be 2 <nil>
	// to 2 <nil>
	// not 1 <nil>
	// or 1 <nil>
}

func TestCollect(t *testing.T) {
	input := bridgefourtest.Input{Files: []string{"c\na\n", "b\nd\n", "", "e\n"}}
	tests := []struct {
		name  string
		job   func(struct{}) (b4.Output, error)
		parts int
		want  string
	}{
		{"the order of the input", func(struct{}) (b4.Output, error) { return b4.Collect(eachLine(), joined(9)), nil }, 1, "c a b d e \n"},
		{"the order of the stage before", func(struct{}) (b4.Output, error) {
			return b4.Collect(b4.SortByKey(eachLine()), joined(9)), nil
		}, 1, "a b c d e \n"},
		{"some of them", func(struct{}) (b4.Output, error) { return b4.Collect(b4.SortByKey(eachLine()), joined(2)), nil }, 1, "a b \n"},
		{"a stage after it", func(struct{}) (b4.Output, error) {
			return b4.Sort(b4.Collect(eachLine(), joined(9)), func(p b4.KV[string, struct{}]) string { return p.Key }), nil
		}, 3, "c a b d e \n"},
	}
	for _, tt := range tests {
		got, err := bridgefourtest.Run(t.Context(), b4.New("collect", tt.job), input)
		if err != nil || got.Text() != tt.want || len(got.Parts) != tt.parts {
			t.Errorf("%s: %d parts %q, %v, want %d, %q", tt.name, len(got.Parts), got.Text(), err, tt.parts, tt.want)
		}
	}
	broken := func(struct{}) (b4.Output, error) {
		return b4.Collect(eachLine(), func(_ *b4.Task, _ iter.Seq[b4.KV[string, struct{}]], _ b4.Emit[string, int]) error {
			return b4.BadInput(io.ErrUnexpectedEOF)
		}), nil
	}
	if _, err := bridgefourtest.Run(t.Context(), b4.New("collect", broken), input); err == nil || !strings.HasPrefix(err.Error(), "collect/0: BAD_INPUT") {
		t.Errorf("a function that fails: %v, want bad input of collect/0", err)
	}
}

// eachLine are the lines of the input.
func eachLine() b4.Pairs[string, struct{}] {
	return b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, struct{}]) error {
		emit(string(line), struct{}{})
		return nil
	})
}

// joined joins the first keys.
func joined(most int) func(*b4.Task, iter.Seq[b4.KV[string, struct{}]], b4.Emit[string, struct{}]) error {
	return func(_ *b4.Task, pairs iter.Seq[b4.KV[string, struct{}]], emit b4.Emit[string, struct{}]) error {
		var all strings.Builder
		n := 0
		for p := range pairs {
			if all.WriteString(p.Key + " "); n == most-1 {
				break
			}
			n++
		}
		emit(all.String(), struct{}{})
		return nil
	}
}

func TestReadPairs(t *testing.T) {
	type point struct {
		X, Y int8
		Name string
	}
	wantPairs(t, "1\t-2\ta\tb\t3.5\n", "", b4.KV[point, float64]{}, "line 1")
	wantPairs(t, "1\t-2\ta\t3.5\n\n", "{{1 -2 a} 3.5} ", b4.KV[point, float64]{}, "line 2: the line has too few columns")
	wantPairs(t, "a\tb\tc\n\t\n", "{a b\tc} { } ", b4.KV[string, string]{}, "")
	wantPairs(t, "a\tb\nc", "{a\tb {}} {c {}} ", b4.KV[string, struct{}]{}, "")
	wantPairs(t, "7\n", "{{} 7} ", b4.KV[struct{}, uint16]{}, "")
	wantPairs(t, "70000\n", "", b4.KV[struct{}, uint16]{}, `line 1: "70000": value out of range`)
	wantPairs(t, "true\tx\r\n", "{true x\r} ", b4.KV[bool, string]{}, "")
	wantPairs(t, "", "", b4.KV[string, map[string]int]{}, "map[string]int cannot be a key or a value")
	wantPairs(t, "", "", b4.KV[string, string]{}, "")

	failed := errors.New("disk")
	for _, err := range b4.ReadPairs[string, int](iotest.ErrReader(failed)) {
		if !errors.Is(err, failed) {
			t.Errorf("of a reader that fails: %v, want its error", err)
		}
	}
	for pair, err := range b4.ReadPairs[string, string](strings.NewReader("a\tb\nc\td\n")) {
		if pair.Key != "a" || err != nil {
			t.Errorf("%v, %v is read after the end", pair, err)
		}
		break
	}
}

// wantPairs reads pairs of the type of none.
func wantPairs[K, V any](t *testing.T, text, want string, _ b4.KV[K, V], wantErr string) {
	t.Helper()
	var got strings.Builder
	var failed error
	for pair, err := range b4.ReadPairs[K, V](iotest.OneByteReader(strings.NewReader(text))) {
		if failed = cmp.Or(failed, err); err == nil {
			fmt.Fprintf(&got, "%v ", pair)
		}
	}
	if got.String() != want || (failed == nil) != (wantErr == "") || failed != nil && !strings.Contains(failed.Error(), wantErr) {
		t.Errorf("ReadPairs(%q) = %s%v, want %s%s", text, got.String(), failed, want, wantErr)
	}
}
