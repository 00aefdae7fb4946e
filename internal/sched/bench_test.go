package sched

import (
	"fmt"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// jobsOf submits a number of jobs of so many tasks. Change, if not nil, changes their specs.
func jobsOf(b *testing.B, s *Scheduler, jobs int, tasks int64, change func(i int, spec *state.Spec)) *state.Machine {
	b.Helper()
	m := state.New()
	for i := range jobs {
		e := state.NewEntry(1, 0)
		spec := &state.Spec{Output: fmt.Sprint("/", i), User: fmt.Sprint("user", i%7)}
		spec.Input, _ = state.RangeInput(1, tasks)
		if change != nil {
			change(i, spec)
		}
		e.Submit("", "uid", spec.User, spec)
		if err := m.Apply(uint64(i+1), e.Data(), &state.Result{}); err != nil {
			b.Fatal(err)
		}
		job := m.Job(state.JobID(i + 1))
		s.Start(job, 0, false)
		s.Observe(Key{job.ID, 0}, 1, 0)
	}
	return m
}

// BenchmarkGrant is the cost of a granted task: no-op tasks in full grants, in jobs of several sizes. It must be the same
// for all sizes.
func BenchmarkGrant(b *testing.B) {
	for _, tasks := range []int64{10_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("tasks=%d", tasks), func(b *testing.B) {
			s := New()
			m := jobsOf(b, s, 1, tasks, nil)
			w := &Worker{ID: 1, Slots: 2}
			now := time.UnixMilli(0)
			granted := 0
			b.ReportAllocs()
			for granted < b.N {
				g, ok := s.Next(now, w)
				if !ok {
					s.Start(m.Job(1), 0, false) // all were granted: again
					s.Observe(Key{1, 0}, 1, 0)
					continue
				}
				granted += len(g.Tasks)
				s.Return(w, g.Job, 0, len(g.Tasks), int64(len(g.Tasks))*g.Cost)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(granted), "ns/task")
		})
	}
}

// BenchmarkDecision is the cost of a decision: on one of a thousand workers a slot becomes free, and gets a long task, while that many
// jobs wait.
func BenchmarkDecision(b *testing.B) {
	for _, tt := range []struct {
		name string
		jobs int
		spec func(i int, spec *state.Spec)
	}{
		{"jobs=1", 1, nil},
		{"jobs=1000", 1000, nil},
		{"jobs=10000", 10_000, nil},
		{"jobs=10000 some wide", 10_000, func(i int, spec *state.Spec) { spec.SlotsPerTask = uint32(1 + i%4) }},
		{"jobs=10000 some with memory", 10_000, func(i int, spec *state.Spec) { spec.Memory = uint64(i % 4 * 20) }},
		{"jobs=10000 most for other workers", 10_000, func(i int, spec *state.Spec) {
			if i%10 > 0 {
				spec.Labels = map[string]string{"gpu": "yes"}
			}
		}},
		{"jobs=10000 of all priorities", 10_000, func(i int, spec *state.Spec) { spec.Priority = uint32(i % 101) }},
	} {
		b.Run(tt.name, func(b *testing.B) { benchmarkDecision(b, tt.jobs, tt.spec) })
	}
}

func benchmarkDecision(b *testing.B, jobs int, spec func(i int, spec *state.Spec)) {
	b.Helper()
	type grant struct {
		job  *state.Job
		cost int64
	}
	s, now := New(), time.UnixMilli(0)
	m := jobsOf(b, s, jobs, 10_000_000, spec)
	for _, id := range m.Live() {
		s.Observe(Key{id, 0}, 64, 64*1_000_000)
	}
	workers, leases := make([]Worker, 1000), make([][]grant, 1000)
	fill := func(i int) (granted int) {
		for {
			g, ok := s.Next(now, &workers[i])
			if !ok {
				return granted
			}
			leases[i] = append(leases[i], grant{g.Job, g.Cost})
			granted++
		}
	}
	for i := range workers {
		workers[i] = Worker{ID: state.WorkerID(i + 1), Slots: 4, Memory: 100}
		fill(i)
	}
	granted, i := 0, 0
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		i = (i + 1) % len(workers)
		now = now.Add(time.Millisecond)
		if len(leases[i]) > 0 {
			g := leases[i][0]
			leases[i] = leases[i][1:]
			s.Return(&workers[i], g.job, 0, 1, g.cost)
		}
		granted += fill(i)
	}
	b.ReportMetric(float64(granted)/float64(b.N), "grants/op")
}

// BenchmarkReopened is the cost of a granted task when that many wait for another attempt.
func BenchmarkReopened(b *testing.B) {
	for _, waiting := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			s := New()
			m := jobsOf(b, s, 1, 1_000_000, nil)
			w := &Worker{ID: 1, Slots: 1}
			now := time.UnixMilli(0)
			job := m.Job(1)
			for leased := 0; leased < waiting; {
				g, _ := s.Next(now, w)
				leased += len(g.Tasks)
				s.Return(w, job, 0, len(g.Tasks), int64(len(g.Tasks))*g.Cost)
				for _, task := range g.Tasks {
					s.Reopen(Key{1, 0}, task, now, 0, false)
				}
			}
			s.Observe(Key{1, 0}, 64, 64*1_000_000) // one task a grant
			b.ReportAllocs()
			for b.Loop() {
				g, ok := s.Next(now, w)
				if !ok {
					b.Fatal("nothing to grant")
				}
				s.Return(w, job, 0, 1, g.Cost)
				s.Reopen(Key{1, 0}, g.Tasks[0], now, 0, false)
			}
		})
	}
}
