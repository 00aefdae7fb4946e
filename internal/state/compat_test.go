package state

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/transcript"
)

// recorded has, by feature level, the folder of testdata/compat that holds what this program writes.
var recorded = []string{"v0.1", "v0.3", "v0.4"}

var record = flag.String("record", "", "write what this program writes to testdata/compat/`VERSION`, which must be new")

// TestCompat reads the logs and snapshots that released programs have written, and compares what they mean with what they
// meant then. See testdata/compat/README.md.
func TestCompat(t *testing.T) {
	if *record != "" {
		writeRecording(t, filepath.Join("testdata", "compat", *record))
	}
	dirs, err := filepath.Glob("testdata/compat/v*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			compare(t, filepath.Join(dir, "log.txt"), playLog(t, readLog(t, filepath.Join(dir, "log.bin")), New()))
			snapshots, err := filepath.Glob(filepath.Join(dir, "*.snapshot"))
			if err != nil || len(snapshots) == 0 {
				t.Fatalf("no snapshots: %v", err)
			}
			for _, file := range snapshots {
				data := readFile(t, file)
				m, err := Restore(bytes.NewReader(data))
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				compare(t, strings.TrimSuffix(file, ".snapshot")+".txt", meaning(m))
				if !bytes.Equal(snapshotBytes(t, m.Snapshot()), data) {
					t.Errorf("%s is written in another way now, at the same feature level", file)
				}
			}
		})
	}
}

// TestCompatIsRecorded fails when the program writes, at any feature level, something else than what was recorded.
func TestCompatIsRecorded(t *testing.T) {
	if len(recorded) != FeatureLevel+1 {
		t.Fatalf("%d feature levels are recorded, want %d", len(recorded), FeatureLevel+1)
	}
	for level, version := range recorded {
		dir := filepath.Join("testdata", "compat", version)
		for name, want := range recording(t, uint32(level)) {
			if got := readFile(t, filepath.Join(dir, name)); !bytes.Equal(got, want) {
				t.Errorf("%s is not what this program writes at feature level %d. If a new field is meant, give it a new level and record "+
					"that: go test ./internal/state -run Compat -record VERSION", filepath.Join(dir, name), level)
			}
		}
	}
}

// recordedFailure is a failure as it was recorded at levels 0 and 1.
type recordedFailure struct {
	Kind    FailureKind
	Attempt uint32
	Worker  WorkerID
	Lease   Lease
	Time    int64
	Message string
}

// recordedFailures returns failures as they were recorded at levels 0 and 1, and what they have beyond that.
func recordedFailures(list []Failure) (old []recordedFailure, more string) {
	for _, f := range list {
		old = append(old, recordedFailure{f.Kind, f.Attempt, f.Worker, f.Lease, f.Time, f.Message})
		if f.Millis > 0 {
			more += fmt.Sprintf(" after %d ms", f.Millis)
		}
		if f.WaitMS > 0 || f.Cancel {
			more += fmt.Sprintf(" wait %d ms, cancel %v", f.WaitMS, f.Cancel)
		}
	}
	return old, more
}

// recording is the files of a recording.
func recording(t *testing.T, level uint32) map[string][]byte {
	t.Helper()
	log := compatLog(t, level)
	small, large, empty := New(), New(), New()
	playLog(t, log[:min(int(level), 1)], empty)
	playLog(t, log[:min(int(level), 1)+3], small)
	files := map[string][]byte{"log.txt": []byte(playLog(t, log, large))}
	for name, m := range map[string]*Machine{"empty": empty, "small": small, "large": large} {
		files[name+".snapshot"], files[name+".txt"] = snapshotBytes(t, m.Snapshot()), []byte(meaning(m))
	}
	var all []byte
	for _, entry := range log {
		all = append(binary.AppendUvarint(all, uint64(len(entry))), entry...)
	}
	files["log.bin"] = all
	return files
}

// writeRecording writes a new recording. It never touches one that is there.
func writeRecording(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("a recording is never written again: %v", err)
	}
	for name, data := range recording(t, FeatureLevel) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("written to %s; add it to recorded", dir)
}

// compatLog is a log with every kind of command, and with every field that a command can have at a feature level.
func compatLog(t *testing.T, level uint32) [][]byte {
	t.Helper()
	files, lines := NewFiles(10), NewLines()
	for _, b := range []*InputBuilder{files, lines} { // the same whatever version of Go compresses
		var err error
		if b.deflate, err = flate.NewWriter(io.Discard, flate.NoCompression); err != nil {
			t.Fatal(err)
		}
	}
	files.AddFile([]byte("/data/\xff.txt"), Version{Size: 25, Modified: 1_700_000_000_123_456_789, Identity: 0xabcd_1234_0000_0007, Tail: 99}, false)
	files.AddFile([]byte("/data/b.gz"), Version{Size: 99, Modified: -1, Identity: 0xabcd_ffff_ffff_ffff}, true)
	for _, line := range []string{"one", "", "\xff three"} {
		lines.AddLine([]byte(line))
	}
	table := NewLines()
	table.deflate = lines.deflate
	for _, value := range []string{"a", "1", "b", "\xff", "c", "3"} {
		table.AddLine([]byte(value))
	}
	packs := NewFiles(10)
	packs.deflate = files.deflate
	packs.Pack([]Split{{Path: []byte("/data/p"), Version: Version{Size: 4, Modified: 1}}, {Path: []byte("/data/q"), Version: Version{Size: 5, Modified: 2}}})
	packs.AddFile([]byte("/data/r"), Version{Size: 25, Modified: 3}, false)
	rows := NewFiles(10)
	rows.deflate = files.deflate
	rows.AddCutFile([]byte("/data/x.csv"), Version{Size: 25, Modified: 1}, []int64{17, 20})
	const large = 3*pageTasks - 50
	var list []Completion
	for i := range uint64(large - 20) {
		list = append(list, Completion{Index: i, Lease: NewLease(2, 9+i), Size: i % 5 * 100, Records: i % 3, Checksum: i * 0x9e3779b97f4a7c15, InputBytes: 7, Started: uint32(i), Millis: uint32(i % 7), PeakKiB: uint32(i % 3), Second: i%4 == 1})
	}
	var log [][]byte
	entry := func(fill func(e *Entry)) {
		e := NewEntry(1_700_000_000_000+int64(len(log))*1000, level)
		fill(e)
		log = append(log, e.Data())
	}
	if level > 0 {
		log = append(log, RaiseLevel(1_700_000_000_000, level, "v0.3.0").Data())
	}
	entry(func(e *Entry) {
		e.Register("register/1", &WorkerInfo{
			Identity: "0123abcd", Host: "alpha", Address: "alpha:7000", Version: "v0.1.0", Slots: 4, Memory: 1 << 30, Labels: map[string]string{"zone": "x", "gpu": ""},
		})
		e.Register("register/2", &WorkerInfo{Identity: "4567", Slots: 1})
		if level >= 2 {
			e.Register("register/3", &WorkerInfo{Identity: "89ab", Slots: 1, Confinement: []string{"no-new-privileges", "sandbox"}, Resources: []Resource{{"gpu", 4}}})
		}
	})
	entry(func(e *Entry) {
		spec := &Spec{
			Name: "count", User: "ann", Argv: [][]byte{[]byte("grep"), []byte("-c"), {0xff}}, Input: *mustInput(t, files), InputNames: []string{"/data", "x*"},
			Output: "/out/1", Overwrite: true, Collect: true, Settings: map[string]string{"a": "b", "": "empty"}, Dir: "/home/ann", Retries: 2,
			Priority: 50, SlotsPerTask: 2, TimeoutMS: 60_000, Memory: 1 << 20, Labels: map[string]string{"zone": "x"},
		}
		if level >= 2 {
			spec.GraceMS = 5_000
		}
		e.Submit("key-1", "uid1", "ann", spec)
		if level > 1 {
			e.RetryLost("again", 1, []OutputRange{{Stage: 1, First: 2, Tasks: 3}}, FileChange{Task: 3, Version: Version{Size: 98, Modified: 1, Identity: 2}})
		}
		e.Submit("key-2", "uid2", "", &Spec{Builtin: "wordcount", Input: *mustInput(t, lines), Output: "/spool/uid2", Spool: true, FirstSuccess: true})
	})
	entry(func(e *Entry) {
		e.Submit("", "uid3", "", &Spec{Output: "/out/3", Input: Input{Kind: InputRange, From: -5, Tasks: large}, KeepPartial: true, Retries: 1})
		e.Submit("key-1", "uid4", "", &Spec{Name: "another"})
		e.Submit("", "uid5", "", &Spec{Output: "/out/3/below", FailOnConflict: level >= 2})
		if level > 0 {
			e.Submit("", "uid6", "", &Spec{Output: "/out/6", Stages: []StageSpec{
				{Name: "a", Role: RoleMap, Tasks: 1},
				{Name: "b", Role: RoleMap, Tasks: 1, From: []uint32{0}},
				{Name: "c", Role: RoleCollect, Tasks: 1, From: []uint32{0}},
				{Name: "d", Role: RoleCommit, Tasks: 1, From: []uint32{0, 1, 2}},
			}})
		}
		if level > 1 {
			e.Register("", &WorkerInfo{Address: "spren-03:1", Claim: 4})
			e.Submit("", "uid7", "", &Spec{Output: "/out/7", Input: *mustInput(t, rows), Records: "csv", Header: 2})
			e.Submit("", "uid7p", "", &Spec{Output: "/out/7p", Builtin: "grep", Input: *mustInput(t, packs), SplitMax: 64, Pack: &Packing{Size: 9, Fitted: true}})
			e.Submit("", "uid8", "", &Spec{
				Output: "/out/8", Env: map[string]string{"A": "1", "B": ""}, Secrets: []Secret{{Name: "S", Sealed: []byte("\xffsealed")}}, Sandbox: true, NoNetwork: true, Class: `"a.B"`,
				Reduce: "uniq -c", Combine: "uniq", Partitions: 4, Stages: LinePlan([]StageSpec{{Name: "map", Tasks: 1}, {Name: "reduce", Tasks: 4, Fitted: true}, {Name: "sort", Tasks: 2, Ranges: true}}, RoleCommit),
			})
		}
	})
	if level > 1 {
		entry(func(e *Entry) {
			e.Done(1, 6, 0, []Completion{{Index: 0, Lease: NewLease(2, 6000), Size: 70, Records: 8, Checksum: 9, InputBytes: 100}})
			e.Done(1, 6, 1, []Completion{{Index: 0, Lease: NewLease(2, 6001), Size: 7, Records: 1, Checksum: 8, InputBytes: 300}, {Index: 3, Lease: NewLease(2, 6002), InputBytes: 1 << 40}})
		})
	}
	entry(func(e *Entry) {
		e.Done(1, 3, 0, list)
		for kind := ProgramError; kind < failureKinds; kind++ {
			e.Failed(3, 0, large-uint64(kind), Failure{Kind: kind, Worker: 2, Lease: NewLease(2, 1000+uint64(kind)), Millis: 7, WaitMS: 9, Message: kind.String() + "\xff"}, nil)
		}
	})
	entry(func(e *Entry) {
		e.Done(1, 1, 0, []Completion{{Index: 3, Lease: NewLease(3, 4), Size: 1 << 40, Records: 5, Checksum: 6, InputBytes: 7}})
		e.Done(1, 1, 0, []Completion{{Index: 0, Lease: NewLease(3, 5)}, {Index: 2, Lease: NewLease(3, 9)}, {Index: 1, Lease: NewLease(3, 2)}})
		e.Done(1, 1, 1, []Completion{{Lease: NewLease(3, 11), Size: 3}})
		e.Done(2, 1, 2, []Completion{{Lease: NewLease(3, 12)}})
		e.Done(2, 2, 0, []Completion{{Index: 1, Lease: NewLease(3, 13)}, {Index: 0, Lease: NewLease(3, 14)}})
	})
	entry(func(e *Entry) {
		e.Fence = NewLease(3, 20)
		e.Stop("stop", 3)
		e.Stop("stop-2", 2)
		e.Done(1, 3, 1, []Completion{{Lease: NewLease(3, 20)}, {Lease: NewLease(3, 21)}})
	})
	entry(func(e *Entry) {
		e.Fence = NewLease(3, 30)
		e.Retry("retry", 3)
		e.Done(1, 3, 0, list[:300])
		for i := range list {
			list[i].Lease = NewLease(4, uint64(i))
		}
		e.Done(1, 3, 0, list[:300], Warning{Task: 5, Text: "odd"})
		e.Failed(3, 0, large-1, Failure{Kind: BadInput, Worker: 1, Lease: NewLease(4, 999), Message: "gone"}, nil)
		e.Failed(3, 0, large-2, Failure{Kind: ProgramError, Worker: 1, Lease: NewLease(4, 998), Message: "exit 1"}, nil)
		if level >= 2 {
			e.Failed(3, 0, large-3, Failure{Kind: ProgramError, Worker: 1, Lease: NewLease(4, 997), Message: "exit 1"},
				&Tail{Log: []byte("\xfflog"), LogBytes: 70_000, Output: []byte("output"), OutputBytes: 6})
		}
		if level > 0 {
			e.OutputLost(3, 0, 290, NewLease(4, 290), 1, "gone")
			e.Done(1, 4, 0, []Completion{{Lease: NewLease(4, 1000), Size: 9}})
			e.Done(1, 4, 2, []Completion{{Lease: NewLease(4, 1001), Size: 9}})
			e.Fence = NewLease(4, 1002)
			e.OutputLost(4, 0, 0, NewLease(4, 1000), 1, "gone")
		}
	})
	entry(func(e *Entry) {
		e.Forget("forget", 1)
		e.Forget("forget-3", 3)
		e.SetWorker("drain", 1, WorkerDraining)
		e.SetWorker("", 2, WorkerDead)
		e.SetWorker("again", 1, WorkerAlive)
		e.Register("register/3", &WorkerInfo{Identity: "89ab", Host: "gamma"})
		e.SetWorker("", 3, WorkerRemoved)
		e.Register("register/4", &WorkerInfo{Identity: "cdef", Host: "delta", Slots: 8})
		e.SetWorker("", 4, WorkerDead)
	})
	if level >= 2 {
		entry(func(e *Entry) {
			list, err := ListInput([]Axis{
				{Columns: []string{"id", ""}, Rows: 3, Blocks: 1},
				{Columns: []string{"n"}, Rows: 5, Ranges: []Numbers{{From: -1, To: 5, Step: 3}, {From: 8, To: 9, Width: 3}}},
				{Columns: []string{""}, Linked: true, Rows: 4, Ranges: []Numbers{{To: 3}}},
			}, mustInput(t, table).Blocks, 7, 11, 2)
			if err != nil {
				t.Fatal(err)
			}
			argv := [][]byte{[]byte("sh"), []byte("-c"), []byte("echo {id} %")}
			e.Submit("key-20", "uid20", "", &Spec{Output: "/out/20", Input: list, Argv: argv, Placeholders: 1, Shell: true})
			e.Submit("key-21", "uid21", "", &Spec{Output: "/out/21", Argv: argv, Placeholder: "%"})
			e.Submit("key-22", "uid22", "", &Spec{Output: "/out/22", MaxFails: &FailLimit{N: 5, Percent: true}, RetryDelayMS: 600_000, DelayMS: 20, MaxRunning: 3, Resources: []Resource{{"gpu", 2}, {"license", 1}}})
		})
	}
	if level >= 2 {
		staged := *mustInput(t, lines)
		entry(func(e *Entry) {
			e.Stage("stage-1", "uid7", 0, staged.Blocks)
			e.Stage("stage-2", "uid8", 0, staged.Blocks)
			e.Stage("stage-3", "uid8", 5, staged.Blocks)
			spec := &Spec{Builtin: "wordcount", Input: staged, Output: "/out/7", FailOnConflict: true}
			e.SubmitStaged("key-7", "uid7", spec.RequestSum("ann"), spec)
			e.Stage("stage-4", "uid9", 0, staged.Blocks)
			e.Stage("stage-5", "uid10", 0, staged.Blocks)
			e.Unstage("unstage", "uid9")
		})
		entry(func(e *Entry) {
			e.PutToken("token-1", &Token{ID: "t1", Hash: [32]byte{0, 1, 0xff}, Role: "submit", User: "ann", Expires: 1_800_000_000_000})
			e.PutToken("token-2", &Token{ID: "t2", Hash: [32]byte{2}, Role: "admin"})
			e.PutToken("token-3", &Token{ID: "t2", Role: "admin"})
			e.PutToken("token-4", &Token{ID: "t4"})
			e.RevokeToken("token-5", "t4")
			e.RevokeToken("token-6", "t4")
			e.Enroll("enroll-1", &Enrolment{Fingerprint: "f1", Role: "worker", Name: "alpha", Token: "t1"})
			e.Enroll("enroll-2", &Enrolment{Fingerprint: "f2", Role: "leader", Name: "beta", Member: 2})
			e.RevokeMachine("revoke-1", "f2")
			e.PutAuthority("authority-1", &Authority{Number: 1, Certificate: []byte("\xffcert")})
			e.PutAuthority("authority-2", &Authority{Number: 2, Certificate: []byte("cert 2"), Cross: []byte("cross")})
			e.PutAuthority("authority-2", &Authority{Number: 3, Certificate: []byte("cert 3"), Cross: []byte("cross 3")})
		})
		entry(func(e *Entry) {
			e.Enroll("enroll-1", &Enrolment{Fingerprint: "f1", Role: "worker", Name: "alpha again"})
			e.DropAuthority("drop-1", 1)
			e.DropAuthority("drop-3", 3)
			e.SetQuota("quota-1", Quota{User: "ann", Slots: 4, Jobs: 1, Weight: 2})
			e.SetQuota("quota-2", Quota{User: Everyone, Slots: 1 << 30, Jobs: 100})
			e.SetQuota("quota-3", Quota{User: "bob"})
			e.SetQuota("quota-4", Quota{User: "cid"})
			e.RemoveQuota("quota-5", "cid")
			e.RemoveQuota("quota-6", "cid")
			e.SetRetention("retention-1", Retention{User: Everyone, Jobs: 50, ForMS: 1 << 40, Bytes: 1 << 50})
			e.SetRetention("retention-2", Retention{User: "ann", Jobs: 5})
			e.SetRetention("retention-3", Retention{User: "bob", ForMS: 60_000})
			e.SetRetention("retention-4", Retention{User: "bob"})
			e.Pin("pin-1", 7, true)
			e.Pin("pin-2", 4, true)
			e.Pin("pin-3", 4, false)
			e.Pin("pin-4", 99, true)
			e.Submit("key-8", "uid11", "ann", &Spec{User: "ann", Output: "/out/8", FailOnConflict: true})
			e.Submit("key-9", "uid12", "ann", &Spec{User: "ann", Output: "/out/9"})
			e.Submit("key-10", "uid13", "ann", &Spec{User: "ann", Output: "/out/10", SlotsPerTask: 5})
		})
	}
	if level >= 2 {
		entry(func(e *Entry) {
			e.By = &Audit{User: "ann", Role: "admin", Token: "t1", Address: "10.0.0.9:1", Action: "DELETE /v1/access/tokens/t2"}
			e.RevokeToken("audit-1", "t2")
			e.RevokeToken("audit-2", "t2")
			e.Unstage("audit-3", "uid12")
			e.By = nil
			e.Audit("audit-4", &Audit{Address: "10.0.0.9:1", Action: "GET /v1/jobs", Verdict: "not authenticated"})
		})
		entry(func(e *Entry) {
			e.PutAuthority("authority-4", &Authority{Number: 4, Certificate: []byte("cert 4"), Key: 1})
			e.Submit("key-11", "uid14", "", &Spec{User: "cid", Builtin: "b", Output: "/out/11", Secrets: []Secret{{Name: "A", Sealed: []byte("under 0")}}})
			e.Reseal("reseal-1", 10, []Secret{{Name: "A", Sealed: []byte("under 1")}})
			e.Reseal("reseal-2", 1, []Secret{{Name: "A", Sealed: []byte("under 1")}})
		})
	}
	if level >= 2 {
		entry(func(e *Entry) {
			e.Submit("", "uid40", "", &Spec{Output: "/out/40", NameParts: "{#}.txt"})
		})
		entry(func(e *Entry) {
			e.Fence = NewLease(5, 1)
			e.Stop("stop-9", 9)
			for i, after := range [][]Dependency{{{Job: 10, Any: true}}, {{Job: 10}, {Job: 2}}, {{Job: 9}}} {
				uid := fmt.Sprintf("uid%d", 45+i)
				e.Submit("key-"+uid, uid, "", &Spec{Builtin: "b", Output: "/spool/" + uid, Spool: true, After: after})
			}
			e.Done(1, 9, 1, []Completion{{Lease: NewLease(5, 2)}}) // the commit stage of the stop
		})
		entry(func(e *Entry) {
			e.Stage("stage-33", "uid51", 0, mustInput(t, lines).Blocks)
			e.SubmitAll("key-50", 50, []Submission{
				{"uid50", &Spec{Name: "a", Builtin: "b", Output: "/out/50"}, 0},
				{"uid51", &Spec{Name: "b", Builtin: "b", Output: "/out/51", Input: *mustInput(t, lines), After: []Dependency{{Peer: 1, Any: true}, {Job: 10}}}, 1},
				{"uid52", &Spec{Name: "c", Builtin: "b", Output: "/out/52", After: []Dependency{{Peer: 1}, {Peer: 2}}}, 0},
			})
			e.Submit("key-55", "uid55", "", &Spec{Output: "/out/55", After: []Dependency{{Job: 9, Any: true}}, Deferred: &Deferred{Split: 10}})
			e.Submit("key-56", "uid56", "", &Spec{Output: "/out/56", After: []Dependency{{Job: 9, Any: true}}, Deferred: &Deferred{}})
			e.Submit("key-57", "uid57", "", &Spec{Output: "/out/57", After: []Dependency{{Job: 10}}, Deferred: &Deferred{Split: 10}})
			e.Submit("key-58", "uid58", "", &Spec{Output: "/out/58", After: []Dependency{{Job: 9, Any: true}}, Deferred: &Deferred{}})
			e.SubmitAll("key-53", 53, []Submission{{"uid53", &Spec{Output: "/out/53"}, 0}, {"uid54", &Spec{Output: "/out/53/below"}, 0}})
		})
		first := JobID(19) // of the deferred inputs
		entry(func(e *Entry) {
			e.SetInput("input-1", &Job{ID: first, UID: "uid55"}, *mustInput(t, files), 0, 0)
			e.FailInput("input-2", &Job{ID: first + 1, UID: "uid56"}, "its input cannot be planned: gone")
			e.SetInput("input-3", &Job{ID: first + 2, UID: "uid57"}, *mustInput(t, files), 0, 0)
			e.Stage("stage-34", "uid58", 0, mustInput(t, lines).Blocks)
			e.SetInput("input-4", &Job{ID: first + 3, UID: "uid58"}, *mustInput(t, lines), 1, 0)
		})
		entry(func(e *Entry) {
			pieces := NewFiles(0)
			pieces.deflate = files.deflate
			pieces.AddFile([]byte("/data/stdin"), Version{Size: 25, Modified: 1}, false)
			in := *mustInput(t, pieces)
			in.Growing = true
			e.Submit("", "uid60", "", &Spec{Output: "/out/60", Input: in})
			e.Submit("", "uid61", "", &Spec{Output: "/out/61", Input: in})
			for _, id := range []JobID{9, 23, 24} { // two of which are these
				e.Grow(fmt.Sprintf("grow-%d", id), id, 1, &in, id%2 == 0)
			}
		})
		entry(func(e *Entry) {
			e.Lock("lock-1", LockOp{User: "ann", Holder: "h1", Names: []LockName{{Name: "a/b"}, {Name: "c", Shared: true}}, TTLMS: 30_000, Note: "nightly"},
				LockOp{User: "ann", Holder: "h2", Names: []LockName{{Name: "a"}}, TTLMS: 1000},
				LockOp{User: "bob", Holder: "h1", Names: []LockName{{Name: "a"}}, TTLMS: 1000, NoWait: true},
				LockOp{User: "bob", Holder: "h3", Names: []LockName{{Name: "pool"}}, TTLMS: 1000, Max: 2})
			e.Submit("", "uid62", "", &Spec{
				Output: "/out/62", Locks: []LockName{{Name: "c"}, {Name: "d", Shared: true}}, Data: []LockName{{Name: "/in", Shared: true}, {Name: "/mnt/out/62"}}, Priority: 90,
			})
			e.Submit("", "uid63", "", &Spec{Output: "/mnt/out/62/below"})
		})
		entry(func(e *Entry) {
			e.RaiseFence(1000)
			e.Quarantine(1, "slow: no leases for 1m0s")
			e.Quarantine(1, "")
			e.By = &Audit{User: "eve", Role: "operator", Token: "t1", Address: "10.0.0.9:1", Action: "DELETE /v1/locks/c?holder=h1"}
			e.Lock("lock-2", LockOp{Release: true, User: "ann", Holder: "h1", Names: []LockName{{Name: "c"}}})
			e.By = nil
			e.Lock("lock-3", LockOp{User: "eve", Holder: "h4", Names: []LockName{{Name: "a"}}, TTLMS: 1000})
			e.Lock("lock-4", LockOp{User: "eve", Holder: "h5", Names: []LockName{{Name: "a/x", Shared: true}}, TTLMS: 1000})
			e.Withdraw("withdraw-1", 26)
			e.Expire("expire-1", 20, 99)
		})
		entry(func(e *Entry) {
			for i := range JobID(2) { // 27 and 28
				e.Submit("", fmt.Sprintf("uid%d", 64+i), "", &Spec{User: "zoe", Output: fmt.Sprintf("/out/%d", 64+i), Locks: []LockName{{Name: "e", Shared: true}}})
			}
			e.Others = true
			e.Done(1, 27, 0, []Completion{{Lease: NewLease(3, 1)}})
			e.Done(1, 27, 1, []Completion{{Lease: NewLease(3, 2)}})
			e.Failed(28, 0, 0, Failure{Kind: BadInput, Worker: 1, Lease: NewLease(3, 3), Message: "bad"}, nil)
			e.Forget("forget-28", 28)
			e.Submit("", "uid66", "", &Spec{Output: "/out/64"})
		})
	}
	return log
}

// playLog applies a log to m, and returns all results. Of a rejection it returns the code: the text may change.
func playLog(t *testing.T, log [][]byte, m *Machine) string {
	t.Helper()
	var b strings.Builder
	var out Result
	for i, entry := range log {
		if err := m.Apply(uint64(i+1), entry, &out); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "entry %d\n", i+1)
		for k, v := range out.Verdicts {
			last := v
			if last.Lease--; k > 0 {
				if last.Task = out.Verdicts[k-1].Task; out.Verdicts[k-1] == last {
					continue // one line for leases in a row
				}
			}
			fmt.Fprintf(&b, "%d/%d, worker %d: from lease %s on, won %v\n", v.Job, v.Stage, v.Worker, leaseName(v.Lease), v.Won)
		}
		for _, e := range out.Events {
			if refusal, ok := errors.AsType[*Rejection](e.Err); ok {
				fmt.Fprintf(&b, "%q refused: %d\n", e.Key, refusal.Code)
			} else {
				b.WriteString(factLine(e) + "\n")
			}
		}
	}
	return b.String() + meaning(m)
}

func readLog(t *testing.T, file string) (log [][]byte) {
	t.Helper()
	d := &decoder{buf: readFile(t, file)}
	for len(d.buf) > 0 {
		log = append(log, d.bytes())
	}
	if err := d.finish("%s", file); err != nil {
		t.Fatal(err)
	}
	return log
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if want := string(readFile(t, file)); got != want {
		t.Errorf("%s: it means something else now, %s", file, transcript.Difference(want, got))
	}
}

// meaning prints all of a machine's state. What is zero is left out, so that a field that came later does not change it.
func meaning(m *Machine) string {
	var b strings.Builder
	fmt.Fprintf(&b, "index %d, time %d, live %v, last job %d, last worker %d\n", m.Index(), m.Time(), m.Live(), m.lastJob, m.lastWorker)
	if m.level > 0 {
		fmt.Fprintf(&b, "feature level %d, needs %s\n", m.level, m.needs)
	}
	for i := range m.staged {
		describe(&b, fmt.Sprintf("staged %q, at %d", m.staged[i].uid, m.staged[i].time), reflect.ValueOf(m.staged[i].blocks))
	}
	describe(&b, "token", reflect.ValueOf(m.access.Tokens()))
	describe(&b, "machine", reflect.ValueOf(m.access.Enrolments()))
	describe(&b, "authority", reflect.ValueOf(m.access.Authorities()))
	describe(&b, "quota", reflect.ValueOf(m.access.Quotas().All()))
	describe(&b, "retention", reflect.ValueOf(m.access.Retentions().list()))
	for _, q := range m.requests.order {
		fmt.Fprintf(&b, "request %q: job %d, sum %x, at %d\n", q.key, q.job, q.sum, q.time)
	}
	for _, id := range m.Workers() {
		describe(&b, fmt.Sprintf("worker %d", id), reflect.ValueOf(*m.Worker(id)))
	}
	for _, id := range m.Jobs() {
		job := m.Job(id)
		describe(&b, fmt.Sprintf("job %d", id), reflect.ValueOf(*job))
		for i, stage := range job.Stages {
			for k := range stage.Tasks {
				out, _ := stage.Output(k)
				if failures := stage.Failures(k); stage.Status(k) != TaskOpen || failures.Ended > 0 {
					last, millis := recordedFailures(failures.Last)
					fmt.Fprintf(&b, "task %d/%d/%d %v {%d %d %d %d} {%v %d %v}%s\n", id, i, k, stage.Status(k), out.Winner, out.Size, out.Records, out.Checksum,
						failures.Counts, failures.Ended, last, millis)
					describe(&b, fmt.Sprintf("task %d/%d/%d", id, i, k), reflect.ValueOf(out.Run))
					if out.Read > 0 {
						fmt.Fprintf(&b, "task %d/%d/%d Read: %d\n", id, i, k, out.Read)
					}
				}
			}
		}
		r := NewInputReader(&job.Spec.Input)
		for k := range min(job.Spec.Input.Tasks, 10) {
			split, err := r.Split(k)
			before := struct { // as it was recorded at levels 0 and 1
				item, path     []byte
				offset, length uint64
				whole          bool
			}{split.Item, split.Path, split.Offset, split.Length, split.Whole}
			fmt.Fprintf(&b, "split %d/%d %+q %v\n", id, k, fmt.Sprint(before), err)
			if split.Values != nil {
				fmt.Fprintf(&b, "values %d/%d %q of %d\n", id, k, split.Values, split.Columns)
			}
			if split.Version.Known() {
				fmt.Fprintf(&b, "version %d/%d %+v\n", id, k, split.Version)
			}
		}
	}
	for i, t := range m.tails {
		fmt.Fprintf(&b, "tail %d: %d/%d/%d#%d worker %d lease %d: %q of %d, %q of %d\n", i, t.Job, t.Stage, t.Task, t.Attempt, t.Worker, t.Lease,
			t.Log, t.LogBytes, t.Output, t.OutputBytes)
	}
	if m.level >= 2 {
		fmt.Fprintf(&b, "%slast request %d, last fence %d\n", dumpLocks(m), m.locks.lastID, m.locks.fence)
	}
	facts, _ := m.FactsAfter(Position{})
	for i := range facts {
		describe(&b, fmt.Sprintf("fact %d", i), reflect.ValueOf(facts[i]))
	}
	return b.String()
}

// describe writes down what is not zero in v, a line for each value.
func describe(b *strings.Builder, path string, v reflect.Value) {
	if v.IsZero() {
		return
	}
	switch v.Kind() { //nolint:exhaustive // the rest is written as it is
	case reflect.Struct:
		for field, value := range v.Fields() {
			if field.IsExported() {
				describe(b, path+" "+field.Name, value)
			}
		}
	case reflect.Pointer:
		describe(b, path, v.Elem())
	case reflect.Map:
		values := map[string]reflect.Value{}
		for k, value := range v.Seq2() {
			values[fmt.Sprintf("%q", k)] = value
		}
		for _, k := range slices.Sorted(maps.Keys(values)) {
			fmt.Fprintf(b, "%s %s: %q\n", path, k, values[k])
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			fmt.Fprintf(b, "%s: %q\n", path, v.Bytes())
			return
		}
		for i := range v.Len() {
			describe(b, fmt.Sprintf("%s %d", path, i), v.Index(i))
		}
	case reflect.String:
		fmt.Fprintf(b, "%s: %q\n", path, v)
	default:
		fmt.Fprintf(b, "%s: %v\n", path, v)
	}
}
