package runner

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/shuffle"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// wordsByCount counts the words of its items, and sorts them by their counts: a line of three stages.
type wordsByCount struct{}

func (wordsByCount) Name() string { return "words" }

func (wordsByCount) Plan(set map[string]string) (stage.Program, error) {
	if set["bad"] != "" {
		return nil, errors.New("setting bad")
	}
	return wordsByCount{}, nil
}

func (wordsByCount) Stages() []stage.Stage {
	return []stage.Stage{{Name: "map"}, {Name: "count", Partitions: 2}, {Name: "sort", Partition: stage.ByRange, Partitions: 3}}
}

func (wordsByCount) Run(_ context.Context, t *stage.Task) error {
	switch t.Stage {
	case 0:
		for word := range bytes.FieldsSeq(t.Item) {
			_ = t.Emit(word, nil) // an error is kept
		}
	case 1:
		var word []byte
		count := uint64(0)
		for {
			p, err := t.Pairs.Next()
			if err != nil {
				break // it is kept
			}
			if count > 0 && !bytes.Equal(word, p.Key) {
				_ = t.Emit(binary.BigEndian.AppendUint64(nil, count), word)
				count = 0
			}
			word = append(word[:0], p.Key...)
			count++
		}
		if count > 0 {
			_ = t.Emit(binary.BigEndian.AppendUint64(nil, count), word)
		}
	case 2:
		for {
			p, err := t.Pairs.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(t.Part, "%d %s\n", binary.BigEndian.Uint64(p.Key), p.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// line is a slot that runs a job in a line of stages.
type line struct {
	*fixture
	outputs [][]Part // of the stages
}

func newLine(t *testing.T) *line {
	t.Helper()
	job := &wire.Job{Program: builtin("words"), Plan: []*wire.Stage{
		{Name: "map", Role: wire.StageRole_STAGE_MAP, Tasks: 3},
		{Name: "count", Role: wire.StageRole_STAGE_REDUCE, From: []uint32{0}, Tasks: 2},
		{Name: "sort", Role: wire.StageRole_STAGE_REDUCE, From: []uint32{1}, Tasks: 3, Ranges: true},
	}}
	return &line{newFixture(t, job, wordsByCount{}), make([][]Part, 3)}
}

// attempt runs a task of a stage, and keeps its output for the next one.
func (l *line) attempt(ctx context.Context, number, index uint64, item string) (Outcome, string) {
	l.t.Helper()
	l.lease++
	l.log = new(logged)
	s := l.job.GetPlan()[number]
	a := &Attempt{Job: l.job, Stage: number, StageName: s.GetName(), Role: s.GetRole(), Index: index, Lease: l.lease, Number: 1, Log: l.log}
	if number == 0 {
		a.Split = itemSplit(item)
	} else {
		a.Parts = iter.Seq2[Part, error](func(yield func(Part, error) bool) {
			for _, p := range l.outputs[number-1] {
				if !yield(p, nil) {
					return
				}
			}
		})
	}
	out := l.slot.Run(ctx, a)
	if out.File == "" {
		return out, ""
	}
	l.outputs[number] = append(l.outputs[number], Part{Index: index, Lease: l.lease, Path: out.File, Size: out.Size, Records: out.Records})
	text, err := os.ReadFile(string(out.File))
	if err != nil {
		l.t.Fatal(err)
	}
	return out, string(text)
}

// TestLineOfStages: map, reduce into another shuffle, and reduce to parts that are in order one after another.
func TestLineOfStages(t *testing.T) {
	l := newLine(t)
	for i, item := range []string{"b a b", "c b a c b", ""} {
		if out, _ := l.attempt(t.Context(), 0, uint64(i), item); out.Failure != nil || !out.Segment || out.Records != uint64(len(strings.Fields(item))) {
			t.Fatalf("map task %d: %+v", i, out)
		}
	}
	pairs := uint64(0)
	for i := range uint64(2) {
		out, _ := l.attempt(t.Context(), 1, i, "")
		if out.Failure != nil || !out.Segment {
			t.Fatalf("count task %d: %+v", i, out)
		}
		pairs += out.Records
	}
	if pairs != 3 {
		t.Errorf("%d words are counted, want 3", pairs)
	}
	var all []string
	for i := range uint64(3) {
		out, text := l.attempt(t.Context(), 2, i, "")
		lines := strings.SplitAfter(text, "\n")
		if out.Failure != nil || out.Segment || out.Records != uint64(len(lines)-1) {
			t.Fatalf("sort task %d: %+v", i, out)
		}
		all = append(all, lines[:len(lines)-1]...)
	}
	slices.Sort(all[:2]) // equal keys are in the order of the tasks of the stage before
	if want := []string{"2 a\n", "2 c\n", "4 b\n"}; !slices.Equal(all, want) {
		t.Errorf("the parts are %q, want %q", all, want)
	}
}

// TestLineLosesAnOutput: a stage that ignores the error of a lost output of the one before has not failed, and names it.
func TestLineLosesAnOutput(t *testing.T) {
	l := newLine(t)
	l.attempt(t.Context(), 0, 0, "a b c d")
	l.attempt(t.Context(), 0, 1, "e")
	lost := l.outputs[0][0]
	if err := os.Truncate(string(lost.Path), 5); err != nil {
		t.Fatal(err)
	}
	out, _ := l.attempt(t.Context(), 1, 0, "")
	if len(out.Lost) != 1 || out.Lost[0].Part != lost || !out.Canceled || out.Failure != nil || out.File != "" {
		t.Errorf("%+v, want that the output of task 0 is lost", out)
	}
}

// TestShares: a stage that reads and writes has half for each, and --memory is that of jobs in this process alone.
func TestShares(t *testing.T) {
	r := &Runner{sortMemory: 100}
	plan := []*wire.Stage{{Tasks: 1}, {Role: wire.StageRole_STAGE_REDUCE, From: []uint32{0}, Tasks: 1}, {Role: wire.StageRole_STAGE_REDUCE, From: []uint32{1}, Tasks: 1}}
	for _, test := range []struct {
		program         *wire.Program
		memory          uint64
		stage           uint64
		shuffle, tables int64
	}{
		{builtin("x"), 0, 0, 100, 100},
		{builtin("x"), 0, 1, 50, 100},
		{builtin("x"), 0, 2, 100, 100},
		{builtin("x"), 800, 0, 400, 200},
		{builtin("x"), 800, 1, 200, 200},
		{commandProgram("x"), 800, 0, 100, 100},
	} {
		j := &jobState{wire: &wire.Job{Program: test.program, Memory: test.memory}, readers: readers(plan)}
		a := &Attempt{Stage: test.stage, Role: plan[test.stage].GetRole()}
		if shuffle, tables := r.shares(j, a); shuffle != test.shuffle || tables != test.tables {
			t.Errorf("%+v: shares %d and %d", test, shuffle, tables)
		}
	}
	j := &jobState{wire: &wire.Job{Program: builtin("x"), Memory: stage.MemoryMin}, readers: readers(plan)}
	if least, _ := r.shares(j, &Attempt{Stage: 1, Role: plan[1].GetRole()}); least < shuffle.MemoryMin {
		t.Errorf("%d bytes of the least memory are for a shuffle, which takes %d", least, shuffle.MemoryMin)
	}
}

// TestLineFails: errors of writing fail the task, also if the job ignores them, and so does a worker with other settings or another job.
func TestLineFails(t *testing.T) {
	l := newLine(t)
	if err := os.WriteFile(l.output+"/_temporary", nil, 0o600); err != nil { // where the output should be
		t.Fatal(err)
	}
	out, _ := l.attempt(t.Context(), 0, 3, "a")
	if out.Failure.GetKind() != wire.FailureKind_OUTPUT_ERROR {
		t.Errorf("%+v, want that the output cannot be written", out)
	}
	l = newLine(t)
	l.job.Settings = map[string]string{"bad": "1"}
	if out, _ = l.attempt(t.Context(), 0, 3, "a"); out.Failure.GetMessage() != "setting bad" {
		t.Errorf("%+v, want the error of the settings", out)
	}
	l = newLine(t)
	l.job.Plan = append(l.job.Plan, &wire.Stage{Name: "more", Role: wire.StageRole_STAGE_REDUCE, From: []uint32{2}, Tasks: 1})
	l.outputs = append(l.outputs, nil)
	if out, _ = l.attempt(t.Context(), 3, 0, ""); !strings.Contains(out.Failure.GetMessage(), "has 3 stages, and none of number 3 (more)") {
		t.Errorf("%+v, want that the job has no such stage", out)
	}
}

// TestEmitBy: pairs that are emitted by the same part of their keys are in one partition, in order of the whole keys.
func TestEmitBy(t *testing.T) {
	const n, parts = 5, 40
	var k keyedOutput
	k.begin(partitions{n: n}, 1<<20)
	for side := range byte(2) {
		for i := range byte(parts) {
			if err := k.emitBy([]byte{i}, []byte{i, 1 - side}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	var segment bytes.Buffer
	if _, err := k.finish(&segment); err != nil {
		t.Fatal(err)
	}
	total, used := 0, 0
	for p := range n {
		m, err := shuffle.NewReader(shuffle.Config{}).Open([]shuffle.Segment{{Size: uint64(segment.Len()), Open: func(at int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(segment.Bytes()[at:])), nil
		}}}, p, n)
		if err != nil {
			t.Fatal(err)
		}
		var keys [][]byte
		for {
			record, err := m.Next()
			if err != nil {
				break
			}
			keys = append(keys, bytes.Clone(record.Key))
		}
		m.Close()
		for i := 0; i < len(keys); i += 2 {
			if i+1 == len(keys) || keys[i][0] != keys[i+1][0] || keys[i][1] != 0 || keys[i+1][1] != 1 {
				t.Fatalf("partition %d has the keys %v, want both of each part, the one with 0 first", p, keys)
			}
		}
		if total += len(keys); len(keys) > 0 {
			used++
		}
	}
	if total != 2*parts || used < 2 {
		t.Errorf("%d keys in %d partitions, want %d in several", total, used, 2*parts)
	}
}

// TestLongRecord: a record that no segment can hold fails its task at once.
func TestLongRecord(t *testing.T) {
	var k keyedOutput
	k.begin(partitions{n: 1}, 1<<20)
	for range 2 { // the error is kept
		if f := program.OutputFailure(k.emit([]byte("key"), make([]byte, 1<<30))); f.Kind != wire.FailureKind_BAD_INPUT ||
			f.Message != "output: the record is too long: 1073741833 bytes; the limit is 1073741824" {
			t.Errorf("a record of 1 GiB is %v: %s; want bad input", f.Kind, f.Message)
		}
	}
}
