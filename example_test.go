package bridgefour_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
)

// lineLengths writes each line with its length.
type lineLengths struct{}

func (lineLengths) Name() string { return "line-lengths" }

func (lineLengths) Map(_ context.Context, t *bridgefour.Task) error {
	shortest, err := t.Settings().Int("shortest", 0)
	if err != nil {
		return err
	}
	records := t.Records()
	for records.Scan() {
		if line := records.Bytes(); len(line) >= shortest {
			if err := t.Out().EmitInt(line, int64(len(line))); err != nil {
				return err
			}
		}
	}
	return records.Err()
}

// A Mapper reads the records of its split and writes its part.
func ExampleMapper() {
	got, err := bridgefourtest.Run(context.Background(), lineLengths{}, bridgefourtest.Input{
		Files:    []string{"to be\nor\nnot to be\n"},
		Settings: bridgefour.Settings{"shortest": "3"},
	})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// to be	5
	// not to be	9
	// <nil>
}

// letters counts letters; its result is the sum.
type letters struct{}

func (letters) Name() string { return "letters" }

func (letters) Map(_ context.Context, t *bridgefour.Task) error {
	text, err := io.ReadAll(t)
	if err != nil {
		return err
	}
	return write(t.Out(), map[string]int64{"letters": int64(len(text))})
}

func (letters) Collect(_ context.Context, c *bridgefour.Collection) error {
	sums := make(map[string]int64)
	for part, err := range c.Parts() {
		if err != nil {
			return err
		}
		records := part.Records()
		for records.Scan() {
			var key string
			var n int64
			if _, err := fmt.Sscan(string(records.Bytes()), &key, &n); err != nil {
				return err
			}
			sums[key] += n
		}
		if err := records.Err(); err != nil {
			return err
		}
	}
	return write(c.Out(), sums)
}

func write(out *bridgefour.Writer, counts map[string]int64) error {
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if err := out.EmitInt([]byte(key), counts[key]); err != nil {
			return err
		}
	}
	return nil
}

// A Collector merges the parts into the result.
func ExampleCollector() {
	got, err := bridgefourtest.Run(context.Background(), letters{}, bridgefourtest.Input{Files: []string{"abc", "defg"}})
	fmt.Printf("%q %s%v\n", got.Parts, got.Collected, err)
	// Output: ["letters\t3\n" "letters\t4\n"] letters	7
	// <nil>
}

// A malformed setting is an error that names the expected form.
func ExampleSettings() {
	settings := bridgefour.Settings{"limit": "ten", "buffer": "4MiB"}
	size, _ := settings.Size("buffer", 0)
	_, err := settings.Int("limit", 10)
	fmt.Println(size)
	fmt.Println(err)
	// Output:
	// 4194304
	// invalid setting limit="ten": want an integer such as 30
}

// BadInput prevents a retry.
func ExampleBadInput() {
	err := bridgefour.BadInput(fmt.Errorf("line 3: %w", io.ErrUnexpectedEOF))
	fmt.Println(err, bridgefour.IsBadInput(err), errors.Is(err, io.ErrUnexpectedEOF))
	// Output: line 3: unexpected EOF true true
}

// RetryAfter delays the next attempt; Cancel ends the job.
func ExampleRetryAfter() {
	busy := errors.New("the service is busy")
	err := bridgefour.RetryAfter(time.Minute, busy)
	after, ok := bridgefour.IsRetryAfter(fmt.Errorf("line 3: %w", err))
	fmt.Println(after, ok, errors.Is(err, busy), bridgefour.IsCancel(err))
	fmt.Println(bridgefour.IsCancel(bridgefour.Cancel(busy)))
	// Output:
	// 1m0s true true false
	// true
}

// NextInput lets one table serve all small files of a task.
func ExampleTask_NextInput() {
	longest := bridgefour.New("longest", func(struct{}) (bridgefour.Output, error) {
		return bridgefour.Map(bridgefour.Splits(), func(t *bridgefour.Task, _ struct{}, emit bridgefour.Emit[string, int]) error {
			name, most := "", -1
			for more := true; more; more = t.NextInput() {
				for records := t.Records(); records.Scan(); {
					if n := len(records.Bytes()); n > most {
						name, most = t.Input(), n
					}
				}
			}
			emit(name, most)
			return nil
		}), nil
	})
	got, err := bridgefourtest.Run(context.Background(), longest, bridgefourtest.Input{
		Files: []string{"to be\n", "or\nnot to be", "that is"}, Names: []string{"a", "b", "c"}, Pack: 2,
	})
	fmt.Printf("%q %v\n", got.Parts, err)
	// Output: ["b\t9\n" "c\t7\n"] <nil>
}
