// Package bridgefourtest runs a job in the process of a test: without a cluster or a port, and with the worker's code for input and
// output.
package bridgefourtest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Input is the input of a job: one task per file, or per item.
type Input struct {
	// Files are the contents of the input files.
	Files []string
	// Items are lines, as with --lines. They are ignored if there are Files.
	Items []string
	// Settings are the values of --set. Defaults to none.
	Settings bridgefour.Settings
}

// Result is the output of a job.
type Result struct {
	// Parts are the outputs of the tasks, in order.
	Parts []string
	// Collected is the result of a [bridgefour.Collector]; empty if PartsAreResult.
	Collected string
	// PartsAreResult is true if the job has no Collect, or if that left the parts as the result.
	PartsAreResult bool
	// Log is the log of all tasks.
	Log string
}

// Run runs a job's tasks one after the other, once each, and its Collect. The error is that of the first failed task, prefixed by the
// task's name and the kind of failure, as in "map/0: BAD_INPUT: no such setting".
func Run(ctx context.Context, tb testing.TB, job bridgefour.Job, input Input) (Result, error) {
	tb.Helper()
	slot := runner.New(runner.Config{Jobs: []bridgefour.Job{job}}).NewSlot()
	defer slot.Close() //nolint:errcheck // a built-in job has nothing open
	r := run{slot: slot, wire: &wire.Job{
		Id: 1, Uid: "test", Output: tb.TempDir(), Spool: true, Settings: input.Settings,
		Program: &wire.Program{Kind: &wire.Program_Builtin{Builtin: job.Name()}},
	}}
	splits, err := splits(tb.TempDir(), input)
	if err != nil {
		return Result{}, err
	}
	result := Result{PartsAreResult: true}
	var parts []runner.Part
	for i, split := range splits {
		out, text, err := r.attempt(ctx, &runner.Attempt{StageName: "map", Index: uint64(i), Split: split})
		if err != nil {
			return r.logged(result), err
		}
		result.Parts = append(result.Parts, text)
		parts = append(parts, runner.Part{Index: uint64(i), Path: out.File, Size: out.Size, Records: out.Records})
	}
	if _, ok := job.(bridgefour.Collector); ok {
		out, text, err := r.attempt(ctx, &runner.Attempt{Stage: 1, StageName: "collect", Role: wire.StageRole_STAGE_COLLECT, Parts: all(parts)})
		if err != nil {
			return r.logged(result), err
		}
		result.Collected, result.PartsAreResult = text, out.File == ""
	}
	return r.logged(result), nil
}

type run struct {
	slot *runner.Slot
	wire *wire.Job
	log  bytes.Buffer
}

// Append implements runner.LogSink.
func (r *run) Append(text []byte) { r.log.Write(text) }

func (r *run) logged(result Result) Result {
	result.Log = r.log.String()
	return result
}

func (r *run) attempt(ctx context.Context, a *runner.Attempt) (runner.Outcome, string, error) {
	a.Job, a.Number, a.Lease, a.Log = r.wire, 1, a.Index+1, r
	out := r.slot.Run(ctx, a)
	if out.Canceled {
		return out, "", context.Cause(ctx)
	}
	if f := out.Failure; f != nil {
		return out, "", fmt.Errorf("%s/%d: %v: %s", a.StageName, a.Index, f.GetKind(), f.GetMessage())
	}
	if out.File == "" {
		return out, "", nil
	}
	text, err := os.ReadFile(string(out.File))
	return out, string(text), err
}

func splits(dir string, input Input) ([]*wire.Split, error) {
	var list []*wire.Split
	for i, text := range input.Files {
		path := filepath.Join(dir, fmt.Sprintf("input-%d", i))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
		list = append(list, &wire.Split{Kind: &wire.Split_File{File: &wire.FileSplit{Path: []byte(path), Whole: true}}})
	}
	if len(input.Files) > 0 {
		return list, nil
	}
	for _, item := range input.Items {
		list = append(list, &wire.Split{Kind: &wire.Split_Item{Item: []byte(item)}})
	}
	return list, nil
}

func all(parts []runner.Part) iter.Seq2[runner.Part, error] {
	return func(yield func(runner.Part, error) bool) {
		for _, part := range parts {
			if !yield(part, nil) {
				return
			}
		}
	}
}
