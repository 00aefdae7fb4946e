package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bridgefour/bridgefour/internal/transcript"
)

// mustApply applies an entry at the next index.
func mustApply(tb testing.TB, m *Machine, e *Entry) Result {
	tb.Helper()
	var out Result
	if err := m.Apply(m.Index()+1, e.Data(), &out); err != nil {
		tb.Fatal(err)
	}
	return out
}

// allocated is how many bytes do allocates.
func allocated(do func()) uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	do()
	metrics.Read(sample)
	return sample[0].Value.Uint64() - before
}

// playFile plays a transcript and returns the machine at its end.
func playFile(tb testing.TB, name string) *Machine {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		tb.Fatal(err)
	}
	s := &story{t: tb, m: latest()}
	transcript.Play(string(text), s.block)
	return s.m
}

// fill sets every field below v to a value of its own that is not zero.
func fill(v reflect.Value, next *int) {
	*next++
	switch v.Kind() { //nolint:exhaustive // the default panics for an unexpected kind
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field, next)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), next)
		fill(v.Index(1), next)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 3 {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(k, next)
			fill(e, next)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("%d\xff\n\x00", *next))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(-int64(*next))
	case reflect.Uint8:
		v.SetUint(1 + uint64(*next)%3)
	default:
		v.SetUint(uint64(*next))
	}
}

// TestNothingIsForgotten puts a spec and a worker with every field set through the log and a snapshot.
func TestNothingIsForgotten(t *testing.T) {
	var spec Spec
	var info WorkerInfo
	next := 0
	fill(reflect.ValueOf(&spec).Elem(), &next)
	spec.Stages = DefaultPlan(spec.Input.Tasks, spec.Collect, !spec.Spool)
	spec.After = []Dependency{{Job: 1, Any: true}, {Job: 1}}
	for i := range spec.Locks {
		spec.Locks[i].Data, spec.Data[i].Data = false, false // their fields say so
	}
	fill(reflect.ValueOf(&info).Elem(), &next)
	m := latest()
	e := NewEntry(5, FeatureLevel)
	e.Submit("", "first", "", &Spec{Output: "/first"})
	e.Submit("key", "uid", "", &spec)
	e.Register("key", &info)
	mustApply(t, m, e)
	restored, err := Restore(bytes.NewReader(snapshotBytes(t, m.Snapshot())))
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*Machine{"log": m, "snapshot": restored} {
		if got := m.Job(2); got.UID != "uid" || !reflect.DeepEqual(*got.Spec, spec) {
			t.Errorf("the %s keeps %q %+v, want %+v", name, got.UID, *got.Spec, spec)
		}
		if got := m.Worker(1).WorkerInfo; !reflect.DeepEqual(got, info) {
			t.Errorf("the %s keeps %+v, want %+v", name, got, info)
		}
		if m.ByIdentity(info.Identity) != m.Worker(1) {
			t.Errorf("the %s does not know the worker's identity", name)
		}
	}
}

// TestSnapshotBesideApply writes snapshots in other goroutines while the machine goes on; the race detector watches.
func TestSnapshotBesideApply(t *testing.T) {
	const tasks = 3*pageTasks + 100
	m := latest()
	e := NewEntry(1, FeatureLevel)
	e.Submit("", "u", "", &Spec{Output: "/o", Input: Input{Kind: InputRange, Tasks: tasks}, Retries: 1})
	e.Register("", &WorkerInfo{Identity: "w"})
	mustApply(t, m, e)
	var wait sync.WaitGroup
	lease := Lease(0)
	for round := range uint64(12) {
		s := m.Snapshot()
		want := snapshotBytes(t, s)
		wait.Go(func() {
			for range 3 {
				var b bytes.Buffer
				if _, err := s.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), want) {
					t.Errorf("the snapshot of round %d has changed (%v)", round, err)
				}
			}
		})
		e := NewEntry(int64(round), FeatureLevel)
		var list []Completion
		for i := round; i < tasks; i += 25 {
			lease++
			list = append(list, Completion{Index: i, Lease: lease, Size: i % 2})
		}
		e.Done(1, 1, 0, list)
		for i := round; i < tasks; i += 90 {
			e.Failed(1, 0, i+12, Failure{Kind: ProgramError, Message: "exit 1"}, nil)
		}
		e.SetWorker("", 1, []WorkerStatus{WorkerDead, WorkerAlive}[round%2])
		e.Submit(fmt.Sprint(round), "u", "", &Spec{Output: fmt.Sprint("/", round), Spool: round%2 == 0})
		e.Failed(JobID(round), 0, 0, Failure{Kind: BadInput, Message: "gone"}, nil) // a job that is over by now lives again, and ends
		e.Retry("", JobID(round))
		e.Failed(JobID(round), 0, 0, Failure{Kind: BadInput, Message: "gone"}, nil)
		e.Stop("", JobID(round))
		e.Retry("", JobID(round-min(round, 2)))
		mustApply(t, m, e)
	}
	wait.Wait()
}

func TestSnapshotIndex(t *testing.T) {
	m := playFile(t, "restart")
	s := m.Snapshot()
	at := m.Index()
	mustApply(t, m, NewEntry(1, FeatureLevel))
	if s.Index() != at || m.Index() != at+1 {
		t.Errorf("Index() = %d, and of the machine %d, want %d, %d", s.Index(), m.Index(), at, at+1)
	}
}

// TestManyFailedTasks: the messages of a thousand tasks are kept, the counts of all.
func TestManyFailedTasks(t *testing.T) {
	const tasks = pageTasks + failedTasksKept
	m := latest()
	e := NewEntry(1, FeatureLevel)
	e.Submit("", "u", "", &Spec{Output: "/o", Spool: true, Input: Input{Kind: InputRange, Tasks: tasks}, Retries: 9})
	for range 2 {
		for i := range uint64(tasks) {
			e.Failed(1, 0, tasks-1-i, Failure{Kind: Timeout, Message: strings.Repeat("m", 5000)}, nil)
		}
	}
	mustApply(t, m, e)
	m, err := Restore(bytes.NewReader(snapshotBytes(t, m.Snapshot())))
	if err != nil {
		t.Fatal(err)
	}
	s := m.Job(1).Stages[0]
	kept := 0
	for i := range uint64(tasks) {
		failures := s.Failures(i)
		if failures.Ended != 2 || failures.Counts[Timeout] != 2 || s.Attempt(i) != 3 {
			t.Fatalf("Failures(%d) = %+v, want 2 failures", i, failures)
		}
		if len(failures.Last) == 0 {
			continue
		}
		kept++
		if len(failures.Last) != 2 || len(failures.Last[1].Message) != messageMax || failures.Last[1].Attempt != 2 {
			t.Fatalf("task %d keeps %d failures, the last with %d bytes", i, len(failures.Last), len(failures.Last[1].Message))
		}
	}
	failedTasks := len(slices.Collect(s.FailedTasks(0)))
	if kept != failedTasksKept || s.Failed != 2*tasks || failedTasks != tasks {
		t.Errorf("%d tasks keep messages, %d failures, %d failedTasks; want %d, %d, %d",
			kept, s.Failed, failedTasks, failedTasksKept, 2*tasks, tasks)
	}
	if got := slices.Collect(s.FailedTasks(tasks - 2)); !slices.Equal(got, []uint64{tasks - 2, tasks - 1}) {
		t.Errorf("FailedTasks(%d) = %d, want the last two", tasks-2, got)
	}
}

// TestRestoreDamaged flips the bits of a snapshot: the replica's checksum finds that, so an error is not asked for, but a
// panic or gigabytes of memory would be one damage more.
func TestRestoreDamaged(t *testing.T) {
	m := latest()
	e := NewEntry(7, FeatureLevel)
	e.Register("", &WorkerInfo{Identity: "a", Host: "rock", Labels: map[string]string{"zone": "x"}})
	e.Submit("k", "u", "", &Spec{Name: "n", Argv: [][]byte{{'a'}}, Output: "/o", Spool: true, Retries: 1, Input: Input{Kind: InputRange, Tasks: 9}})
	e.Done(1, 1, 0, []Completion{{Index: 1, Lease: NewLease(1, 1), Size: 3, Checksum: 1 << 60}, {Index: 2, Lease: NewLease(1, 2)}})
	e.Failed(1, 0, 0, Failure{Kind: Timeout, Worker: 1, Lease: NewLease(1, 3), Message: "slow"}, nil)
	mustApply(t, m, e)
	good := snapshotBytes(t, m.Snapshot())
	for i := range good {
		if i%64 > 0 && i+1 < len(good) && good[i-1] == 0 && good[i] == 0 && good[i+1] == 0 {
			continue // the columns of a page are thousands of zeros
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			var restored *Machine
			if n := allocated(func() { restored, _ = Restore(bytes.NewReader(bad)) }); n > 16<<20 {
				t.Fatalf("bit %d of byte %d flipped: Restore allocates %d bytes", bit, i, n)
			}
			if restored != nil {
				snapshotBytes(t, restored.Snapshot())
			}
		}
	}
	for n := 0; n < len(good); n += 1 + n/100 {
		if _, err := Restore(bytes.NewReader(good[:n])); err == nil {
			t.Fatalf("Restore reads a snapshot that ends after %d of %d bytes", n, len(good))
		}
	}
}

func TestRestoreNewer(t *testing.T) {
	good := snapshotBytes(t, latest().Snapshot())
	good[0]++
	if _, err := Restore(bytes.NewReader(good)); !errors.Is(err, ErrVersion) {
		t.Errorf("Restore of a newer snapshot: %v, want %v", err, ErrVersion)
	}
	entry := NewEntry(1, FeatureLevel).Data()
	entry[0]++
	if err := latest().Apply(1, entry, &Result{}); !errors.Is(err, ErrVersion) {
		t.Errorf("Apply of a newer entry: %v, want %v", err, ErrVersion)
	}
	if err := latest().Apply(1, nil, &Result{}); !errors.Is(err, errShort) {
		t.Errorf("Apply of nothing: %v, want %v", err, errShort)
	}
}

// TestRestoreCounts: a snapshot whose counts are not those of its tasks is refused.
func TestRestoreCounts(t *testing.T) {
	for name, spoil := range map[string]func(j *Job){
		"done":     func(j *Job) { j.Stages[0].Done++ },
		"dead":     func(j *Job) { j.Stages[0].Dead-- },
		"failures": func(j *Job) { j.Stages[0].Failed++ },
		"tasks":    func(j *Job) { j.Spec.Stages[0].Tasks++ },
		"stages":   func(j *Job) { j.Stages = j.Stages[:1] },
		"action":   func(j *Job) { j.Stages[0].Action = Commit },
		"a page":   func(j *Job) { j.Stages[0].groups = nil },
	} {
		m := playFile(t, "stop_failed")
		spoil(m.Job(1))
		if _, err := Restore(bytes.NewReader(snapshotBytes(t, m.Snapshot()))); !errors.Is(err, errShort) {
			t.Errorf("Restore with wrong %s: %v, want %v", name, err, errShort)
		}
	}
}

// fullDisk takes so many bytes.
type fullDisk int

func (d *fullDisk) Write(b []byte) (int, error) {
	n := min(len(b), int(*d))
	*d -= fullDisk(n)
	if n < len(b) {
		return n, errors.New("disk is full")
	}
	return n, nil
}

func TestSnapshotDiskFull(t *testing.T) {
	s := playFile(t, "restart").Snapshot()
	size := len(snapshotBytes(t, s))
	for room := 0; room < size; room += 1 + room/100 {
		disk := fullDisk(room)
		if n, err := s.WriteTo(&disk); err == nil || n != int64(room) {
			t.Fatalf("WriteTo with room for %d of %d bytes = %d, %v", room, size, n, err)
		}
	}
	if n, err := s.WriteTo(io.Discard); err != nil || n != int64(size) {
		t.Errorf("WriteTo = %d, %v, want %d", n, err, size)
	}
}

func TestOldestEnded(t *testing.T) {
	m := latest()
	e := NewEntry(1, FeatureLevel)
	for i := range 4 {
		e.Submit("", "u", "", &Spec{Output: fmt.Sprint("/", i), Spool: true})
	}
	mustApply(t, m, e)
	if id, ok := m.OldestEnded(0); ok || m.Len() != 4 {
		t.Errorf("OldestEnded() = %d, %v of %d jobs, want none of 4", id, ok, m.Len())
	}
	e = NewEntry(2, FeatureLevel)
	e.Stop("", 3)
	e.Stop("", 2)
	mustApply(t, m, e)
	if id, ok := m.OldestEnded(0); !ok || id != 2 {
		t.Errorf("OldestEnded() = %d, %v, want 2", id, ok)
	}
}

// TestSameRequest: a request that is sent again is the same one though its files have grown meanwhile.
func TestSameRequest(t *testing.T) {
	spec := func(name string, size, split uint64) *Spec {
		b := NewFiles(split)
		b.AddFile([]byte("/data/a"), Version{Size: size}, false)
		return &Spec{InputNames: []string{name}, Input: *mustInput(t, b), Output: "/o"}
	}
	first := spec("/data", 10, 5)
	for _, test := range []struct {
		again *Spec
		same  bool
	}{
		{spec("/data", 10, 5), true},
		{spec("/data", 1000, 5), true},
		{spec("/other", 10, 5), false},
		{spec("/data", 10, 6), false},
	} {
		m := latest()
		e := NewEntry(1, FeatureLevel)
		e.Submit("k", "u1", "", first)
		e.Submit("k", "u2", "", test.again)
		out := mustApply(t, m, e)
		last := out.Events[len(out.Events)-1]
		if (last.Err == nil) != test.same || m.Len() != 1 {
			t.Errorf("%q, %d tasks of splits of %d: %v, %d jobs; want the same request %v",
				test.again.InputNames, test.again.Input.Tasks, test.again.Input.SplitSize, last.Err, m.Len(), test.same)
		}
	}
}

// What was leased before a stop or a retry is void, also for the next leader.
func TestFence(t *testing.T) {
	m := latest()
	e := NewEntry(1, FeatureLevel)
	e.Submit("", "u", "", &Spec{Output: "/o", Spool: true, Input: Input{Kind: InputRange, Tasks: 2}})
	mustApply(t, m, e)
	e = NewEntry(2, FeatureLevel)
	e.Fence = NewLease(3, 7)
	e.Stop("s", 1)
	e.Retry("r", 1)
	mustApply(t, m, e)
	var buf bytes.Buffer
	if _, err := m.Snapshot().WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	m, err := Restore(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if m.Job(1).Status != JobActive {
		t.Fatalf("status = %v, want %v", m.Job(1).Status, JobActive)
	}
	e = NewEntry(3, FeatureLevel)
	e.Done(1, 1, 0, []Completion{{Index: 0, Lease: NewLease(3, 7)}, {Index: 1, Lease: NewLease(3, 8)}})
	e.Failed(1, 0, 0, Failure{Kind: BadInput, Lease: NewLease(2, 9)}, nil)
	got := mustApply(t, m, e)
	if v := got.Verdicts; len(v) != 2 || v[0].Won || !v[1].Won {
		t.Errorf("verdicts = %+v, want the lease at the fence to lose and the next one to win", v)
	}
	if s := m.Job(1).Stages[0]; s.Done != 1 || s.Failed != 0 {
		t.Errorf("%d done, %d failed, want 1 and none: the failure is of a lease before the fence", s.Done, s.Failed)
	}
}

// latest is an empty machine at the highest feature level.
func latest() *Machine {
	m := New()
	m.level = FeatureLevel
	return m
}
