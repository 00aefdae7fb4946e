package bridgefour_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"testing"
	"time"

	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/stage"
)

const (
	costPairs = 4_000
	costKeys  = costPairs / 4
)

// costText is what the jobs of costJobs read: a number a line, each of costKeys numbers four times.
var costText = func() (text []byte) {
	for i := range costPairs {
		text = append(strconv.AppendInt(text, int64(1_000_000+i*7919%costKeys), 10), '\n')
	}
	return text
}()

type place struct {
	name []byte
	at   int64
}

// keyed makes a job of each kind of stage, for keys of a type.
func keyed[K any](key func(line []byte) K) map[string]b4.Job {
	pairs := func() b4.Pairs[K, int64] {
		return b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[K, int64]) error {
			emit(key(line), 1)
			return nil
		})
	}
	byKey := func(p b4.KV[K, int64]) K { return p.Key }
	jobs := map[string]b4.Job{}
	for name, out := range map[string]func() b4.Output{
		"combine": func() b4.Output { return b4.Combine(pairs(), b4.Sum[int64]) },
		"reduce": func() b4.Output {
			return b4.Reduce(pairs(), func(_ K, values iter.Seq[int64]) (sum int64, _ error) {
				for v := range values {
					sum += v
				}
				return sum, nil
			})
		},
		"sort": func() b4.Output { return b4.Sort(pairs(), byKey) },
		"desc": func() b4.Output {
			return b4.SortByKey(b4.Map(pairs(), func(_ *b4.Task, p b4.KV[K, int64], emit b4.Emit[b4.Desc[K], int64]) error {
				emit(b4.Desc[K]{Value: p.Key}, p.Value)
				return nil
			}))
		},
		"top": func() b4.Output { return b4.Top(pairs(), 10, byKey) },
		"collect": func() b4.Output {
			return b4.Collect(pairs(), func(_ *b4.Task, pairs iter.Seq[b4.KV[K, int64]], emit b4.Emit[K, int64]) error {
				for p := range pairs {
					emit(p.Key, p.Value)
				}
				return nil
			})
		},
	} {
		jobs[name] = b4.New(name, func(struct{}) (b4.Output, error) { return out(), nil })
	}
	return jobs
}

// costJobs are jobs by the type of their keys and the kind of their stage.
func costJobs() map[string]map[string]b4.Job {
	number := func(line []byte) (n int64) {
		for _, c := range line {
			n = n*10 + int64(c-'0')
		}
		return n
	}
	return map[string]map[string]b4.Job{
		"string": keyed(func(line []byte) string { return string(line) }),
		"bytes":  keyed(func(line []byte) []byte { return line }),
		"int64":  keyed(number),
		"struct": keyed(func(line []byte) place { return place{line, number(line)} }),
	}
}

// costSplit is a split in memory.
type costSplit struct{ bytes.Reader }

func (*costSplit) Offset() int64               { return 0 }
func (*costSplit) Header() ([]byte, error)     { return nil, nil }
func (*costSplit) Next() (string, bool, error) { return "", false, nil }

// costInput is a partition in memory.
type costInput struct{ list, left []stage.Pair }

func (c *costInput) Next() (p stage.Pair, err error) {
	if len(c.left) == 0 {
		return p, io.EOF
	}
	p, c.left = c.left[0], c.left[1:]
	return p, nil
}

// costTask is a task that can be run again and again.
type costTask struct {
	program stage.Program
	task    stage.Task
	split   costSplit
	input   costInput
}

func (c *costTask) run(tb testing.TB) {
	tb.Helper()
	c.split.Reset(costText)
	c.input.left = c.input.list
	if err := c.program.Run(tb.Context(), &c.task); err != nil {
		tb.Fatal(err)
	}
}

// costTasks are a task of each stage of a job.
func costTasks(tb testing.TB, job b4.Job) (tasks []*costTask, names []string) {
	tb.Helper()
	program, err := job.(stage.Job).Plan(nil)
	if err != nil {
		tb.Fatal(err)
	}
	var pairs []stage.Pair
	last := len(program.Stages()) - 1
	for i, s := range program.Stages() {
		c := &costTask{program: program, input: costInput{list: pairs}}
		c.task = stage.Task{Stage: i, Memory: 1 << 20, Split: &c.split, Pairs: &c.input, Part: io.Discard}
		if i < last {
			pairs = nil
			c.task.Emit = func(key, value []byte) error {
				pairs = append(pairs, stage.Pair{Key: bytes.Clone(key), Value: bytes.Clone(value)})
				return nil
			}
			c.run(tb)
			slices.SortStableFunc(pairs, func(a, b stage.Pair) int { return bytes.Compare(a.Key, b.Key) })
			c.task.Emit = func([]byte, []byte) error { return nil }
		}
		c.run(tb) // buffers grow
		tasks, names = append(tasks, c), append(names, s.Name)
	}
	return tasks, names
}

// TestStagesDoNotAllocate: typed functions allocate nothing for a pair, but strings: one that is emitted, as its user makes it, and one for each that is read and is not the one
// before it. A loop over the values of a key takes two allocations of its user's function.
func TestStagesDoNotAllocate(t *testing.T) {
	const few = costPairs / 20 // buffers, and the pairs that Top keeps
	for keys, jobs := range costJobs() {
		for kind, job := range jobs {
			tasks, names := costTasks(t, job)
			for i, c := range tasks {
				most := few
				switch {
				case keys == "string" && i == 0, keys == "string" && kind == "collect":
					most += costPairs
				case keys == "string":
					most += costKeys
				}
				if kind == "reduce" && i == 1 {
					most += 2 * costKeys
				}
				if n := testing.AllocsPerRun(3, func() { c.run(t) }); n > float64(most) {
					t.Errorf("%s of %s, %s: %v allocations, want at most %d", kind, keys, names[i], n, most)
				}
			}
		}
	}
}

// BenchmarkStages measures what the typed functions take for each pair that a task of a stage reads or emits, without the shuffle.
func BenchmarkStages(b *testing.B) {
	for keys, jobs := range costJobs() {
		for kind, job := range jobs {
			tasks, names := costTasks(b, job)
			for i, c := range tasks {
				b.Run(fmt.Sprintf("%s/%s/%s", kind, keys, names[i]), func(b *testing.B) {
					least := time.Hour // a task takes less than a time slice, so the least is that of a machine without other work
					for b.Loop() {
						begin := time.Now()
						c.run(b)
						least = min(least, time.Since(begin))
					}
					n := cmp.Or(float64(len(c.input.list)), costPairs)
					b.ReportMetric(0, "ns/op")
					b.ReportMetric(float64(least.Nanoseconds())/n, "ns/pair")
					b.ReportMetric(testing.AllocsPerRun(10, func() { c.run(b) })/n, "allocs/pair")
				})
			}
		}
	}
}
