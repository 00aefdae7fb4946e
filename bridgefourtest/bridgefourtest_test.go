package bridgefourtest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
	"github.com/bridgefour/bridgefour/jobs"
)

// longest writes the longest line of each split; its result is the longest of all.
type longest struct{}

func (longest) Name() string { return "longest" }

func (longest) Map(ctx context.Context, t *bridgefour.Task) error {
	if t.Settings().String("fail", "") != "" {
		return bridgefour.BadInput(errors.New("told to fail"))
	}
	t.Log().InfoContext(ctx, "reading", "attempt", t.Attempt())
	return write(t.Records(), t.Out())
}

func (longest) Collect(_ context.Context, c *bridgefour.Collection) error {
	var lines []string
	for part, err := range c.Parts() {
		if err != nil {
			return err
		}
		records := part.Records()
		for records.Scan() {
			lines = append(lines, string(records.Bytes()))
		}
		if err := records.Err(); err != nil {
			return err
		}
	}
	if len(lines) < 2 {
		return bridgefour.ErrPartsAreResult
	}
	_, err := c.Out().WriteString(slices.MaxFunc(lines, byLength))
	return err
}

func byLength(a, b string) int { return len(a) - len(b) }

func write(records *bridgefour.Scanner, out *bridgefour.Writer) error {
	best := ""
	for records.Scan() {
		if len(records.Bytes()) > len(best) {
			best = string(records.Bytes())
		}
	}
	if err := records.Err(); err != nil {
		return err
	}
	_, err := out.WriteString(best + "\n")
	return err
}

func TestRun(t *testing.T) {
	input := bridgefourtest.Input{Files: []string{"one\nthree\n", "seventeen\ntwo"}}
	got, err := bridgefourtest.Run(t.Context(), longest{}, input)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"three\n", "seventeen\n"}; !slices.Equal(got.Parts, want) || got.Collected != "seventeen" || got.PartsAreResult {
		t.Errorf("Run() = %+v, want parts %q, collected seventeen", got, want)
	}
	if !strings.Contains(got.Log, "msg=reading attempt=1") {
		t.Errorf("Run().Log = %q, want what Map logged", got.Log)
	}
}

func TestRunItems(t *testing.T) {
	got, err := bridgefourtest.Run(t.Context(), longest{}, bridgefourtest.Input{Items: []string{"item \xff"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"item \xff\n"}; !slices.Equal(got.Parts, want) || !got.PartsAreResult {
		t.Errorf("Run() = %+v, want parts %q to be the result", got, want)
	}
}

func TestRunFailure(t *testing.T) {
	input := bridgefourtest.Input{Items: []string{"a"}, Settings: bridgefour.Settings{"fail": "yes"}}
	_, err := bridgefourtest.Run(t.Context(), longest{}, input)
	if want := "map/0: BAD_INPUT: told to fail"; err == nil || err.Error() != want {
		t.Errorf("Run() = %v, want %q", err, want)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := bridgefourtest.Run(ctx, longest{}, bridgefourtest.Input{Items: []string{"a"}}); err == nil || err.Error() != "enough" {
		t.Errorf("Run() = %v, want enough", err)
	}
}

// TestRunFirstSuccess: the first task that succeeds ends a search; if none does, the first failure is that of the job.
func TestRunFirstSuccess(t *testing.T) {
	job := bridgefour.New("search", func(struct{}) (bridgefour.Output, error) {
		return bridgefour.Map(bridgefour.Lines(), func(_ *bridgefour.Task, line []byte, emit bridgefour.Emit[string, struct{}]) error {
			if !strings.HasPrefix(string(line), "x") {
				return fmt.Errorf("%s is not it", line)
			}
			emit(string(line), struct{}{})
			return nil
		}), nil
	}, bridgefour.FirstSuccess())
	got, err := bridgefourtest.Run(t.Context(), job, bridgefourtest.Input{Items: []string{"a", "x1", "b", "x2"}})
	if err != nil || got.Text() != "x1\n" {
		t.Errorf("Run() = %q, %v, want x1", got.Text(), err)
	}
	if got, err := bridgefourtest.Run(t.Context(), job, bridgefourtest.Input{Items: []string{"a", "b"}}); err == nil || !strings.Contains(err.Error(), "map/0") || got.Text() != "" {
		t.Errorf("Run() = %q, %v, want the failure of map/0", got.Text(), err)
	}
}

// TestRunRefuses: what a submit refuses is not run.
func TestRunRefuses(t *testing.T) {
	for _, test := range []struct {
		input bridgefourtest.Input
		want  string
	}{
		{bridgefourtest.Input{Records: "csv", Settings: map[string]string{"pattern": "x"}}, "grep reads records of the kinds lines, jsonl, and not csv"},
		{bridgefourtest.Input{Partitions: -1}, "-1 partitions; want 1 to 65536, or 0 for 3"},
		{bridgefourtest.Input{Partitions: 65537}, "65537 partitions; want 1 to 65536, or 0 for 3"},
		{bridgefourtest.Input{Settings: map[string]string{"pattern": "("}}, `invalid setting pattern="(": want a regular expression`},
	} {
		test.input.Files = []string{"x\n"}
		if _, err := bridgefourtest.Run(t.Context(), jobs.Grep{}, test.input); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("Run(%+v): %v, want %s", test.input, err, test.want)
		}
	}
}
