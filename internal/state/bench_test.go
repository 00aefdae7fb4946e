package state

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

const (
	benchTasks = 10_000_000
	benchBatch = 4000 // completions in one entry
)

func heap() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// completions is the entry of tasks first to first + benchBatch - 1.
func completions(first, size uint64) *Entry {
	list := make([]Completion, 0, benchBatch)
	for i := first; i < min(first+benchBatch, benchTasks); i++ {
		list = append(list, Completion{Index: i, Lease: NewLease(7, i+1), Size: size, Records: size / 3, Checksum: i * 0x9e3779b97f4a7c15, InputBytes: 99, Started: uint32(i / 1000), Millis: uint32(i % 3), PeakKiB: uint32(40_000 + i%9000)})
	}
	e := NewEntry(int64(first), FeatureLevel)
	e.Done(WorkerID(1+first%2), 1, 0, list)
	return e
}

func benchMachine(b *testing.B, failed bool) *Machine {
	b.Helper()
	m := latest()
	in, err := RangeInput(1, benchTasks)
	if err != nil {
		b.Fatal(err)
	}
	e := NewEntry(1, FeatureLevel)
	e.Submit("k", "u", "", &Spec{Output: "/o", Input: in, Retries: 3})
	mustApply(b, m, e)
	for i := uint64(0); failed && i < benchTasks; {
		e := NewEntry(1, FeatureLevel)
		for range benchBatch {
			e.Failed(1, 0, i, Failure{Kind: ProgramError, Worker: 1, Lease: NewLease(6, i), Message: "exit status 1"}, nil)
			i++
		}
		mustApply(b, m, e)
	}
	return m
}

// BenchmarkMemory is the leader's state of a job of ten million tasks, all done: bytes a task without output, with output,
// and with output where each has failed once before.
func BenchmarkMemory(b *testing.B) {
	for name, test := range map[string]struct {
		size   uint64
		failed bool
	}{"noop": {}, "output": {size: 1000}, "output_and_failure": {size: 1000, failed: true}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				m := benchMachine(b, test.failed)
				for i := uint64(0); i < benchTasks; i += benchBatch {
					mustApply(b, m, completions(i, test.size))
				}
				used := heap() - before
				if s := m.Job(1).Stages[0]; s.Done != benchTasks {
					b.Fatalf("%d tasks done, want %d", s.Done, benchTasks)
				}
				perTask := float64(used) / benchTasks
				if perTask >= 64 {
					b.Errorf("%.1f bytes a task; 64 is the most the design allows", perTask)
				}
				b.ReportMetric(perTask, "B/task")
			}
		})
	}
}

// BenchmarkApply applies batches of completions; an iteration is one batch.
func BenchmarkApply(b *testing.B) {
	for _, size := range []uint64{0, 1000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			var batches [][]byte
			bytesOf := 0
			for i := uint64(0); i < benchTasks; i += benchBatch {
				batches = append(batches, completions(i, size).Data())
				bytesOf += len(batches[len(batches)-1])
			}
			var m *Machine
			var out Result
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%len(batches) == 0 {
					b.StopTimer()
					m = benchMachine(b, false)
					b.StartTimer()
				}
				if err := m.Apply(m.Index()+1, batches[n%len(batches)], &out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/completion")
			b.ReportMetric(float64(bytesOf)/benchTasks, "B/completion")
		})
	}
}

// BenchmarkEncode builds the entries of BenchmarkApply.
func BenchmarkEncode(b *testing.B) {
	list := make([]Completion, benchBatch)
	for i := range list {
		list[i] = Completion{Index: uint64(i), Lease: NewLease(7, uint64(i))}
	}
	b.ReportAllocs()
	for b.Loop() {
		e := NewEntry(1, FeatureLevel)
		e.Done(1, 1, 0, list)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/completion")
}

// BenchmarkSnapshot takes, writes and restores the state of ten million done tasks with output. What stops Apply is "take".
func BenchmarkSnapshot(b *testing.B) {
	m := benchMachine(b, false)
	for i := uint64(0); i < benchTasks; i += benchBatch {
		mustApply(b, m, completions(i, 1000))
	}
	b.Run("take", func(b *testing.B) {
		for b.Loop() {
			m.Snapshot()
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			n, err := m.Snapshot().WriteTo(io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(n)
		}
	})
	b.Run("restore", func(b *testing.B) {
		data := snapshotBytes(b, m.Snapshot())
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := Restore(bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStall is for how long a snapshot stops the loop of a leader that runs a job of ten million tasks, half of them done: it is
// taken, and then an entry is applied that must copy what the snapshot shares. Scattered: no two tasks of the entry are neighbours,
// which is the worst there is.
func BenchmarkStall(b *testing.B) {
	m := benchMachine(b, true)
	for i := uint64(0); i < benchTasks; i += 2 * benchBatch {
		mustApply(b, m, completions(i, 1000))
	}
	next := map[string]uint64{}
	for name, entry := range map[string]func(n uint64) *Entry{
		"in_order": func(n uint64) *Entry { return completions((2*n+1)*benchBatch%benchTasks, 1000) },
		"scattered": func(n uint64) *Entry {
			e := NewEntry(int64(n), FeatureLevel)
			for i := range uint64(benchBatch) {
				e.Failed(1, 0, i*(benchTasks/benchBatch)+benchBatch-1-n%100, Failure{Kind: Preempted, Worker: 1, Lease: 1}, nil)
			}
			return e
		},
	} {
		b.Run(name, func(b *testing.B) {
			var out Result
			var longest time.Duration
			for b.Loop() {
				b.StopTimer()
				data := entry(next[name]).Data()
				next[name]++
				start := b.Elapsed()
				b.StartTimer()
				s := m.Snapshot()
				if err := m.Apply(m.Index()+1, data, &out); err != nil {
					b.Fatal(err)
				}
				longest = max(longest, b.Elapsed()-start)
				runtime.KeepAlive(s)
			}
			b.ReportMetric(float64(longest.Microseconds())/1000, "ms-longest")
		})
	}
}

// BenchmarkLines makes an input of ten million lines, and reads it in order.
func BenchmarkLines(b *testing.B) {
	var in Input
	b.Run("build", func(b *testing.B) {
		var line []byte
		for b.Loop() {
			builder := NewLines()
			for i := range benchTasks {
				line = fmt.Appendf(line[:0], "https://example.org/page/%d", i)
				builder.AddLine(line)
			}
			var err error
			if in, err = builder.Input(); err != nil {
				b.Fatal(err)
			}
		}
		size := 0
		for _, block := range in.Blocks {
			size += len(block.Data)
		}
		b.ReportMetric(float64(size)/benchTasks, "B/line")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchTasks, "ns/line")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			r := NewInputReader(&in)
			for i := range uint64(benchTasks) {
				if _, err := r.Split(i); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchTasks, "ns/line")
	})
}

// BenchmarkFiles makes an input of a million files. Log, snapshots and memory have its blocks as they are.
func BenchmarkFiles(b *testing.B) {
	const n = 1_000_000
	random := rand.New(rand.NewPCG(1, 1))
	for name, version := range map[string]func(i uint64) Version{
		"unknown": func(uint64) Version { return Version{} },
		"written-in-turn": func(i uint64) Version {
			return Version{Modified: 1_700_000_000_000_000_000 + int64(i)*50_000 + random.Int64N(50_000), Identity: 7<<48 | random.Uint64N(1<<16)<<32 | (1000 + i)}
		},
		"of-any-time": func(uint64) Version {
			return Version{Modified: 1_700_000_000_000_000_000 - random.Int64N(3e17), Identity: 7<<48 | random.Uint64N(1<<48)}
		},
	} {
		b.Run(name, func(b *testing.B) {
			var in Input
			for b.Loop() {
				builder := NewFiles(64 << 20)
				var path []byte
				for i := range uint64(n) {
					path = fmt.Appendf(path[:0], "/data/2026/%03d/part-%07d.txt", i/1000, i)
					v := version(i)
					v.Size = random.Uint64N(100_000)
					builder.AddFile(path, v, false)
				}
				var err error
				if in, err = builder.Input(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/file")
			b.ReportMetric(float64(in.BlockBytes())/n, "B/file")
		})
	}
}

// BenchmarkSplits reads the splits of 100,000 files of random sizes in the order in which they are leased.
func BenchmarkSplits(b *testing.B) {
	const n = 100_000
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // no secret
	builder := NewFiles(64 << 20)
	for i := range uint64(n) {
		v := Version{Size: random.Uint64N(100_000), Modified: 1_700_000_000_000_000_000 + int64(i)*50_000, Identity: 7<<48 | i}
		builder.AddFile(fmt.Appendf(nil, "/data/2026/%03d/part-%07d.txt", i/1000, i), v, false)
	}
	in := mustInput(b, builder)
	for b.Loop() {
		r := NewInputReader(in)
		for _, task := range in.Longest() {
			if _, err := r.Split(uint64(task)); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/task")
}

// lockOps applies operations on locks in entries of a thousand.
func lockOps(b *testing.B, m *Machine, ops []LockOp) {
	b.Helper()
	for len(ops) > 0 {
		n := min(len(ops), LockOperationMax)
		e := NewEntry(1, FeatureLevel)
		e.Lock("", ops[:n]...)
		mustApply(b, m, e)
		ops = ops[n:]
	}
}

func acquireOp(holder int, shared bool, name string) LockOp {
	return LockOp{User: "ann", Holder: fmt.Sprintf("holder-%d", holder), Names: []LockName{{Name: name, Shared: shared}}, TTLMS: 30_000}
}

// BenchmarkLocks is an acquire and a release of a lock in one entry, and what a request takes of memory: among ten thousand jobs that hold others, among
// as many that share it, and behind as many that wait for it.
func BenchmarkLocks(b *testing.B) {
	const others = 10_000
	for _, c := range []struct {
		name   string
		shared bool
		at     func(i int) string
	}{
		{"beside", false, func(i int) string { return fmt.Sprintf("place/%d", i) }},
		{"shared", true, func(int) string { return "place" }},
		{"behind", false, func(int) string { return "place" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := latest()
			var ops []LockOp
			for i := range others {
				ops = append(ops, acquireOp(i, c.shared, c.at(i)))
			}
			before := heap()
			lockOps(b, m, ops)
			bytes := float64(heap()-before) / others
			runtime.KeepAlive(ops)
			own := acquireOp(others, c.shared, c.at(others))
			release := own
			release.Release = true
			e := NewEntry(1, FeatureLevel)
			e.Lock("", own, release)
			for b.Loop() {
				mustApply(b, m, e)
			}
			b.ReportMetric(bytes, "B/request")
		})
	}
}

// BenchmarkWaitingJobs is the submit of a job behind ten thousand that wait for one output, and the end of the job that has it, which hands it over.
func BenchmarkWaitingJobs(b *testing.B) {
	const others = 10_000
	m := latest()
	next := JobID(0)
	submit := func() {
		next++
		e := NewEntry(1, FeatureLevel)
		e.Submit("", fmt.Sprint("u", next), "", &Spec{Output: "/out", Overwrite: true, Priority: 50})
		mustApply(b, m, e)
	}
	for range others {
		submit()
	}
	for id := JobID(1); b.Loop(); id++ {
		submit()
		e := NewEntry(1, FeatureLevel)
		e.Done(1, id, 0, []Completion{{Lease: NewLease(1, 2)}})
		e.Done(1, id, 1, []Completion{{Lease: NewLease(1, 3)}})
		mustApply(b, m, e)
	}
}
