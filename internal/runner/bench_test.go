package runner

import (
	"os"
	"path/filepath"
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

// BenchmarkWordCount counts the words of the files in $B4_BENCH_TEXT with two slots and collects the result. Compare with
// bench/wordcount. The result is copied to $B4_BENCH_OUT, if set.
func BenchmarkWordCount(b *testing.B) {
	dir := os.Getenv("B4_BENCH_TEXT")
	if dir == "" {
		b.Skip("B4_BENCH_TEXT is not set; create a folder with go run ./bench/gentext -dir DIR")
	}
	r := benchRunner(b)
	splits := fileSplits(b, dir, 64<<20)
	for b.Loop() {
		output := b.TempDir()
		j := &wire.Job{Id: 1, Uid: "u", Output: output, Spool: true, Program: builtin("wordcount"), Stages: []string{"map", "collect"}}
		outcomes := make([]Outcome, len(splits))
		var next atomic.Int64
		var slots sync.WaitGroup
		for range 2 {
			slots.Go(func() {
				s := r.NewSlot()
				defer closeSlot(b, s)
				for i := next.Add(1) - 1; i < int64(len(splits)); i = next.Add(1) - 1 {
					a := &Attempt{Job: j, StageName: "map", Number: 1, Index: uint64(i), Lease: uint64(i), Split: splits[i]}
					outcomes[i] = s.Run(b.Context(), a)
					b.SetBytes(int64(outcomes[i].InputBytes) * int64(len(splits)))
				}
			})
		}
		slots.Wait()
		s := r.NewSlot()
		a := &Attempt{Job: j, Stage: 1, StageName: "collect", Role: wire.StageRole_STAGE_COLLECT, Number: 1, Parts: partsOf(outcomes)}
		out := s.Run(b.Context(), a)
		if out.Failure != nil || out.File == "" {
			b.Fatalf("collect: Run() = %+v", out)
		}
		closeSlot(b, s)
		if to := os.Getenv("B4_BENCH_OUT"); to != "" {
			if err := os.Rename(string(out.File), filepath.Clean(to)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
