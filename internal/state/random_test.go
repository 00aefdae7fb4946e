package state

import (
	"bytes"
	"fmt"
	"math"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bridgefour/bridgefour/internal/transcript"
)

// world drives the machine, the model and a twin of the machine that lives from snapshot to snapshot, with one log.
type world struct {
	m     *Machine
	twin  *Machine
	model *model

	now     int64
	lease   Lease
	entry   *Entry
	expect  []func() // the commands of entry, for the model
	log     [][]byte
	facts   []Result
	pinned  []pinned
	winners map[*Stage]map[uint64]Lease // of stages of m: a stage that starts afresh is another
	wins    map[*Stage]uint64
	known   map[JobID]bool            // every job that was ever there; false: forgotten
	started map[JobID]map[uint32]bool // stages that run, as a leader follows the events
}

// pinned is a snapshot and what it must stay.
type pinned struct {
	snapshot *Snapshot
	bytes    []byte
}

// TestRandom runs random commands, many of them senseless, and checks everything after each entry.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			m: New(), twin: New(), model: newModel(), now: 1, lease: NewLease(1, 0),
			winners: map[*Stage]map[uint64]Lease{}, wins: map[*Stage]uint64{}, known: map[JobID]bool{}, started: map[JobID]map[uint32]bool{},
		}
		w.entry = NewEntry(w.now, w.m.Level())
		if rapid.IntRange(0, 3).Draw(t, "new cluster") > 0 {
			w.raiseLevel(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"submit":   w.submit,
			"done":     w.done,
			"done_":    w.done, // twice as often as the rest
			"failed":   w.failed,
			"failed_":  w.failed,
			"lost":     w.lost,
			"lost_":    w.lost,
			"command":  w.command,
			"grow":     w.grow,
			"input":    w.setInput,
			"register": w.register,
			"worker":   w.worker,
			"time":     w.pass,
			"apply":    w.apply,
			"apply_":   w.apply,
			"snapshot": w.snapshot,
			"raise":    w.raise,
			"stage":    w.stageInput,
			"stage_":   w.stageInput,
			"access":   w.access,
			"lock":     w.lock,
			"lock_":    w.lock,
		})
		w.apply(t)
		w.replay(t)
	})
}

var (
	keyGen     = rapid.SampledFrom([]string{"", "k1", "k2", "k3", "k4"})
	outputGen  = rapid.SampledFrom([]string{"/a", "/a/b", "/a/../c", "/d", "/d/", "/e\xff"})
	userGen    = rapid.SampledFrom([]string{"", "ann", "bob"})
	jobGen     = rapid.Uint64Range(0, 6)
	sizeGen    = rapid.SampledFrom([]uint64{0, 0, 1, 77, 1 << 40})
	millisGen  = rapid.SampledFrom([]uint32{0, 0, 5, 77_000, math.MaxUint32})
	messageGen = rapid.SampledFrom([]string{"", "exit 1", "\xff\x00 not text"})
)

// newJob is a job with so many before it in its submission.
func (w *world) newJob(t *rapid.T, peers int) Submission {
	n := len(w.log)*100 + len(w.expect)
	spec := &Spec{
		Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), User: userGen.Draw(t, "user"), Retries: rapid.Uint32Range(0, 3).Draw(t, "retries"),
		Collect: rapid.Bool().Draw(t, "collect"), KeepPartial: rapid.Bool().Draw(t, "keep partial"),
		FirstSuccess: rapid.IntRange(0, 3).Draw(t, "first success") == 0, SlotsPerTask: rapid.Uint32Range(0, 2).Draw(t, "slots"),
	}
	if w.entry.level >= 2 {
		spec.NameParts = rapid.SampledFrom([]string{"", "{#}"}).Draw(t, "name parts")
	}
	if w.entry.level >= 2 && rapid.Bool().Draw(t, "max fails") {
		spec.MaxFails = &FailLimit{rapid.Uint64Range(0, 100).Draw(t, "most"), rapid.Bool().Draw(t, "percent")}
	}
	// The large one reaches over a page's edge, and its last page is not full.
	if tasks := rapid.SampledFrom([]uint64{0, 1, 2, 3, pageTasks + 3}).Draw(t, "tasks"); tasks > 0 {
		spec.Input = Input{Kind: InputRange, Tasks: tasks}
		if rapid.Bool().Draw(t, "files") {
			files := NewFiles(0)
			packed := w.entry.level >= 2 && rapid.Bool().Draw(t, "packed")
			for i := range tasks {
				file := Split{Path: fmt.Appendf(nil, "/f%d", i), Version: Version{Size: modelFileSize, Modified: 1}}
				if packed {
					files.Pack([]Split{file, file})
				} else {
					files.AddFile(file.Path, file.Version, false)
				}
			}
			spec.Input, _ = files.Input()
			spec.Input.Growing = w.entry.level >= 2 && rapid.Bool().Draw(t, "growing")
		}
	}
	if spec.Spool = rapid.Bool().Draw(t, "spool"); spec.Spool {
		spec.Output = fmt.Sprintf("/spool/%d/%d", n, peers)
	} else {
		spec.Output = outputGen.Draw(t, "output")
	}
	if w.entry.level > 0 && !spec.Input.Growing {
		spec.Stages = planGen(t, spec)
	}
	if w.entry.level >= 2 {
		for _, id := range rapid.SliceOfNDistinct(jobGen, 0, 2, rapid.ID).Draw(t, "after") {
			if w.m.Job(JobID(id)) != nil || rapid.IntRange(0, 9).Draw(t, "after nothing") == 0 {
				spec.After = append(spec.After, Dependency{Job: JobID(id), Any: rapid.IntRange(0, 2).Draw(t, "any") == 0})
			}
		}
		for peer := range peers {
			if rapid.Bool().Draw(t, "after a peer") {
				spec.After = append(spec.After, Dependency{Peer: uint32(peer) + 1, Any: rapid.IntRange(0, 2).Draw(t, "any") == 0})
			}
		}
	}
	if w.entry.level >= 2 {
		spec.Overwrite, spec.Priority = rapid.Bool().Draw(t, "overwrite"), rapid.Uint32Range(0, 2).Draw(t, "priority")
		spec.FailOnConflict = rapid.IntRange(0, 5).Draw(t, "fail on conflict") == 0
		spec.Locks, _ = cleanNames(lockNamesGen.Draw(t, "locks"))
		for _, input := range rapid.SliceOfNDistinct(outputGen, 0, 2, rapid.ID).Draw(t, "reads") {
			spec.Data = append(spec.Data, LockName{Name: path.Clean(input), Shared: true})
		}
	}
	if len(spec.After) > 0 && rapid.Bool().Draw(t, "deferred") {
		spec.Input, spec.Deferred = Input{Kind: InputNone, Tasks: 1}, &Deferred{}
		spec.Stages = planGen(t, spec)
	}
	return Submission{fmt.Sprintf("u%d-%d", n, peers), spec, 0}
}

func (w *world) submit(t *rapid.T) {
	key, list := keyGen.Draw(t, "key"), []Submission{w.newJob(t, 0)}
	first := &list[0]
	switch {
	case w.entry.level >= 2 && rapid.IntRange(0, 2).Draw(t, "several") == 0:
		for len(list) <= rapid.IntRange(0, 3).Draw(t, "more") {
			list = append(list, w.newJob(t, len(list)))
			list[len(list)-1].Spec.User = first.Spec.User
		}
	case w.entry.level < 2 || rapid.Bool().Draw(t, "not staged"):
		w.entry.Submit(key, first.UID, first.Spec.User, first.Spec)
		w.expect = append(w.expect, func() { w.model.submit(key, list) })
		return
	}
	var sums []uint64
	for i := range list {
		s := &list[i]
		if s.Spec.Deferred == nil && rapid.Bool().Draw(t, "staged") {
			s.UID, s.Staged = uidGen.Draw(t, "uid"), rapid.Uint64Range(1, 3).Draw(t, "blocks")
			s.Spec.Input = Input{Kind: InputLines, Tasks: max(1, s.Spec.Input.Tasks), Blocks: make([]Block, s.Staged)}
		}
		sums = append(sums, s.Spec.RequestSum(s.Spec.User))
	}
	sum := sums[0]
	if len(sums) > 1 {
		sum = RequestSums(sums)
	}
	w.entry.SubmitAll(key, sum, list)
	w.expect = append(w.expect, func() { w.model.submit(key, list) })
}

var uidGen = rapid.SampledFrom([]string{"s1", "s2", "s3"})

// stageInput stages a few blocks, mostly after those that are staged.
func (w *world) stageInput(t *rapid.T) {
	if w.entry.level < 2 {
		return
	}
	w.apply(t)
	key, uid := keyGen.Draw(t, "key"), uidGen.Draw(t, "uid")
	if rapid.IntRange(0, 4).Draw(t, "unstage") == 0 {
		w.entry.Unstage(key, uid)
		w.expect = append(w.expect, func() {
			w.model.unstage(uid)
			w.model.answer(key, "job 0")
		})
		return
	}
	before := 0
	if i := w.m.stagedIndex(uid); i >= 0 {
		before = len(w.m.staged[i].blocks)
	}
	before += rapid.IntRange(0, 6).Draw(t, "too many") / 6
	blocks := make([]Block, rapid.IntRange(1, 2).Draw(t, "blocks"))
	for i := range blocks {
		blocks[i] = Block{First: uint64(before + i), Data: []byte(uid)}
	}
	w.entry.Stage(key, uid, before, blocks)
	w.expect = append(w.expect, func() { w.model.stage(key, uid, before, len(blocks)) })
}

// access changes the tables of who may use the cluster.
func (w *world) access(t *rapid.T) {
	if w.entry.level < 2 {
		return
	}
	key, id := keyGen.Draw(t, "key"), rapid.SampledFrom([]string{"t1", "t2", "t3"}).Draw(t, "id")
	number := rapid.Uint64Range(0, 6).Draw(t, "number")
	user := rapid.SampledFrom([]string{"ann", "bob", Everyone, ""}).Draw(t, "user")
	switch rapid.IntRange(0, 9).Draw(t, "change") {
	case 9:
		r := Retention{
			User: user, Jobs: rapid.Uint32Range(0, 2).Draw(t, "jobs kept"), ForMS: rapid.SampledFrom([]uint64{0, 1, 5000, retentionMSMax + 1}).Draw(t, "kept for"),
			Bytes: rapid.Uint64Range(0, 20).Draw(t, "bytes kept"),
		}
		w.entry.SetRetention(key, r)
		w.expect = append(w.expect, func() { w.model.setRetention(key, r) })
	case 8:
		w.entry.Reseal(key, JobID(number), nil)
		w.expect = append(w.expect, func() { w.model.reseal(key, JobID(number), nil) })
	case 6:
		q := Quota{User: user, Slots: rapid.Uint32Range(0, 2).Draw(t, "slots"), Jobs: rapid.Uint32Range(0, 3).Draw(t, "jobs"), Weight: rapid.Uint32Range(0, WeightMax+1).Draw(t, "weight")}
		w.entry.SetQuota(key, q)
		w.expect = append(w.expect, func() { w.model.setQuota(key, q) })
	case 7:
		w.entry.RemoveQuota(key, user)
		w.expect = append(w.expect, func() { w.model.removeQuota(key, user) })
	case 0:
		token := Token{ID: id, Hash: [32]byte{1, 2}, Role: messageGen.Draw(t, "role"), User: messageGen.Draw(t, "user"), Expires: w.now * rapid.Int64Range(0, 1).Draw(t, "expires")}
		w.entry.PutToken(key, &token)
		w.expect = append(w.expect, func() { w.model.putToken(key, token) })
	case 1:
		w.entry.RevokeToken(key, id)
		w.expect = append(w.expect, func() { w.model.revokeToken(key, id) })
	case 2:
		machine := Enrolment{
			Fingerprint: id, Role: rapid.SampledFrom([]string{"worker", "leader"}).Draw(t, "role"), Name: messageGen.Draw(t, "name"),
			Token: rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(t, "token"), Member: rapid.Uint64Range(0, 2).Draw(t, "member"),
		}
		w.entry.Enroll(key, &machine)
		w.expect = append(w.expect, func() { w.model.enroll(key, machine) })
	case 3:
		w.entry.RevokeMachine(key, id)
		w.expect = append(w.expect, func() { w.model.revokeMachine(key, id) })
	case 4:
		authority := Authority{Number: number, Certificate: []byte("certificate"), Cross: []byte(id)[:number%2]}
		w.entry.PutAuthority(key, &authority)
		w.expect = append(w.expect, func() { w.model.putAuthority(key, authority) })
	default:
		w.entry.DropAuthority(key, number)
		w.expect = append(w.expect, func() { w.model.dropAuthority(key, number) })
	}
}

// planGen draws a plan; nil: the default one.
func planGen(t *rapid.T, spec *Spec) []StageSpec {
	tasks := max(1, spec.Input.Tasks)
	plan := [][]StageSpec{
		nil,
		{ // side by side
			{Name: "a", Role: RoleMap, Tasks: tasks},
			{Name: "b", Role: RoleMap, Tasks: tasks},
			{Name: "merge", Role: RoleCollect, Tasks: 1, From: []uint32{0, 1}},
		},
		{ // one after the other, the collect beside the second
			{Name: "a", Role: RoleMap, Tasks: tasks},
			{Name: "b", Role: RoleMap, Tasks: tasks, From: []uint32{0}},
			{Name: "merge", Role: RoleCollect, Tasks: 1, From: []uint32{0}},
		},
		LinePlan([]StageSpec{{Name: "map", Tasks: tasks}, {Name: "reduce", Tasks: 3}, {Name: "sort", Tasks: 2, Ranges: true, Fitted: true}}),
	}[rapid.IntRange(0, 3).Draw(t, "plan")]
	if plan == nil {
		return nil
	}
	end := StageSpec{Name: "publish", Role: RoleCommit, Tasks: 1}
	if spec.Spool {
		end = StageSpec{Name: "check", Role: RoleCheck, Tasks: 1}
	}
	for i := range plan {
		end.From = append(end.From, uint32(i))
	}
	return append(plan, end)
}

// fence sets the entry's fence: to none, or to all leases so far.
func (w *world) fence(t *rapid.T) Lease {
	w.entry.Fence = rapid.SampledFrom([]Lease{0, w.lease}).Draw(t, "fence")
	return w.entry.Fence
}

// nextLease is a new lease, or now and then one that may be void.
func (w *world) nextLease(t *rapid.T) Lease {
	if rapid.IntRange(0, 9).Draw(t, "old lease") == 0 {
		return max(1, w.lease-Lease(rapid.Uint64Range(0, 20).Draw(t, "older")))
	}
	w.lease++
	return w.lease
}

// lost reports the output of a task as lost, most often one that is done.
func (w *world) lost(t *rapid.T) {
	id, stage, index, lease := JobID(jobGen.Draw(t, "job")), rapid.Uint32Range(0, 4).Draw(t, "stage"), index(t, 3), w.lease
	if live := w.m.Live(); len(live) > 0 && rapid.IntRange(0, 9).Draw(t, "sense") > 0 {
		j := w.m.Job(rapid.SampledFrom(live).Draw(t, "live job"))
		id, stage = j.ID, uint32(rapid.IntRange(0, len(j.Stages)-1).Draw(t, "stage"))
		if out, ok := j.Stages[stage].Output(index); ok && index < j.Stages[stage].Tasks {
			lease = out.Winner
		}
	}
	fence := w.fence(t)
	f := Failure{Worker: WorkerID(rapid.IntRange(0, 3).Draw(t, "reader")), Lease: lease, Message: "gone"}
	w.entry.OutputLost(id, stage, index, lease, f.Worker, f.Message)
	if w.entry.level > 0 {
		w.expect = append(w.expect, func() { w.model.lost(id, stage, index, f, fence) })
	}
}

// target picks a stage, most often the one that runs.
func (w *world) target(t *rapid.T) (id JobID, stage uint32, tasks uint64) {
	if live := w.m.Live(); len(live) > 0 && rapid.IntRange(0, 9).Draw(t, "sense") > 0 {
		j := w.m.Job(rapid.SampledFrom(live).Draw(t, "live job"))
		i := rapid.SampledFrom(append(readyStages(j), 0)[:max(1, len(readyStages(j)))]).Draw(t, "ready stage") // the first one of a waiting job
		return j.ID, uint32(i), j.Stages[i].Tasks
	}
	return JobID(jobGen.Draw(t, "job")), rapid.Uint32Range(0, 4).Draw(t, "stage"), 3
}

func readyStages(j *Job) (list []int) {
	for i := range j.Stages {
		if j.Ready(i) {
			list = append(list, i)
		}
	}
	return list
}

// index picks a task: of the first few, around the edge of a page, the last ones, or one that is not there.
func index(t *rapid.T, tasks uint64) uint64 {
	i := rapid.Uint64Range(0, 4).Draw(t, "task")
	switch rapid.IntRange(0, 9).Draw(t, "where") {
	case 0:
		return tasks - 1 - min(i, tasks-1)
	case 1:
		return pageTasks - 2 + i
	case 2:
		return 1<<32 - 2 + i
	}
	return i
}

func (w *world) done(t *rapid.T) {
	id, stage, tasks := w.target(t)
	var list []Completion
	if rapid.IntRange(0, 5).Draw(t, "sweep") == 0 { // all at once, so that large stages end too
		for i := range tasks {
			w.lease++
			list = append(list, Completion{Index: i, Lease: w.lease, Size: i % 3, Records: i % 2, Checksum: i, InputBytes: 1, Started: uint32(w.now), Millis: 3, PeakKiB: uint32(i % 2), Second: i%3 == 1})
		}
	} else {
		for range rapid.IntRange(0, 4).Draw(t, "completions") {
			list = append(list, Completion{
				Index: index(t, tasks), Lease: w.nextLease(t), Size: sizeGen.Draw(t, "size"), Records: sizeGen.Draw(t, "records"),
				Checksum: rapid.Uint64().Draw(t, "checksum"), InputBytes: sizeGen.Draw(t, "read"),
				Started: millisGen.Draw(t, "started"), Millis: millisGen.Draw(t, "millis"), PeakKiB: millisGen.Draw(t, "peak"), Second: rapid.Bool().Draw(t, "second"),
			})
		}
	}
	worker, level := WorkerID(jobGen.Draw(t, "worker")), w.entry.level
	others := w.entry.level >= 2 && rapid.IntRange(0, 2).Draw(t, "others") == 0
	w.entry.Others = others
	w.entry.Done(worker, id, stage, list)
	if level == 0 { // version 1 has no place for it
		for i := range list {
			list[i].Started, list[i].Millis = 0, 0
		}
	}
	if level < 2 {
		for i := range list {
			list[i].PeakKiB, list[i].Second = 0, false
		}
	}
	w.expect = append(w.expect, func() { w.model.done(worker, id, stage, list, others) })
}

func (w *world) failed(t *rapid.T) {
	id, stage, tasks := w.target(t)
	f := Failure{
		Kind:   FailureKind(rapid.IntRange(1, int(failureKinds)-1).Draw(t, "kind")),
		Worker: WorkerID(jobGen.Draw(t, "worker")), Lease: w.nextLease(t), Message: messageGen.Draw(t, "message"),
	}
	if w.entry.level >= 2 {
		f.Millis = millisGen.Draw(t, "millis")
		f.WaitMS = uint64(millisGen.Draw(t, "wait"))
		f.Cancel = rapid.IntRange(0, 9).Draw(t, "cancel") == 0
	}
	i := index(t, tasks)
	others := w.entry.level >= 2 && rapid.IntRange(0, 2).Draw(t, "others") == 0
	w.entry.Others = others
	w.entry.Failed(id, stage, i, f, nil)
	w.expect = append(w.expect, func() { w.model.fail(id, stage, i, f, others) })
}

// by draws who asks for the commands that are added until the function is called that it returns.
func (w *world) by(t *rapid.T) (end func()) {
	if w.entry.level < 2 || rapid.Bool().Draw(t, "by nobody") {
		return func() {}
	}
	by := &Audit{User: messageGen.Draw(t, "user"), Role: "admin", Token: "t1", Address: "10.0.0.9:1", Action: messageGen.Draw(t, "action")}
	w.entry.By = by
	return func() {
		w.entry.By = nil
		w.expect = append(w.expect, func() { w.model.audit(by) })
	}
}

func (w *world) command(t *rapid.T) {
	key, id := keyGen.Draw(t, "key"), JobID(jobGen.Draw(t, "job"))
	fence := w.fence(t)
	defer w.by(t)()
	switch rapid.IntRange(0, 7).Draw(t, "command") {
	case 7:
		pinned := rapid.Bool().Draw(t, "pinned")
		w.entry.Pin(key, id, pinned)
		if w.entry.level >= 2 {
			w.expect = append(w.expect, func() { w.model.pin(key, id, pinned) })
		}
	case 0, 1:
		w.entry.Stop(key, id)
		w.expect = append(w.expect, func() { w.model.stop(key, id, fence) })
	case 2:
		w.entry.Forget(key, id)
		w.expect = append(w.expect, func() { w.model.forget(key, id) })
	default:
		var changed []FileChange
		if w.entry.level >= 2 {
			for _, task := range rapid.SliceOfNDistinct(rapid.Uint64Range(0, 4), 0, 3, rapid.ID).Draw(t, "changed") {
				changed = append(changed, FileChange{
					Task: task, File: rapid.Uint64Range(0, 1).Draw(t, "file"), Version: Version{Size: sizeGen.Draw(t, "new size"), Modified: 2},
				})
			}
		}
		var lost []OutputRange
		if w.entry.level >= 2 && rapid.Bool().Draw(t, "outputs are lost") {
			lost = append(lost, OutputRange{
				Stage: rapid.Uint32Range(0, 3).Draw(t, "stage"), First: rapid.Uint64Range(0, 4).Draw(t, "first"), Tasks: rapid.Uint64Range(1, 3).Draw(t, "tasks"),
			})
		}
		w.entry.RetryLost(key, id, lost, changed...)
		w.expect = append(w.expect, func() {
			w.model.retry(key, id, fence, lost, changed)
			if j := w.m.Job(id); j != nil && len(changed)+len(lost) > 0 { // tasks that are done may be open again
				for _, s := range j.Stages {
					delete(w.winners, s)
				}
			}
		})
	}
}

// grow adds files to an input, mostly of a job whose input is growing.
func (w *world) grow(t *rapid.T) {
	if w.entry.level < 2 {
		return
	}
	w.apply(t)
	key, id, blocks, more := keyGen.Draw(t, "key"), JobID(jobGen.Draw(t, "job")), rapid.IntRange(0, 3).Draw(t, "blocks"), NewFiles(0)
	if j := w.m.Job(id); j != nil && rapid.IntRange(0, 3).Draw(t, "other blocks") > 0 {
		blocks = len(j.Spec.Input.Blocks)
	}
	for i := range rapid.SampledFrom([]int{0, 1, 3, pageTasks}).Draw(t, "pieces") {
		more.AddFile(fmt.Appendf(nil, "/p%d", i), Version{Size: modelFileSize, Modified: 1}, false)
	}
	in, _ := more.Input()
	last := rapid.Bool().Draw(t, "last")
	w.entry.Grow(key, id, blocks, &in, last)
	w.expect = append(w.expect, func() { w.model.grow(key, id, blocks, &in, last) })
}

// setInput plans a deferred input, mostly one that is due.
func (w *world) setInput(t *rapid.T) {
	if w.entry.level < 2 {
		return
	}
	key, id, tasks := keyGen.Draw(t, "key"), JobID(jobGen.Draw(t, "job")), rapid.Uint64Range(0, 3).Draw(t, "planned")
	for _, live := range w.m.Live() {
		if w.m.InputDue(w.m.Job(live)) {
			id = live
		}
	}
	if job := (&Job{ID: id, UID: "none"}); tasks == 0 {
		w.entry.FailInput(key, job, "gone")
	} else {
		w.entry.SetInput(key, job, Input{Kind: InputRange, Tasks: tasks}, 0, 2)
	}
	w.expect = append(w.expect, func() { w.model.setInput(key, id, tasks) })
}

func (w *world) register(t *rapid.T) {
	key := keyGen.Draw(t, "key")
	info := WorkerInfo{
		Identity: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "identity"), Host: messageGen.Draw(t, "host"),
		Slots: rapid.Uint32().Draw(t, "slots"), Labels: map[string]string{"zone": messageGen.Draw(t, "zone")},
		Address: messageGen.Draw(t, "address"), Claim: rapid.Uint64Range(0, 3).Draw(t, "claim"),
	}
	if w.m.Level() >= 2 && rapid.IntRange(0, 3).Draw(t, "expected") == 0 {
		info.Identity, info.Claim = "", max(1, info.Claim)
	}
	w.entry.Register(key, &info)
	w.expect = append(w.expect, func() { w.model.register(key, info) })
}

func (w *world) worker(t *rapid.T) {
	key, id := keyGen.Draw(t, "key"), WorkerID(jobGen.Draw(t, "worker"))
	to := WorkerStatus(rapid.IntRange(0, int(WorkerRemoved)+1).Draw(t, "status"))
	w.entry.SetWorker(key, id, to)
	w.expect = append(w.expect, func() { w.model.setWorker(key, id, to) })
}

// pass lets time pass, or jump back, for the next entry.
func (w *world) pass(t *rapid.T) {
	w.apply(t)
	w.now = max(1, w.now+rapid.SampledFrom([]int64{1, 1000, -5000, 16 * 60 * 1000, 24 * 3600 * 1000, 24*3600*1000 + 1, 8 * 24 * 3600 * 1000}).Draw(t, "passed"))
	w.entry = NewEntry(w.now, w.m.Level())
}

// raise raises the feature level once: what was written until then is of version 1.
func (w *world) raise(t *rapid.T) {
	w.apply(t)
	if w.m.Level() == 0 && rapid.IntRange(0, 3).Draw(t, "raise") == 0 {
		w.raiseLevel(t)
	}
}

var lockNamesGen = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) LockName {
	name := rapid.SampledFrom([]string{"a", "a/b", "/a/b/c", "ab", "d//e", "d", "/"}).Draw(t, "lock")
	return LockName{Name: name, Shared: rapid.Bool().Draw(t, "shared")}
}), 0, 2, func(n LockName) string { return n.Name })

// lock acquires and releases locks, and lets some expire.
func (w *world) lock(t *rapid.T) {
	if w.entry.level < 2 {
		return
	}
	key, id := keyGen.Draw(t, "key"), LockID(rapid.Uint64Range(0, 12).Draw(t, "request"))
	switch rapid.IntRange(0, 4).Draw(t, "operation") {
	case 0:
		w.entry.Expire(key, id, id+3)
		w.expect = append(w.expect, func() { w.model.expire(key, []LockID{id, id + 3}, false) })
	case 1:
		w.entry.Withdraw(key, id)
		w.expect = append(w.expect, func() { w.model.expire(key, []LockID{id}, true) })
	default:
		var ops []LockOp
		for range rapid.IntRange(1, 3).Draw(t, "operations") {
			ops = append(ops, LockOp{
				Release: rapid.IntRange(0, 2).Draw(t, "release") == 0, User: userGen.Draw(t, "user"), Holder: rapid.SampledFrom([]string{"h1", "h2"}).Draw(t, "holder"),
				Names: lockNamesGen.Draw(t, "names"), Max: rapid.Uint32Range(0, 3).Draw(t, "max"), TTLMS: 30_000, NoWait: rapid.Bool().Draw(t, "no wait"),
			})
		}
		end := w.by(t)
		w.entry.Lock(key, ops...)
		w.expect = append(w.expect, func() { w.model.lock(key, ops) })
		end()
		w.expect = append(w.expect, func() { w.model.released = nil })
	}
}

func (w *world) raiseLevel(t *rapid.T) {
	w.entry = RaiseLevel(w.now, FeatureLevel, "v1")
	w.expect = append(w.expect, func() {
		if w.model.level < FeatureLevel {
			w.model.level = FeatureLevel
			w.model.lockLive()
		}
	})
	w.apply(t)
}

// apply applies what has been gathered, and compares.
func (w *world) apply(t *rapid.T) {
	if len(w.expect) == 0 {
		return
	}
	data := w.entry.Data()
	w.log = append(w.log, data)
	at := uint64(len(w.log))
	var got, twin Result
	if err := w.m.Apply(at, data, &got); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if err := w.twin.Apply(at, data, &twin); err != nil {
		t.Fatalf("Apply, after a restart: %v", err)
	}
	if !reflect.DeepEqual(got, twin) {
		t.Fatalf("facts differ after a restart\nfirst:     %+v\nrestarted: %+v", got, twin)
	}
	w.facts = append(w.facts, got)
	w.model.begin(w.now)
	for _, do := range w.expect {
		w.model.others = true
		do()
		w.model.release()
	}
	w.entry, w.expect = NewEntry(w.now, w.m.Level()), nil

	if want, have := w.model.dump(), dumpMachine(w.m); have != want {
		t.Fatalf("state differs, %s", transcript.Difference(want, have))
	}
	w.history(t)
	w.answered(t, got)
	w.invariants(t, got)
}

// history compares the facts, and those after the entry before.
func (w *world) history(t *rapid.T) {
	facts, _ := w.m.FactsAfter(Position{})
	if want, have := strings.Join(w.model.facts, "\n"), strings.Join(dumpFacts(facts), "\n"); have != want {
		t.Fatalf("the history differs, %s", transcript.Difference(want, have))
	}
	now, ok := w.m.FactsAfter(Position{Index: w.m.Index() - 1, Seq: math.MaxUint32})
	for i := range now {
		if f := &now[i]; f.Index != w.m.Index() || f.Seq != uint32(i) || !reflect.DeepEqual(*f, facts[len(facts)-len(now)+i]) {
			t.Fatalf("fact %d of entry %d is %+v", i, w.m.Index(), *f)
		}
	}
	if before := len(facts) - len(now); !ok || before > 0 && facts[before-1].Index >= w.m.Index() {
		t.Fatalf("of %d facts, %d are of entry %d, %v", len(facts), len(now), w.m.Index(), ok)
	}
}

// answered compares what requests were told, and the verdicts.
func (w *world) answered(t *rapid.T, got Result) {
	var answers []string
	for _, e := range got.Events {
		if e.Kind != RequestApplied {
			continue
		}
		switch {
		case e.Err != nil:
			answers = append(answers, e.Key+" refused")
		case e.Worker > 0:
			answers = append(answers, fmt.Sprintf("%s worker %d", e.Key, e.Worker))
		case e.Locks != nil:
			text := ""
			for _, a := range e.Locks {
				switch {
				case a.Err != nil:
					text += " refused"
				case a.ID == 0:
					text += " released"
				default:
					text += fmt.Sprintf(" %d:%d", a.ID, a.Fence)
				}
			}
			answers = append(answers, e.Key+" locks"+text)
		default:
			answers = append(answers, fmt.Sprintf("%s job %d", e.Key, e.Job))
		}
	}
	if !slices.Equal(answers, w.model.answers) {
		t.Fatalf("answers = %q, want %q", answers, w.model.answers)
	}
	var wins []bool
	for _, v := range got.Verdicts {
		wins = append(wins, v.Won)
	}
	if !slices.Equal(wins, w.model.wins) {
		t.Fatalf("verdicts = %v, want %v", wins, w.model.wins)
	}
}

// invariants holds the machine to what must be true whatever it was told.
func (w *world) invariants(t *rapid.T, got Result) {
	var live []JobID
	for _, e := range got.Events {
		switch e.Kind {
		case JobSubmitted:
			w.known[e.Job] = true
		case JobForgotten:
			w.known[e.Job] = false
		case TaskLost:
			w.forgetWinner(e)
		case StageStarted, StageEnded, TaskReopened, TaskDied, JobEnding, JobEnded, WorkerJoined, WorkerChanged, RequestApplied, QuotasChanged, Audited, JobWaits, StageGrown, InputDue, LockHeld, LockWaiting, LockGone, LockOver, PriorityChanged, WorkerQuarantined, WorkerReleased:
		}
		w.follow(e)
	}
	for id, there := range w.known {
		if (w.m.Job(id) != nil) != there {
			t.Fatalf("job %d is lost, or came back", id)
		}
	}
	for _, id := range w.m.Jobs() {
		j := w.m.Job(id)
		if !j.Status.Ended() {
			live = append(live, id)
		}
		if (j.Ended != 0) != j.Status.Ended() || (len(readyStages(j)) == 0) != (j.Status.Ended() || j.Status == JobWaiting) {
			t.Fatalf("job %d is %v, ended at %d, and the stages %v are ready", id, j.Status, j.Ended, readyStages(j))
		}
		for i, s := range j.Stages {
			w.stage(t, j, s)
			if j.Ready(i) != w.started[id][uint32(i)] {
				t.Fatalf("job %d: Ready(%d) = %v, by the events %v", id, i, j.Ready(i), w.started[id][uint32(i)])
			}
		}
	}
	if !slices.Equal(live, w.m.Live()) {
		t.Fatalf("Live() = %v, want %v", w.m.Live(), live)
	}
}

// follow does with an event what a leader does.
func (w *world) follow(e Event) {
	switch e.Kind {
	case JobEnding, JobEnded, JobForgotten:
		delete(w.started, e.Job)
	case StageEnded:
		delete(w.started[e.Job], e.Stage)
	case TaskLost:
		if j := w.m.Job(e.Job); j == nil || !j.Ready(int(e.Stage)) {
			return
		}
		fallthrough
	case StageStarted:
		if w.started[e.Job] == nil {
			w.started[e.Job] = map[uint32]bool{}
		}
		w.started[e.Job][e.Stage] = true
	case JobSubmitted, TaskReopened, TaskDied, WorkerJoined, WorkerChanged, RequestApplied, QuotasChanged, Audited, JobWaits, StageGrown, InputDue, LockHeld, LockWaiting, LockGone, LockOver, PriorityChanged, WorkerQuarantined, WorkerReleased:
	}
}

// forgetWinner: an output that was lost is no longer its task's. The stage may be another since, or the job gone.
func (w *world) forgetWinner(e Event) {
	if j := w.m.Job(e.Job); j != nil && w.winners[j.Stages[e.Stage]][e.Task] == e.Lease {
		delete(w.winners[j.Stages[e.Stage]], e.Task)
	}
}

func (w *world) stage(t *rapid.T, j *Job, s *Stage) {
	old := w.winners[s]
	if old == nil {
		old = map[uint64]Lease{}
		w.winners[s] = old
	}
	var open, done, dead, failed uint64
	for i := range s.Tasks {
		out, ok := s.Output(i)
		if won, had := old[i]; had && (!ok || won != out.Winner) {
			t.Fatalf("task %d/%s/%d: its winner was %d and is %d", j.ID, s.Name, i, won, out.Winner)
		}
		if ok {
			old[i] = out.Winner
		}
		switch s.Status(i) {
		case TaskOpen:
			open++
		case TaskDone:
			done++
		case TaskDead:
			dead++
		}
		failures := s.Failures(i)
		failed += uint64(failures.Ended)
		if s.Attempt(i) != failures.Ended+1 {
			t.Fatalf("Attempt(%d) = %d after %d failures", i, s.Attempt(i), failures.Ended)
		}
	}
	if open+done+dead != s.Tasks || done != s.Done || dead != s.Dead || failed != s.Failed || uint64(len(old)) != s.Done {
		t.Fatalf("job %d, %s: %d open, %d done, %d dead, %d failures, %d winners; the stage says %+v",
			j.ID, s.Name, open, done, dead, failed, len(old), *s)
	}
	for i := range s.FailedTasks(0) {
		failed -= uint64(s.Failures(i).Ended)
	}
	if failed != 0 {
		t.Fatalf("FailedTasks(0) misses %d failures", failed)
	}
}

// snapshot pins a snapshot, and restarts the twin from it.
func (w *world) snapshot(t *rapid.T) {
	w.apply(t)
	s := w.m.Snapshot()
	data := snapshotBytes(t, s)
	w.pinned = append(w.pinned, pinned{s, data})
	twin, err := Restore(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("Restore: %v", err)
	}
	if again := snapshotBytes(t, w.twin.Snapshot()); !bytes.Equal(again, data) {
		t.Fatal("the snapshot of a restarted machine is another")
	}
	w.twin = twin
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func snapshotBytes(t fataler, s *Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v, and wrote %d bytes", n, err, b.Len())
	}
	return b.Bytes()
}

// replay applies the log once more, and looks whether the pinned snapshots have stood still.
func (w *world) replay(t *rapid.T) {
	for i, p := range w.pinned {
		if !bytes.Equal(snapshotBytes(t, p.snapshot), p.bytes) {
			t.Fatalf("snapshot %d of %d, at %d, has changed since it was taken", i+1, len(w.pinned), p.snapshot.Index())
		}
	}
	m := New()
	for i, data := range w.log {
		var out Result
		if err := m.Apply(uint64(i+1), data, &out); err != nil {
			t.Fatalf("Apply: %v", err)
		}
		if !reflect.DeepEqual(out, w.facts[i]) {
			t.Fatalf("entry %d gave other facts the second time\nfirst:  %+v\nsecond: %+v", i+1, w.facts[i], out)
		}
	}
	if !bytes.Equal(snapshotBytes(t, m.Snapshot()), snapshotBytes(t, w.m.Snapshot())) {
		t.Fatal("the same log gave another state the second time")
	}
}
