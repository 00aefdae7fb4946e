package state

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// busy is a machine with a job of every sort; fuzzed commands find something to hit.
func busy(tb testing.TB) *Machine {
	tb.Helper()
	m := latest()
	e := NewEntry(1000, FeatureLevel)
	e.Register("", &WorkerInfo{Identity: "a"})
	e.Submit("k1", "u1", "", &Spec{Output: "/1", Collect: true, Retries: 1, Input: Input{Kind: InputRange, Tasks: 3}})
	e.Submit("k2", "u2", "", &Spec{Output: "/2", Spool: true, FirstSuccess: true, Input: Input{Kind: InputRange, Tasks: pageTasks + 2}})
	e.Submit("k3", "u3", "", &Spec{Output: "/3", KeepPartial: true})
	e.Failed(3, 0, 0, Failure{Kind: BadInput, Message: "gone"}, nil)
	e.Submit("k4", "u4", "", &Spec{Output: "/4"})
	e.Stop("", 4)
	e.Submit("k5", "u5", "", &Spec{Output: "/5"})
	e.Failed(5, 0, 0, Failure{Kind: BadInput, Message: "gone"}, nil)
	e.PutToken("", &Token{ID: "t1", Role: "submit"})
	e.Enroll("", &Enrolment{Fingerprint: "f1", Role: "worker"})
	e.PutAuthority("", &Authority{Number: 1, Certificate: []byte("c")})
	mustApply(tb, m, e)
	return m
}

// entries are one of each command, and all of them, at a feature level.
func entries(level uint32) [][]byte {
	files := NewFiles(10)
	files.AddFile([]byte("/data/\xff"), Version{Size: 25}, false)
	input, _ := files.Input()
	var all [][]byte
	whole := NewEntry(2000, level)
	for _, add := range []func(e *Entry){
		func(e *Entry) {
			e.Submit("k9", "u9", "", &Spec{
				Name: "n", Argv: [][]byte{[]byte("grep"), {0xff}}, Input: input, InputNames: []string{"/data"}, Output: "/9",
				Settings: map[string]string{"a": "b", "c": "d"}, Labels: map[string]string{"zone": "x"}, Retries: 3,
			})
		},
		func(e *Entry) { e.Stop("s", 1) },
		func(e *Entry) { e.Retry("r", 5) },
		func(e *Entry) {
			e.Retry("r", 5, FileChange{Task: 1, Version: Version{Size: 2, Modified: 3, Identity: 4}})
		},
		func(e *Entry) {
			e.RetryLost("r", 5, []OutputRange{{Stage: 1, First: 2, Tasks: 3}, {First: 9, Tasks: 1}})
		},
		func(e *Entry) { e.Forget("f", 5) },
		func(e *Entry) {
			e.Done(1, 1, 0, []Completion{{Index: 2, Lease: NewLease(3, 9), Size: 5, Checksum: 77}, {Index: 0, Lease: NewLease(3, 8)}})
		},
		func(e *Entry) { e.Done(1, 2, 0, []Completion{{Index: pageTasks, Lease: 1}}) },
		func(e *Entry) { e.Done(1, 3, 1, []Completion{{Lease: 1}}) },
		func(e *Entry) { e.Failed(1, 0, 1, Failure{Kind: Timeout, Worker: 1, Lease: 5, Message: "slow"}, nil) },
		func(e *Entry) {
			e.Fence = 77
			e.OutputLost(1, 0, 2, NewLease(3, 9), 1, "gone")
		},
		func(e *Entry) { e.Register("w", &WorkerInfo{Identity: "b", Labels: map[string]string{"zone": "y"}}) },
		func(e *Entry) { e.SetWorker("w", 1, WorkerDraining) },
		func(e *Entry) {
			e.Stage("s", "u8", 0, input.Blocks)
			e.SubmitStaged("k8", "u8", 1, &Spec{Output: "/8", Input: input})
			e.Stage("s", "u7", 0, input.Blocks)
			e.Unstage("s", "u6")
		},
		func(e *Entry) {
			e.PutToken("p", &Token{ID: "t2", Hash: [32]byte{7}, Role: "admin", User: "ann", Expires: 1})
			e.RevokeToken("p", "t1")
		},
		func(e *Entry) {
			e.Enroll("e", &Enrolment{Fingerprint: "f2", Role: "leader", Name: "n"})
			e.RevokeMachine("e", "f1")
		},
		func(e *Entry) {
			e.PutAuthority("a", &Authority{Number: 2, Certificate: []byte("c"), Cross: []byte("x")})
			e.DropAuthority("a", 1)
			e.Reseal("a", 1, []Secret{{Name: "A", Sealed: []byte("s")}})
		},
		func(e *Entry) {
			e.SetQuota("q", Quota{User: "ann", Slots: 2, Jobs: 3, Weight: 4})
			e.RemoveQuota("q", "bob")
			e.SetRetention("r", Retention{User: "ann", Jobs: 2, ForMS: 3, Bytes: 4})
			e.Pin("p", 1, true)
			e.Grow("g", 5, 1, &input, true)
		},
		func(e *Entry) {
			e.By = &Audit{User: "ann", Role: "admin", Token: "t1", Address: "a:1", Action: "POST /"}
			e.Stop("s", 1)
			e.By = nil
			e.Audit("a", &Audit{Action: "GET /", Verdict: "no"})
		},
		func(e *Entry) { // a task as far out as there can be one
			e.Submit("", "far", "", &Spec{Output: "/far", Input: Input{Kind: InputRange, Tasks: MaxTasks}})
			e.Failed(6, 0, MaxTasks-1, Failure{Kind: Timeout}, nil)
			e.Failed(7, 0, MaxTasks-1, Failure{Kind: Timeout}, nil)
		},
	} {
		one := NewEntry(2000, level)
		add(one)
		add(whole)
		all = append(all, one.Data())
	}
	return append(all, whole.Data())
}

// FuzzApply: no bytes make the machine panic, ask for memory they could not fill, or leave half a command behind.
func FuzzApply(f *testing.F) {
	for level := range uint32(FeatureLevel + 1) {
		for _, data := range append(entries(level), RaiseLevel(1, level+1, "v1").Data()) {
			f.Add(data)
			f.Add(data[:len(data)-1])
			f.Add(append(bytes.Clone(data), 0xff, 0xff, 0xff, 0xff, 0x7f))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 512 {
			return // the check below is quadratic
		}
		m, out := busy(t), Result{}
		start := snapshotBytes(t, m.Snapshot())
		var err error
		n := allocated(func() { err = m.Apply(2, data, &out) })
		// A completion or failure of a few bytes may open a page, a far one the way to it.
		if limit := uint64(1+len(data)) << 20; n > limit {
			t.Fatalf("Apply of %d bytes allocates %d", len(data), n)
		}
		got := snapshotBytes(t, m.Snapshot())
		if _, err := Restore(bytes.NewReader(got)); err != nil {
			t.Fatalf("what Apply left cannot be restored: %v", err)
		}
		if err == nil {
			return
		}
		// The longest readable beginning is all that is applied.
		for cut := len(data) - 1; cut > 0; cut-- {
			if latest().Apply(2, data[:cut], &out) == nil { // what is readable does not depend on the state
				m := busy(t)
				_ = m.Apply(2, data[:cut], &out)
				if !bytes.Equal(snapshotBytes(t, m.Snapshot()), got) {
					t.Fatalf("Apply of %x fails (%v) and leaves another state than its readable beginning %x", data, err, data[:cut])
				}
				return
			}
		}
		if !bytes.Equal(start, got) {
			t.Fatalf("Apply of %x fails (%v), nothing of it is readable, and the state has changed", data, err)
		}
	})
}

// FuzzRestore: no bytes make Restore panic, and what it takes it writes the same way again.
func FuzzRestore(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	machines := []*Machine{latest(), busy(f), busy(f)}
	for _, file := range files {
		machines = append(machines, playFile(f, strings.TrimSuffix(filepath.Base(file), ".txt")))
	}
	var out Result
	list := entries(FeatureLevel)
	if err := machines[2].Apply(2, list[len(list)-2], &out); err != nil { // a task as far out as there can be one
		f.Fatal(err)
	}
	for _, m := range machines {
		for level := range uint32(FeatureLevel + 1) {
			m.level = level
			f.Add(snapshotBytes(f, m.Snapshot()))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m *Machine
		var err error
		n := allocated(func() { m, err = Restore(bytes.NewReader(data)) })
		if limit := uint64(16<<20 + len(data)<<12); n > limit {
			t.Fatalf("Restore of %d bytes allocates %d", len(data), n)
		}
		if err != nil {
			return
		}
		dumpReaders(m)
		once := snapshotBytes(t, m.Snapshot())
		again, err := Restore(bytes.NewReader(once))
		if err != nil {
			t.Fatalf("Restore of what was restored: %v", err)
		}
		if !bytes.Equal(once, snapshotBytes(t, again.Snapshot())) {
			t.Fatal("a restored machine writes another snapshot")
		}
	})
}

// dumpReaders calls what readers call, for the first and last tasks of each stage.
func dumpReaders(m *Machine) {
	m.Access().Token("t1")
	m.Access().Enrolment("f1")
	m.FactsAfter(Position{})
	m.FactsAfter(Position{Index: m.Index()})
	for _, id := range m.Jobs() {
		j := m.Job(id)
		for k, s := range j.Stages {
			_ = j.Ready(k)
			for _, i := range []uint64{0, 1, s.Tasks / 2, s.Tasks - 1} {
				s.Status(i)
				s.Output(i)
				s.Failures(i)
				s.Attempt(i)
			}
			for range s.FailedTasks(0) {
				break
			}
		}
	}
}

// FuzzInput: no block makes a reader panic; splits that are read lie inside their file.
func FuzzInput(f *testing.F) {
	lines, files := NewLines(), NewFiles(10)
	for _, s := range []string{"", "a", "b\xff", strings.Repeat("c", 300)} {
		lines.AddLine([]byte(s))
		files.AddFile([]byte(s), Version{Size: uint64(len(s)), Modified: 7, Identity: 1 << 50, Tail: 9}, len(s) == 1)
	}
	files.AddCutFile([]byte("cut"), Version{Size: 25}, []int64{11, 20})
	files.Pack([]Split{{Path: []byte("a"), Version: Version{Size: 4}}, {Path: []byte("b")}})
	for _, b := range []*InputBuilder{lines, files} {
		in, err := b.Input()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(in.Kind), in.Tasks, in.SplitSize, in.Blocks[0].First, in.Blocks[0].Data, in.Blocks[0].Versions, in.Blocks[0].Cuts, in.Blocks[0].Packs, uint64(1))
	}
	f.Add(uint8(InputFiles), uint64(1<<20), uint64(1), uint64(1<<63), []byte{1, 2, 3}, []byte{1}, []byte{2}, []byte{3}, uint64(0))
	f.Fuzz(func(t *testing.T, kind uint8, tasks, splitSize, first uint64, data, versions, cuts, packs []byte, changed uint64) {
		in := Input{
			Kind: InputKind(kind) % (InputFiles + 1), Tasks: tasks % (MaxTasks + 1), SplitSize: splitSize,
			Blocks:  []Block{{First: 0, Data: data, Versions: versions, Cuts: cuts, Packs: packs}, {First: first, Data: data}},
			Changed: []FileChange{{Task: changed, File: changed % 3, Version: Version{Size: first, Modified: 1}}},
		}
		n := allocated(func() {
			r := NewInputReader(&in)
			for _, i := range []uint64{0, 1, first, in.Tasks - 1, in.Tasks} {
				s, err := r.Split(i)
				if err == nil && s.Offset > s.Offset+s.Length {
					t.Fatalf("Split(%d) = %d bytes at %d", i, s.Length, s.Offset)
				}
			}
			in.Longest()
		})
		// Deflate makes a thousand bytes out of one, and a byte may be a line; Longest keeps 12 bytes for each of a million tasks.
		if limit := uint64(64<<20 + (len(data)+len(versions)+len(cuts)+len(packs))*2048*1000); n > limit {
			t.Fatalf("an input with a block of %d bytes allocates %d", len(data), n)
		}
	})
}
