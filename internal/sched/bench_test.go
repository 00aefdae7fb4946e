package sched

import (
	"fmt"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// jobsOf submits a number of jobs of so many tasks.
func jobsOf(b *testing.B, s *Scheduler, jobs int, tasks int64) *state.Machine {
	b.Helper()
	m := state.New()
	for i := range jobs {
		e := state.NewEntry(1, 0)
		spec := &state.Spec{Output: fmt.Sprint("/", i), User: fmt.Sprint("user", i%7)}
		spec.Input, _ = state.RangeInput(1, tasks)
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
			m := jobsOf(b, s, 1, tasks)
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

// BenchmarkDecision is the cost of a decision, one long task for one slot, when that many jobs wait.
func BenchmarkDecision(b *testing.B) {
	for _, jobs := range []int{1, 1000} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			s := New()
			m := jobsOf(b, s, jobs, 10_000_000)
			for _, id := range m.Live() {
				s.Observe(Key{id, 0}, 64, 64*1_000_000)
			}
			w := &Worker{ID: 1, Slots: 1}
			now := time.UnixMilli(0)
			b.ReportAllocs()
			for b.Loop() {
				g, ok := s.Next(now, w)
				if !ok {
					b.Fatal("nothing to grant")
				}
				s.Return(w, g.Job, 0, 1, g.Cost)
			}
		})
	}
}

// BenchmarkReopened is the cost of a granted task when that many wait for another attempt.
func BenchmarkReopened(b *testing.B) {
	for _, waiting := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			s := New()
			m := jobsOf(b, s, 1, 1_000_000)
			w := &Worker{ID: 1, Slots: 1}
			now := time.UnixMilli(0)
			job := m.Job(1)
			for leased := 0; leased < waiting; {
				g, _ := s.Next(now, w)
				leased += len(g.Tasks)
				s.Return(w, job, 0, len(g.Tasks), int64(len(g.Tasks))*g.Cost)
				for _, task := range g.Tasks {
					s.Reopen(Key{1, 0}, task, now, 0)
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
				s.Reopen(Key{1, 0}, g.Tasks[0], now, 0)
			}
		})
	}
}
