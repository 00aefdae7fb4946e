// Package bridgefourtest runs a job in the process of a test: all its stages, with the shuffles between them in memory, without a cluster, a
// file or a port. It depends on little beside the standard library, so tests build fast.
package bridgefourtest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/hooks"
	"github.com/bridgefour/bridgefour/internal/shuffle"
)

// partitionsDefault is small, and not one, so that small inputs show errors of jobs that need all keys in one task.
const partitionsDefault = 3

// Input is the input of a job: one task per file, or per item.
type Input struct {
	// Files are the contents of the input files.
	Files []string
	// Names are the paths of the files. Defaults to input-0, input-1 and so on.
	Names []string
	// Items are lines, as with --lines. They are ignored if there are Files.
	Items []string
	// Settings are the values of --set. Defaults to none.
	Settings bridgefour.Settings
	// Partitions is the number of partitions of each shuffle. Defaults to what the job says, or else 3.
	Partitions int
}

// Result is the output of a job.
type Result struct {
	// Parts are the outputs of the tasks of the last stage, in order.
	Parts []string
	// Collected is the result of a [bridgefour.Collector]; empty if PartsAreResult.
	Collected string
	// PartsAreResult is true if the job has no Collect, or if that left the parts as the result.
	PartsAreResult bool
	// Log is the log of all tasks.
	Log string
}

// Text is the result as bridgefour result prints it: what was collected, or the parts.
func (r *Result) Text() string {
	if r.PartsAreResult {
		return strings.Join(r.Parts, "")
	}
	return r.Collected
}

// Run runs a job's tasks one after the other, once each, and its Collect. The error is that of the first failed task, prefixed by the
// task's name and the kind of failure, as in "map/0: BAD_INPUT: no such setting", or of the settings.
func Run(ctx context.Context, job bridgefour.Job, input Input) (Result, error) {
	program, err := hooks.Open(job)
	if err != nil {
		return Result{}, err
	}
	stages, err := program.Stages(input.Settings)
	if err != nil {
		return Result{}, err
	}
	r := run{program: program, settings: input.Settings, stages: stages, partitions: input.Partitions}
	result := Result{PartsAreResult: true}
	tasks := splits(input)
	for i := range stages {
		if tasks, result.Parts, err = r.stage(ctx, i, tasks); err != nil {
			result.Log = r.log.String()
			return result, err
		}
	}
	if program.Collects() {
		result.Collected, result.PartsAreResult, err = r.collect(ctx, result.Parts)
	}
	result.Log = r.log.String()
	return result, err
}

type run struct {
	program    hooks.Program
	settings   map[string]string
	stages     []hooks.Stage
	partitions int
	log        bytes.Buffer
}

// stage runs the tasks of a stage and returns those of the next one, or the parts.
func (r *run) stage(ctx context.Context, number int, tasks []hooks.TaskSpec) (next []hooks.TaskSpec, parts []string, err error) {
	stage := &r.stages[number]
	var out partitions
	if stage.Shuffle != hooks.ShuffleNone {
		out = newPartitions(stage, r.partitions)
	}
	for i := range tasks {
		spec := &tasks[i]
		spec.JobID, spec.Stage, spec.Index, spec.Attempt, spec.Settings, spec.Log = 1, number, uint64(i), 1, r.settings, &r.log
		var part bytes.Buffer
		if spec.Output = &part; stage.Shuffle != hooks.ShuffleNone {
			spec.Emit = out.emit
		}
		if err := r.task(ctx, stage, spec); err != nil {
			return nil, parts, err
		}
		parts = append(parts, part.String())
	}
	if stage.Shuffle == hooks.ShuffleNone {
		return nil, parts, nil
	}
	for _, list := range out.sorted() {
		next = append(next, hooks.TaskSpec{Pairs: &pairs{list: list}})
	}
	return next, nil, nil
}

// task runs a task.
func (r *run) task(ctx context.Context, stage *hooks.Stage, spec *hooks.TaskSpec) error {
	task := r.program.NewTask()
	err := task.Run(ctx, spec)
	if err == nil {
		_, err = task.Finish()
	}
	return failure(ctx, stage.Name, spec.Index, err)
}

// failure is the error of a task as a worker would report it.
func failure(ctx context.Context, stage string, index uint64, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return nil
	case bridgefour.IsBadInput(err):
		return fmt.Errorf("%s/%d: BAD_INPUT: %w", stage, index, err)
	}
	return fmt.Errorf("%s/%d: PROGRAM_ERROR: %w", stage, index, err)
}

// collect merges the parts.
func (r *run) collect(ctx context.Context, parts []string) (text string, partsAreResult bool, err error) {
	var out bytes.Buffer
	_, kept, err := r.program.NewTask().Collect(ctx, &hooks.CollectionSpec{
		JobID: 1, Settings: r.settings, Parts: each(parts), Output: &out, Log: &r.log,
	})
	if err = failure(ctx, "collect", 0, err); err != nil || !kept {
		return "", true, err
	}
	return out.String(), false, nil
}

func each(parts []string) iter.Seq2[hooks.PartSpec, error] {
	return func(yield func(hooks.PartSpec, error) bool) {
		for i, text := range parts {
			part := hooks.PartSpec{
				Index: uint64(i), Size: int64(len(text)), Records: uint64(strings.Count(text, "\n")),
				Name: fmt.Sprintf("part-%05d", i), Source: strings.NewReader(text),
			}
			if !yield(part, nil) {
				return
			}
		}
	}
}

// splits are the tasks of the first stage.
func splits(input Input) (tasks []hooks.TaskSpec) {
	for i, text := range input.Files {
		name := fmt.Sprintf("input-%d", i)
		if i < len(input.Names) {
			name = input.Names[i]
		}
		tasks = append(tasks, hooks.TaskSpec{Input: name, Source: &source{text: text}})
	}
	if len(input.Files) > 0 {
		return tasks
	}
	for _, item := range input.Items {
		tasks = append(tasks, hooks.TaskSpec{Item: []byte(item), Source: &source{text: item + "\n"}})
	}
	return tasks
}

// source reads a text and knows how far.
type source struct {
	text string
	at   int
}

// Offset returns the offset of the next byte.
func (s *source) Offset() int64 { return int64(s.at) }

// Read reads pieces of the lengths that a worker reads at most.
func (s *source) Read(p []byte) (int, error) {
	if s.at == len(s.text) {
		return 0, io.EOF
	}
	n := copy(p, s.text[s.at:])
	s.at += n
	return n, nil
}

// pair is a record of a shuffle.
type pair struct{ key, value []byte }

// partitions are the output of a stage.
type partitions struct {
	shuffle hooks.Shuffle
	lists   [][]pair
}

func newPartitions(stage *hooks.Stage, n int) partitions {
	n = cmp.Or(n, stage.Partitions, partitionsDefault)
	if stage.Shuffle == hooks.ShuffleSingle {
		n = 1
	}
	return partitions{stage.Shuffle, make([][]pair, n)}
}

// emit adds a pair. The ranges of keys are made at the end, when all keys are known.
func (p *partitions) emit(key, value []byte) error {
	at := 0
	if p.shuffle == hooks.ShuffleHash {
		at = shuffle.Hash(key, len(p.lists))
	}
	p.lists[at] = append(p.lists[at], pair{bytes.Clone(key), bytes.Clone(value)})
	return nil
}

// sorted returns the partitions, each sorted by key. Pairs of equal keys stay in the order in which they were added.
func (p *partitions) sorted() [][]pair {
	for _, list := range p.lists {
		slices.SortStableFunc(list, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	}
	if p.shuffle != hooks.ShuffleRange {
		return p.lists
	}
	all, from := p.lists[0], 0
	for i := range p.lists {
		to := max(from, len(all)*(i+1)/len(p.lists))
		for to > from && to < len(all) && bytes.Equal(all[to-1].key, all[to].key) {
			to++ // a key is in one partition
		}
		p.lists[i], from = all[from:to], to
	}
	return p.lists
}

// pairs implements hooks.Pairs.
type pairs struct {
	list       []pair
	key, value []byte
}

// Next returns copies that it reuses, as the shuffle of a worker does: a job that keeps them without a copy fails here too.
func (p *pairs) Next() (key, value []byte, err error) {
	if len(p.list) == 0 {
		return nil, nil, io.EOF
	}
	p.key = append(p.key[:0], p.list[0].key...)
	p.value = append(p.value[:0], p.list[0].value...)
	p.list = p.list[1:]
	return p.key, p.value, nil
}
