package worker

import (
	"context"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/jobs"
)

// leaseAhead and leaseBatch are about what a leader uses for short tasks.
const (
	leaseAhead = 16 << 10
	leaseBatch = 2048
)

// benchmarkLeases has a fake leader grant b.N leases over a real socket, and give its verdict on each.
//
//	go test -run '^$' -bench Leases -benchtime 1000000x ./internal/worker
func benchmarkLeases(b *testing.B, job *wire.Job, cfg Config, run scriptRunner) {
	b.Helper()
	l := newFakeLeader(b, "127.0.0.1:0")
	cfg.Leaders, cfg.Slots = []string{l.addr}, 2
	startWorker(b, cfg, run)
	s := l.welcomed()
	s.work(&wire.Work{Jobs: []*wire.Job{job}})
	granted, done := 0, 0
	b.ReportAllocs()
	b.ResetTimer()
	for done < b.N {
		for granted < b.N && granted-done+leaseBatch <= leaseAhead {
			n := min(leaseBatch, b.N-granted)
			index := make([]uint64, n)
			for i := range index {
				index[i] = uint64(granted + i)
			}
			s.work(&wire.Work{Leases: []*wire.Leases{{Job: job.GetId(), FirstLease: 1<<40 + uint64(granted), Index: index}}})
			granted += n
		}
		r := s.report()
		if len(r.GetFailed()) > 0 {
			b.Fatalf("failed: %v", r.GetFailed()[0])
		}
		var verdicts []uint64
		for _, f := range r.GetFinished() {
			verdicts = append(verdicts, f.GetLease()...)
		}
		done += len(verdicts)
		s.work(&wire.Work{Committed: verdicts})
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkLeasesFake is the worker's own cost: its runner does nothing.
func BenchmarkLeasesFake(b *testing.B) {
	benchmarkLeases(b, jobMessage(1), Config{}, func(context.Context, *runner.Attempt) runner.Outcome { return runner.Outcome{} })
}

// BenchmarkLeasesAlwaysOk adds the real runner and the built-in job that does nothing.
func BenchmarkLeasesAlwaysOk(b *testing.B) {
	job := &wire.Job{
		Id: 1, Uid: "u", Output: b.TempDir(), Spool: true, Stages: []string{"map"}, Range: true,
		Program: &wire.Program{Kind: &wire.Program_Builtin{Builtin: "AlwaysOk"}},
	}
	benchmarkLeases(b, job, Config{Jobs: []bridgefour.Job{jobs.AlwaysOk{}}}, nil)
}
