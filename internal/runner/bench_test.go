package runner

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/jobs"
)

func benchRunner(b *testing.B) *Runner {
	b.Helper()
	return New(Config{Jobs: jobs.All()})
}

func closeSlot(tb testing.TB, s *Slot) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Errorf("Slot.Close() = %v", err)
	}
}

// BenchmarkAlwaysOk measures an attempt that does nothing.
func BenchmarkAlwaysOk(b *testing.B) {
	s := benchRunner(b).NewSlot()
	defer closeSlot(b, s)
	a := &Attempt{
		Job:       &wire.Job{Id: 1, Uid: "u", Output: b.TempDir(), Spool: true, Program: builtin("AlwaysOk")},
		StageName: "map", Number: 1,
	}
	b.ReportAllocs()
	for b.Loop() {
		a.Index++
		a.Lease++
		if out := s.Run(b.Context(), a); out.Failure != nil || out.Canceled {
			b.Fatalf("Run() = %+v", out)
		}
	}
}

// BenchmarkTrue measures a command that does nothing, with two slots. Compare with seq N | xargs -n1 -P2 true.
func BenchmarkTrue(b *testing.B) {
	r := benchRunner(b)
	j := &wire.Job{Id: 1, Uid: "u", Output: b.TempDir(), Spool: true, Program: commandProgram("true")}
	var next atomic.Int64
	var slots sync.WaitGroup
	b.ResetTimer()
	for range 2 {
		slots.Go(func() {
			s := r.NewSlot()
			defer closeSlot(b, s)
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				a := &Attempt{Job: j, StageName: "map", Number: 1, Index: uint64(i), Lease: uint64(i)}
				if out := s.Run(b.Context(), a); out.Failure != nil || out.Canceled {
					b.Errorf("Run() = %+v", out)
					return
				}
			}
		})
	}
	slots.Wait()
}
