package view

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
)

// doneJob is a reader of job 1, of which tasks are done by worker 1 (alpha), the i-th in i ms. Then failed adds to the last entry.
func doneJob(tb testing.TB, spec *state.Spec, tasks uint64, failed func(e *state.Entry)) *Reader {
	tb.Helper()
	m := state.New()
	var out state.Result
	index := uint64(0)
	apply := func(e *state.Entry) {
		index++
		if err := m.Apply(index, e.Data(), &out); err != nil {
			tb.Fatal(err)
		}
	}
	apply(state.RaiseLevel(1, state.FeatureLevel, "v1"))
	e := state.NewEntry(1_000, state.FeatureLevel)
	e.Register("r", &state.WorkerInfo{Identity: "a", Host: "alpha", Slots: 1})
	e.Submit("", "u", "", spec)
	apply(e)
	const batch = 4000
	for first := uint64(0); first < tasks; first += batch {
		var list []state.Completion
		for i := first; i < min(first+batch, tasks); i++ {
			list = append(list, state.Completion{
				Index: i, Lease: state.NewLease(1, i+1), Size: 10, Records: 1, Started: uint32(i), Millis: uint32(i), PeakKiB: uint32(i % 3),
			})
		}
		e := state.NewEntry(2_000, state.FeatureLevel)
		e.Done(1, 1, 0, list)
		apply(e)
	}
	if failed != nil {
		e := state.NewEntry(9_000, state.FeatureLevel)
		failed(e)
		apply(e)
	}
	c := leader.NewController(leader.ControllerConfig{})
	c.Restore(m)
	views := NewViews()
	views.put(&api.Job{ID: 1})
	return NewReader(views, &fakeSource{machine: m, controller: c}, nil, "")
}

func TestJoblog(t *testing.T) {
	spec := &state.Spec{Name: "x", Argv: [][]byte{[]byte("a\tb"), []byte("{}")}, Output: "/x", Retries: 0}
	spec.Input, _ = state.RangeInput(5, 11)
	r := doneJob(t, spec, 3, func(e *state.Entry) {
		for i, message := range []string{"exit status 42\nno such file", "killed by signal 9 (killed)", "ran longer than 2s"} {
			e.Failed(1, 0, uint64(3+i), state.Failure{Kind: state.BadInput, Worker: 1, Lease: state.NewLease(1, 90+uint64(i)), Millis: 500, Message: message}, nil)
		}
	})
	var b strings.Builder
	if err := r.Joblog(t.Context(), 1, &b); err != nil {
		t.Fatal(err)
	}
	want := joblogHeader + `1	alpha	1.000	0.000	0	10	0	0	a\tb {}	5	1	1	0	part-00000	1/map/0
2	alpha	1.001	0.001	0	10	0	0	a\tb {}	6	1	1	1024	part-00001	1/map/1
3	alpha	1.002	0.002	0	10	0	0	a\tb {}	7	1	1	2048	part-00002	1/map/2
4	alpha	8.500	0.500	0	0	42	0	a\tb {}	8	1	1	0		1/map/3
5	alpha	8.500	0.500	0	0	0	9	a\tb {}	9	1	1	0		1/map/4
6	alpha	8.500	0.500	0	0	-1	0	a\tb {}	10	1	1	0		1/map/5
`
	if b.String() != want {
		t.Errorf("Joblog() =\n%s, want\n%s", b.String(), want)
	}
}

// TestJoblogOfPacks: a row has one line and one item, whatever the task reads.
func TestJoblogOfPacks(t *testing.T) {
	files := state.NewFiles(10)
	files.Pack([]state.Split{{Path: []byte("/a\nb"), Version: state.Version{Size: 2}}, {Path: []byte("/c"), Version: state.Version{Size: 3}}})
	spec := &state.Spec{Name: "x", Output: "/x", Spool: true}
	var err error
	if spec.Input, err = files.Input(); err != nil {
		t.Fatal(err)
	}
	r := doneJob(t, spec, 1, nil)
	var text strings.Builder
	if err := r.Joblog(t.Context(), 1, &text); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(text.String(), "\n")
	if cells := strings.Split(rows[1], "\t"); len(rows) != 3 || cells[9] != `/a\nb and 1 more` {
		t.Errorf("rows %q, want one, of %q", rows[1:], `/a\nb and 1 more`)
	}
	spec.Stages = state.DefaultPlan(1, false, false)
	if task := publicTask(&state.Job{ID: 1, Spec: spec}, &taskRow{}, partname.Of(spec), false); task.Input != "" || strings.Join(task.Inputs, "|") != "/a\nb|/c" {
		t.Errorf("task %+v, want a list of what it reads", task)
	}
}

func TestTimes(t *testing.T) {
	spec := &state.Spec{Name: "x", Output: "/x", Spool: true}
	const tasks = 40_000
	spec.Input, _ = state.RangeInput(1, tasks)
	times, err := doneJob(t, spec, tasks, nil).Times(t.Context(), 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		if got < want-want/60 || got > want+want/60 {
			t.Errorf("%s = %v, want %v", what, got, want)
		}
	}
	near("shortest", times.Shortest, 0)
	near("P50", times.P50, 20)
	near("P90", times.P90, 36)
	near("P99", times.P99, 39.6)
	near("longest", times.Longest, 39.999)
	near("total", times.Total, 39.999*tasks/2)
	if len(times.Slowest) != 2 || times.Slowest[0].Index != tasks-1 || times.Slowest[1].Index != tasks-2 || times.Tasks != tasks || times.Memory != 2<<10 {
		t.Errorf("Times() = %+v, want the last two tasks as the slowest", times)
	}
}

// TestStages: what each stage has read and written, and the partition with a hot key.
func TestStages(t *testing.T) {
	spec := &state.Spec{Name: "x", Output: "/x", Spool: true, Stages: state.LinePlan([]state.StageSpec{{Name: "map", Tasks: 3}, {Name: "count", Tasks: 5}})}
	spec.Input, _ = state.RangeInput(1, 3)
	r := doneJob(t, spec, 3, func(e *state.Entry) {
		var list []state.Completion
		for i, read := range []uint64{2 << 20, 1 << 20, 3 << 20, 50 << 20, 2 << 20} {
			list = append(list, state.Completion{Index: uint64(i), Lease: state.NewLease(1, 10+uint64(i)), Size: 7, Records: 2, InputBytes: read, Millis: uint32(read >> 20)})
		}
		e.Done(1, 1, 1, list)
	})
	times, err := r.Times(t.Context(), 1, 0)
	want := []api.StageTimes{
		{Stage: "map", Tasks: 3, P50: 0.001, Longest: 0.002, Slowest: "1/map/2", Total: 0.003, Written: 30, Records: 3},
		{
			Stage: "count", Tasks: 5, P50: 0.002, Longest: 0.05, Slowest: "1/count/3", Total: 0.058, Read: 58 << 20, Written: 35, Records: 10,
			ReadP50: 2 << 20, ReadMost: 50 << 20, ReadMostOf: "1/count/3",
		},
	}
	if err != nil || !slices.Equal(times.Stages, want) {
		t.Errorf("Times().Stages = %+v, %v; want %+v", times.Stages, err, want)
	}
	e, err := r.Explain(t.Context(), 1, "", 0)
	hot := "partition 3 of stage count has 50 MiB of 58 MiB, 25 times as much as the median: it may have a key with many records"
	if err != nil || !slices.Contains(e.Reasons, hot) {
		t.Errorf("Explain() = %+v, %v; want %q", e, err, hot)
	}
	if times, err = r.Times(t.Context(), 1, 1); err != nil || times.Slowest[0].Read != 50<<20 {
		t.Errorf("Times() = %+v, %v; want that the slowest has read 50 MiB", times, err)
	}
}

func TestHistogram(t *testing.T) {
	for ms := uint64(0); ms < 1<<32; ms += 1 + ms/300 {
		got := uint64(valueOf(bucketOf(uint32(ms))))
		if got > ms+ms/60+1 || got < ms-ms/60 {
			t.Fatalf("%d ms are counted as %d", ms, got)
		}
	}
}

// BenchmarkJoblog writes the job log of a million tasks.
func BenchmarkJoblog(b *testing.B) {
	spec := &state.Spec{Name: "x", Argv: [][]byte{[]byte("./simulate"), []byte("{}")}, Output: "/x", Spool: true}
	const tasks = 1_000_000
	spec.Input, _ = state.RangeInput(1, tasks)
	r := doneJob(b, spec, tasks, nil)
	for b.Loop() {
		if err := r.Joblog(b.Context(), 1, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
