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
	"github.com/bridgefour/bridgefour/internal/record"
	"github.com/bridgefour/bridgefour/internal/shuffle"
	"github.com/bridgefour/bridgefour/internal/stage"
)

// partitionsDefault is small, and not one, so that small inputs show errors of jobs that need all keys in one task.
const partitionsDefault = 3

// memory is what a task may take for its tables, in bytes.
const memory = 1 << 20

// Input is the input of a job: one task per file, per Pack of them, or per item. With neither files nor items, a job that needs no input has one task, and others have none.
type Input struct {
	// Files are the contents of the input files.
	Files []string
	// Names are the paths of the files. Defaults to input-0, input-1 and so on.
	Names []string
	// Records is the kind of records of the files, as with --records. Defaults to lines.
	Records string
	// Header is the number of lines at the beginning of each file that are no records, as with --header. Defaults to none, also of csv, unlike
	// --records csv.
	Header int
	// Pack is how many files share a task, as small ones do. Defaults to 1.
	Pack int
	// Items are lines, as with --lines. They are ignored if there are Files.
	Items []string
	// Settings are the values of --set. Defaults to none.
	Settings bridgefour.Settings
	// Partitions is the number of partitions of each shuffle for which the job has none. Defaults to 3.
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

// Run runs a job's tasks one after the other, once each, and its Collect. A job that describes itself as done by the first success ends with that. The error is that of the first failed task, prefixed by the
// task's name and the kind of failure, as in "map/0: BAD_INPUT: no such setting", or that of a submit, which refuses settings and records.
func Run(ctx context.Context, job bridgefour.Job, input Input) (Result, error) {
	r := run{input: input, result: Result{PartsAreResult: true}}
	if n := input.Partitions; n < 0 || n > stage.PartitionsMax {
		return Result{}, fmt.Errorf("%d partitions; want 1 to %d, or 0 for %d", n, stage.PartitionsMax, partitionsDefault)
	}
	if _, err := record.Parse(input.Records); err != nil {
		return Result{}, err
	}
	if described, ok := job.(bridgefour.Describer); ok {
		d := described.Describe()
		r.first, r.single = d.FirstSuccess, d.NoInput && len(input.Files)+len(input.Items) == 0
		kind, _, _ := strings.Cut(cmp.Or(input.Records, "lines"), ":")
		if len(d.Records) > 0 && !slices.Contains(d.Records, kind) {
			return Result{}, fmt.Errorf("%s reads records of the kinds %s, and not %s", job.Name(), strings.Join(d.Records, ", "), kind)
		}
	}
	var err error
	if staged, ok := job.(stage.Job); ok {
		err = r.stages(ctx, staged)
	} else {
		err = r.mapper(ctx, job)
	}
	r.result.Log = r.log.String()
	return r.result, err
}

type run struct {
	input  Input
	log    bytes.Buffer
	result Result
	first  bool  // the first task that succeeds ends the job
	single bool  // there is one task, and no input
	failed error // of the first task that has failed, if another one may succeed
}

// ended notes the end of a task of the stage that makes the parts, and reports whether the job ends with it.
func (r *run) ended(part string, err error) (ends bool, _ error) {
	switch {
	case err == nil:
		r.result.Parts = append(r.result.Parts, part)
		r.failed = nil
		return r.first, nil
	case r.first:
		r.failed = cmp.Or(r.failed, err)
		return false, nil
	}
	return true, err
}

// mapper runs a bridgefour.Mapper.
func (r *run) mapper(ctx context.Context, job bridgefour.Job) error {
	mapper, err := hooks.Open(job)
	if checker, ok := job.(bridgefour.SettingsChecker); ok && err == nil {
		err = checker.CheckSettings(r.input.Settings)
	}
	if err != nil {
		return err
	}
	task := mapper.NewTask()
	for i, split := range r.splits() {
		var part bytes.Buffer
		err := task.Run(ctx, &hooks.TaskSpec{
			JobID: 1, Index: uint64(i), Attempt: 1, Settings: r.input.Settings, Input: split.path, Item: split.item, Source: &split, Output: &part, Log: &r.log, Memory: memory,
		})
		if err == nil {
			_, err = task.Finish()
		}
		if ends, err := r.ended(part.String(), failure(ctx, "map", i, err)); err != nil {
			return err
		} else if ends {
			break
		}
	}
	if r.failed != nil || !mapper.Collects() {
		return r.failed
	}
	var out bytes.Buffer
	_, kept, err := task.Collect(ctx, &hooks.CollectionSpec{
		JobID: 1, Settings: r.input.Settings, Parts: each(r.result.Parts), Output: &out, Log: &r.log,
	})
	if err = failure(ctx, "collect", 0, err); err == nil && kept {
		r.result.Collected, r.result.PartsAreResult = out.String(), false
	}
	return err
}

// stages runs a job in a line of stages.
func (r *run) stages(ctx context.Context, job stage.Job) error {
	program, err := job.Plan(r.input.Settings)
	if err != nil {
		return err
	}
	var tasks []stage.Task
	for _, split := range r.splits() {
		tasks = append(tasks, stage.Task{Path: split.path, Item: split.item, Split: &split, Records: r.input.Records})
	}
	line := program.Stages()
	for number := range line {
		var out *partitions
		if number+1 < len(line) {
			out = newPartitions(&line[number+1], r.input.Partitions)
		}
		for i := range tasks {
			var part bytes.Buffer
			t := &tasks[i]
			t.Job, t.Stage, t.Index, t.Attempt, t.Settings, t.Log, t.Memory = 1, number, uint64(i), 1, r.input.Settings, &r.log, memory
			if t.Part = &part; out != nil {
				t.Part, t.Emit, t.EmitBy = nil, out.emit, out.emitBy
			}
			err := failure(ctx, line[number].Name, i, program.Run(ctx, t))
			ends := err != nil
			if out == nil {
				ends, err = r.ended(part.String(), err)
			}
			if ends {
				return err
			}
		}
		if tasks = nil; out != nil {
			for _, list := range out.sorted() {
				tasks = append(tasks, stage.Task{Pairs: &pairs{list: list}})
			}
		}
	}
	return r.failed
}

// failure is the error of a task as a worker would report it.
func failure(ctx context.Context, stage string, index int, err error) error {
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

// splits are those of the input: a file each, or several, or an item.
func (r *run) splits() (list []split) {
	if r.single {
		return []split{{}}
	}
	input := &r.input
	for i, text := range input.Files {
		path := fmt.Sprintf("input-%d", i)
		if i < len(input.Names) {
			path = input.Names[i]
		}
		at := 0
		for range input.Header {
			if end := strings.IndexByte(text[at:], '\n'); end >= 0 {
				at += end + 1
			} else {
				at = len(text)
			}
		}
		file := split{path: path, text: text, at: at, header: text[:at]}
		if last := len(list) - 1; i%max(1, input.Pack) > 0 {
			list[last].rest = append(list[last].rest, file)
		} else {
			list = append(list, file)
		}
	}
	if len(input.Files) > 0 {
		return list
	}
	for _, item := range input.Items {
		list = append(list, split{item: []byte(item), text: item + "\n"})
	}
	return list
}

// split reads a text and knows how far.
type split struct {
	path   string
	item   []byte
	text   string
	at     int
	header string
	rest   []split // files of the same task
}

// Header returns the first lines of the file.
func (s *split) Header() ([]byte, error) { return []byte(s.header), nil }

// Next goes on to the next file.
func (s *split) Next() (path string, more bool, err error) {
	if len(s.rest) == 0 {
		return "", false, nil
	}
	rest := s.rest[1:]
	*s = s.rest[0]
	s.rest = rest
	return s.path, true, nil
}

// Offset returns the offset of the next byte.
func (s *split) Offset() int64 { return int64(s.at) }

// Read reads the text.
func (s *split) Read(p []byte) (int, error) {
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
	by    stage.Partition
	lists [][]pair
}

// newPartitions returns the partitions that a stage will read.
func newPartitions(next *stage.Stage, n int) *partitions {
	return &partitions{next.Partition, make([][]pair, cmp.Or(next.Partitions, n, partitionsDefault))}
}

// emit adds a pair. The ranges of keys are made at the end, when all keys are known.
func (p *partitions) emit(key, value []byte) error { return p.emitBy(key, key, value) }

// emitBy adds a pair to the partition of a part of its key.
func (p *partitions) emitBy(part, key, value []byte) error {
	at := 0
	if p.by == stage.ByHash {
		at = shuffle.Hash(part, len(p.lists))
	}
	p.lists[at] = append(p.lists[at], pair{bytes.Clone(key), bytes.Clone(value)})
	return nil
}

// sorted returns the partitions, each sorted by key. Pairs of equal keys stay in the order in which they were added.
func (p *partitions) sorted() [][]pair {
	for _, list := range p.lists {
		slices.SortStableFunc(list, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	}
	if p.by != stage.ByRange {
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

// pairs implements stage.Pairs.
type pairs struct {
	list []pair
	last stage.Pair
}

// Next returns copies that it reuses, as the shuffle of a worker does: a job that keeps them without a copy fails here too.
func (p *pairs) Next() (stage.Pair, error) {
	if len(p.list) == 0 {
		return stage.Pair{}, io.EOF
	}
	p.last.Key = append(p.last.Key[:0], p.list[0].key...)
	p.last.Value = append(p.last.Value[:0], p.list[0].value...)
	p.list = p.list[1:]
	return p.last, nil
}
