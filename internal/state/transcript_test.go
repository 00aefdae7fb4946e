package state

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/transcript"
)

// TestTranscripts plays testdata/*.txt, and testdata/level1 and level2 for what needs these feature levels. A file is a story of blocks: commands, a line "----", and what the machine answered;
// an empty line ends a block. The logged commands of one block are one log entry; what shows the state comes after it.
// `go test -update` rewrites the answers.
//
//	at TIME                                     the entry's time, in ms, from here on
//	submit UID [key=K] [tasks=N] [output=DIR | spool=DIR] [user=U] [slots=N] [retries=N] [collect] [keep_partial] [first_success] [max_fails=N[%]] [name=N]
//	       [after=JOB[:any][,…]]                or +N: job N of the same submission
//	       [deferred]                           its input is planned when those have ended
//	       [lock=NAME[:shared][,…]] [read=LOCATION[,…]] [overwrite] [fail_on_conflict] [priority=N]
//	       [with_next]                          the next submit is part of the same submission
//	       [plan=NAME:ROLE[:FROM[.FROM…]][,…]]  instead of the default one
//	       [files=SIZE[,…] [split=N] [growing]] modified at 1; SIZE+SIZE are files that share a task
//	input JOB [tasks=N | staged=N | message]    sets a deferred input, or fails the job
//	stop|retry|forget JOB                       each takes [key=K]; a retry also [fence=L] [lost=STAGE:FIRST:TASKS,…] and changed files, each TASK:SIZE:TIME[:FILE]
//	grow JOB [files=SIZE[,…]] [blocks=N] [last] adds files behind N blocks; the default is all of the input's
//	done JOB/STAGE worker=W TASK:LEASE[:SIZE[:RECORDS[:READ[:STARTED[:MILLIS]]]]] …
//	lost JOB/STAGE/TASK lease=L [fence=L] [worker=N] [WHY]   the output of that lease cannot be read any more
//	failed JOB/STAGE/TASK KIND [worker=W] [lease=L] [message]
//	done and failed with others=yes             other attempts of the job may run
//	stage UID BLOCKS [staged=N] [key=K]         stages so many blocks after N; submit takes them by staged=N
//	unstage UID [key=K] · staged                the latter is not logged: shows what is staged
//	lock HOLDER NAME[:shared] … [user=U] [max=N] [ttl=MS] [no_wait] [note=T] [key=K] · unlock HOLDER NAME … [user=U] [key=K]
//	expire ID … · withdraw ID [key=K] · raise_fence N
//	locks                                       not logged: shows the requests for locks
//	register IDENTITY [host=H]      worker W STATUS
//	quarantine W [WHY]                          without a reason: it has ended
//	token ID [role=R] [user=U] [expires=T] · revoke_token ID
//	enroll FINGERPRINT [role=R] [name=N] · revoke_machine FINGERPRINT
//	authority N · drop_authority N
//	quota USER [slots=N] [jobs=N] [weight=N] · remove_quota USER
//	access                                      not logged: shows who may use the cluster
//	raw HEX                                     bytes after the entry's commands
//	job N · jobs · workers                      not logged: shows the state
//	runs JOB/STAGE                              not logged: shows where and when its tasks ran
//	splits JOB                                  not logged: shows the splits and their files' versions
//	history [INDEX-SEQ]                         not logged: shows the facts after a position
//	restore                                     not logged: goes on from a snapshot, in a new machine
func TestTranscripts(t *testing.T) {
	for _, dir := range []string{"testdata", "testdata/level1", "testdata/level2"} {
		transcript.Run(t, dir, func(t *testing.T) func([][]string) string {
			t.Helper()
			return (&story{t: t, m: latest()}).block
		})
	}
}

// TestTranscriptsAtLevel0 gives the same commands to a machine that writes and reads version 1.
func TestTranscriptsAtLevel0(t *testing.T) {
	for _, dir := range []string{"testdata", "testdata/level0"} {
		transcript.Run(t, dir, func(t *testing.T) func([][]string) string {
			t.Helper()
			return (&story{t: t, m: New()}).block
		})
	}
}

// story is the state of one transcript.
type story struct {
	t    testing.TB
	m    *Machine
	time int64
	out  Result

	together []Submission // with the next submit
	sums     []uint64     // of these
}

// play answers every block of text.
// block runs the commands of one block.
func (s *story) block(commands [][]string) string {
	var shows []func() string
	entry := NewEntry(s.time, s.m.Level())
	for _, words := range commands {
		switch words[0] {
		case "at":
			s.time = int64(s.number(words[1]))
			entry = NewEntry(s.time, s.m.Level())
		case "job":
			shows = append(shows, func() string { return s.job(JobID(s.number(words[1]))) })
		case "runs":
			shows = append(shows, func() string { return s.runs(s.numbers(words[1], "/")) })
		case "splits":
			shows = append(shows, func() string { return s.splits(JobID(s.number(words[1]))) })
		case "jobs":
			shows = append(shows, func() string { return fmt.Sprintf("jobs %v, live %v\n", s.m.Jobs(), s.m.Live()) })
		case "staged":
			shows = append(shows, s.staged)
		case "locks":
			shows = append(shows, func() string { return dumpLocks(s.m) })
		case "workers":
			shows = append(shows, s.workers)
		case "access":
			shows = append(shows, s.access)
		case "history":
			shows = append(shows, func() string { return s.history(append(words, "0-0")[1]) })
		case "restore":
			shows = append(shows, s.restore)
		default:
			s.command(entry, words)
		}
	}
	var b strings.Builder
	if entry.Size() > NewEntry(s.time, s.m.Level()).Size() {
		if err := s.m.Apply(s.m.Index()+1, entry.Data(), &s.out); err != nil {
			fmt.Fprintf(&b, "error: %v\n", err)
		}
		b.WriteString(s.facts())
	}
	for _, show := range shows {
		b.WriteString(show())
	}
	return b.String()
}

func (s *story) staged() string {
	var b strings.Builder
	for i := range s.m.staged {
		fmt.Fprintf(&b, "%s: %d blocks, at %d\n", s.m.staged[i].uid, len(s.m.staged[i].blocks), s.m.staged[i].time)
	}
	return b.String()
}

func (s *story) splits(id JobID) string {
	var b strings.Builder
	in := &s.m.Job(id).Spec.Input
	fmt.Fprintf(&b, "%d bytes\n", in.Bytes)
	r := NewInputReader(in)
	for i := range in.Tasks {
		split, err := r.Split(i)
		files := split.Files
		if files == nil {
			files = []Split{split}
		}
		for _, f := range files {
			fmt.Fprintf(&b, "  %d %s at %d, %d bytes, whole %v, of %d modified at %d %v\n", i, f.Path, f.Offset, f.Length, f.Whole,
				f.Version.Size, f.Version.Modified, err)
		}
	}
	return b.String()
}

func (s *story) workers() string {
	var b strings.Builder
	for _, id := range s.m.Workers() {
		w := s.m.Worker(id)
		fmt.Fprintf(&b, "worker %d %v %s on %q\n", id, w.Status, w.Identity, w.Host)
	}
	return b.String()
}

// access shows who may use the cluster.
func (s *story) access() string {
	var b strings.Builder
	for _, t := range s.m.Access().Tokens() {
		fmt.Fprintf(&b, "token %s: %s %s, created %d, expires %d\n", t.ID, t.Role, t.User, t.Created, t.Expires)
	}
	for _, e := range s.m.Access().Enrolments() {
		fmt.Fprintf(&b, "%s %s %s: enrolled %d, renewed %d, revoked %d\n", e.Role, e.Fingerprint, e.Name, e.Enrolled, e.Renewed, e.Revoked)
	}
	for _, q := range s.m.Access().Quotas().All() {
		fmt.Fprintf(&b, "quota of %s: %d slots, %d jobs, weight %d\n", q.User, q.Slots, q.Jobs, q.Weight)
	}
	for _, a := range s.m.Access().Authorities() {
		fmt.Fprintf(&b, "authority %d: created %d\n", a.Number, a.Created)
	}
	return b.String()
}

// history shows the facts after a position.
func (s *story) history(after string) string {
	n := s.numbers(after, "-")
	facts, ok := s.m.FactsAfter(Position{Index: n[0], Seq: uint32(n[1])})
	if !ok {
		return "some facts after that are no longer known\n"
	}
	var b strings.Builder
	for i, line := range dumpFacts(facts) {
		fmt.Fprintf(&b, "%d-%d %s\n", facts[i].Index, facts[i].Seq, line)
	}
	return b.String()
}

// command adds a logged command to e.
func (s *story) command(e *Entry, words []string) {
	list, set := transcript.Options(words[1:])
	switch words[0] {
	case "submit":
		spec := &Spec{
			Name: set["name"], Output: set["output"], Retries: uint32(s.number(set["retries"])),
			Collect: slices.Contains(list, "collect"), KeepPartial: slices.Contains(list, "keep_partial"),
			FirstSuccess: slices.Contains(list, "first_success"), User: set["user"], SlotsPerTask: uint32(s.number(set["slots"])),
		}
		if n, percent := strings.CutSuffix(set["max_fails"], "%"); n != "" {
			spec.MaxFails = &FailLimit{s.number(n), percent}
		}
		if set["after"] != "" {
			for word := range strings.SplitSeq(set["after"], ",") {
				id, however := strings.CutSuffix(word, ":any")
				d := Dependency{Any: however}
				if peer, isPeer := strings.CutPrefix(id, "+"); isPeer {
					d.Peer = uint32(s.number(peer))
				} else {
					d.Job = JobID(s.number(id))
				}
				spec.After = append(spec.After, d)
			}
		}
		spec.Overwrite, spec.FailOnConflict = slices.Contains(list, "overwrite"), slices.Contains(list, "fail_on_conflict")
		spec.Priority, spec.Locks = uint32(s.number(set["priority"])), storyLocks(strings.Split(set["lock"], ","))
		for _, n := range storyLocks(strings.Split(set["read"], ",")) {
			spec.Data = append(spec.Data, LockName{Name: n.Name, Shared: true})
		}
		if slices.Contains(list, "deferred") {
			spec.Deferred = &Deferred{Split: 10}
		}
		if n := s.number(set["tasks"]); n > 0 {
			spec.Input = Input{Kind: InputRange, Tasks: n, From: 1}
		}
		if set["files"] != "" { // sizes; the time of each is 1
			files := NewFiles(s.number(set["split"]))
			n := 0
			for sizes := range strings.SplitSeq(set["files"], ",") {
				var pack []Split
				for size := range strings.SplitSeq(sizes, "+") {
					pack = append(pack, Split{Path: fmt.Appendf(nil, "file%d", n), Version: Version{Size: s.number(size), Modified: 1}})
					n++
				}
				if len(pack) > 1 {
					files.Pack(pack)
				} else {
					files.AddFile(pack[0].Path, pack[0].Version, false)
				}
			}
			spec.Input, _ = files.Input()
			spec.Input.Growing = slices.Contains(list, "growing")
		}
		if set["spool"] != "" {
			spec.Spool, spec.Output = true, set["spool"]
		}
		if set["plan"] != "" {
			spec.Stages = s.plan(set["plan"], max(1, spec.Input.Tasks))
		}
		if n := s.number(set["staged"]); n > 0 {
			spec.Input = Input{Kind: InputLines, Tasks: 3 * n, Blocks: s.blocks(n, 0)}
		}
		sub := Submission{UID: list[0], Spec: spec, Staged: s.number(set["staged"])}
		s.together, s.sums = append(s.together, sub), append(s.sums, spec.RequestSum(""))
		switch {
		case slices.Contains(list, "with_next"):
			return
		case len(s.together) > 1:
			e.SubmitAll(set["key"], RequestSums(s.sums), s.together)
		case sub.Staged > 0:
			e.SubmitStaged(set["key"], list[0], s.sums[0], spec)
		default:
			e.Submit(set["key"], list[0], "", spec)
		}
		s.together, s.sums = nil, nil
	case "input":
		job := s.m.Job(JobID(s.number(list[0])))
		tasks, staged := s.number(set["tasks"]), s.number(set["staged"])
		switch {
		case tasks > 0:
			e.SetInput(set["key"], job, Input{Kind: InputRange, Tasks: tasks, From: 1}, 0, 0)
		case staged > 0:
			e.SetInput(set["key"], job, Input{Kind: InputLines, Tasks: 3 * staged, Blocks: s.blocks(staged, 0)}, staged, 0)
		default:
			e.FailInput(set["key"], job, strings.Join(list[1:], " "))
		}
	case "stage":
		staged := s.number(set["staged"])
		e.Stage(set["key"], list[0], int(staged), s.blocks(staged+s.number(list[1]), staged))
	case "unstage":
		e.Unstage(set["key"], list[0])
	case "lock":
		op := LockOp{
			Holder: list[0], User: set["user"], Max: uint32(s.number(set["max"])), TTLMS: 30_000, Note: set["note"], NoWait: slices.Contains(list, "no_wait"),
			Names: storyLocks(slices.DeleteFunc(list[1:], func(word string) bool { return word == "no_wait" })),
		}
		if set["ttl"] != "" {
			op.TTLMS = s.number(set["ttl"])
		}
		e.Lock(set["key"], op)
	case "unlock":
		e.Lock(set["key"], LockOp{Release: true, Holder: list[0], User: set["user"], Names: storyLocks(list[1:])})
	case "expire":
		var ids []LockID
		for _, word := range list {
			ids = append(ids, LockID(s.number(word)))
		}
		e.Expire(set["key"], ids...)
	case "withdraw":
		e.Withdraw(set["key"], LockID(s.number(list[0])))
	case "quarantine":
		e.Quarantine(WorkerID(s.number(list[0])), strings.Join(list[1:], " "))
	case "raise_fence":
		e.RaiseFence(s.number(list[0]))
	case "stop":
		e.Stop(set["key"], JobID(s.number(list[0])))
	case "retry":
		var changed []FileChange
		var lost []OutputRange
		for word := range strings.SplitSeq(set["lost"], ",") { // stage:first:tasks
			if word != "" {
				n := s.numbers(word, ":")
				lost = append(lost, OutputRange{Stage: uint32(n[0]), First: n[1], Tasks: n[2]})
			}
		}
		for _, word := range list[1:] { // task:size:time
			n := append(s.numbers(word, ":"), 0)
			changed = append(changed, FileChange{Task: n[0], File: n[3], Version: Version{Size: n[1], Modified: int64(n[2])}})
		}
		e.Fence = s.lease(set["fence"])
		e.RetryLost(set["key"], JobID(s.number(list[0])), lost, changed...)
	case "grow":
		id, b := JobID(s.number(list[0])), NewFiles(0)
		for size := range strings.SplitSeq(set["files"], ",") {
			if size == "" {
				break // the end of the input may come alone
			}
			b.AddFile(fmt.Appendf(nil, "piece%s", size), Version{Size: s.number(size), Modified: 1}, false)
		}
		blocks := int(s.number(set["blocks"]))
		if set["blocks"] == "" && s.m.Job(id) != nil {
			blocks = len(s.m.Job(id).Spec.Input.Blocks)
		}
		e.Grow(set["key"], id, blocks, mustInput(s.t, b), slices.Contains(list, "last"))
	case "forget":
		e.Forget(set["key"], JobID(s.number(list[0])))
	case "done":
		path := s.numbers(list[0], "/")
		var batch []Completion
		for _, word := range list[1:] {
			task, rest, _ := strings.Cut(word, ":")
			lease, rest, _ := strings.Cut(rest, ":")
			n := append(s.numbers(rest, ":"), 0, 0, 0, 0, 0)
			c := Completion{
				Index: s.number(task), Lease: s.lease(lease), Size: n[0], Records: n[1], InputBytes: n[2], Started: uint32(n[3]), Millis: uint32(n[4]),
			}
			c.Checksum = c.Size * 0x0101
			batch = append(batch, c)
		}
		e.Others = set["others"] != ""
		e.Done(WorkerID(s.number(set["worker"])), JobID(path[0]), uint32(path[1]), batch)
	case "lost":
		path := s.numbers(list[0], "/")
		e.Fence = s.lease(set["fence"])
		e.OutputLost(JobID(path[0]), uint32(path[1]), path[2], s.lease(set["lease"]), WorkerID(s.number(set["worker"])), strings.Join(list[1:], " "))
	case "failed":
		path := s.numbers(list[0], "/")
		kind := ProgramError
		for kind < failureKinds && kind.String() != list[1] {
			kind++
		}
		e.Others = set["others"] != ""
		e.Failed(JobID(path[0]), uint32(path[1]), path[2], Failure{
			Kind: kind, Worker: WorkerID(s.number(set["worker"])), Lease: s.lease(set["lease"]), Message: strings.Join(list[2:], " "),
			WaitMS: s.number(set["wait"]), Cancel: set["cancel"] != "",
		}, nil)

	case "register":
		e.Register(set["key"], &WorkerInfo{Identity: list[0], Host: set["host"]})
	case "worker":
		status := WorkerAlive
		for status <= WorkerRemoved && status.String() != list[1] {
			status++
		}
		e.SetWorker(set["key"], WorkerID(s.number(list[0])), status)
	case "token":
		e.PutToken(set["key"], &Token{ID: list[0], Role: set["role"], User: set["user"], Expires: int64(s.number(set["expires"]))})
	case "revoke_token":
		e.RevokeToken(set["key"], list[0])
	case "enroll":
		e.Enroll(set["key"], &Enrolment{Fingerprint: list[0], Role: set["role"], Name: set["name"]})
	case "revoke_machine":
		e.RevokeMachine(set["key"], list[0])
	case "authority":
		e.PutAuthority(set["key"], &Authority{Number: s.number(list[0]), Certificate: []byte("certificate")})
	case "quota":
		e.SetQuota(set["key"], Quota{
			User: list[0], Slots: uint32(s.number(set["slots"])), Jobs: uint32(s.number(set["jobs"])), Weight: uint32(s.number(set["weight"])),
		})
	case "remove_quota":
		e.RemoveQuota(set["key"], list[0])
	case "drop_authority":
		e.DropAuthority(set["key"], s.number(list[0]))
	case "raw":
		for _, word := range list {
			v, err := strconv.ParseUint(word, 16, 8)
			if err != nil {
				s.t.Fatal(err)
			}
			e.enc.buf = append(e.enc.buf, byte(v))
		}
	default:
		s.t.Fatalf("unknown command %q", words)
	}
}

// blocks are blocks from number first up to n of a list of lines, three each.
func (s *story) blocks(n, first uint64) []Block {
	b := NewLines()
	for i := range n {
		for k := range 3 {
			b.AddLine(fmt.Appendf(nil, "line %d", 3*i+uint64(k)))
		}
		b.flush()
	}
	in := mustInput(s.t, b)
	return in.Blocks[first:]
}

// reducers is the number of tasks of a reduce stage.
const reducers = 2

// plan reads the stages of a plan, whose map stages have so many tasks.
func (s *story) plan(text string, tasks uint64) (plan []StageSpec) {
	roles := map[string]StageRole{RoleMap.String(): RoleMap, RoleCollect.String(): RoleCollect, RoleCommit.String(): RoleCommit, RoleReduce.String(): RoleReduce, RoleCheck.String(): RoleCheck}
	for word := range strings.SplitSeq(text, ",") {
		parts := append(strings.Split(word, ":"), "")
		stage := StageSpec{Name: parts[0], Role: roles[parts[1]], Tasks: 1}
		if stage.Role == RoleMap {
			stage.Tasks = tasks
		}
		if stage.Role == RoleReduce {
			stage.Tasks = reducers
		}
		if parts[2] != "" {
			for _, n := range s.numbers(parts[2], ".") {
				stage.From = append(stage.From, uint32(n))
			}
		}
		plan = append(plan, stage)
	}
	return plan
}

func (s *story) number(word string) uint64 {
	if word == "" {
		return 0
	}
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *story) numbers(word, sep string) []uint64 {
	var list []uint64
	for part := range strings.SplitSeq(word, sep) {
		list = append(list, s.number(part))
	}
	return list
}

// lease reads TERM.SEQ.
func (s *story) lease(word string) Lease {
	term, seq, _ := strings.Cut(word, ".")
	return NewLease(s.number(term), s.number(seq))
}

func leaseName(l Lease) string { return fmt.Sprintf("%d.%d", l.Term(), uint64(l)&(1<<leaseSeqBits-1)) }

// facts writes down what the last Apply has answered.
func (s *story) facts() string {
	var b strings.Builder
	for _, v := range s.out.Verdicts {
		word := "loses"
		if v.Won {
			word = "wins"
		}
		fmt.Fprintf(&b, "%d/%d lease %s of worker %d %s\n", v.Job, v.Stage, leaseName(v.Lease), v.Worker, word)
	}
	for _, e := range s.out.Events {
		b.WriteString(factLine(e) + "\n")
	}
	return b.String()
}

func factLine(e Event) string {
	task := fmt.Sprintf("task %d/%d/%d", e.Job, e.Stage, e.Task)
	switch e.Kind {
	case JobSubmitted:
		return fmt.Sprintf("job %d submitted", e.Job)
	case StageStarted:
		return fmt.Sprintf("job %d stage %d started", e.Job, e.Stage)
	case Audited: // only in the history
	case QuotasChanged:
		return "quotas changed"
	case InputDue:
		return fmt.Sprintf("job %d needs its input planned", e.Job)
	case JobWaits:
		return fmt.Sprintf("job %d waits", e.Job)
	case StageGrown:
		return fmt.Sprintf("job %d stage %d has grown", e.Job, e.Stage)
	case StageEnded:
		return fmt.Sprintf("job %d stage %d ended", e.Job, e.Stage)
	case TaskLost:
		return fmt.Sprintf("%s open again: the output of lease %s is lost", task, leaseName(e.Lease))
	case TaskReopened:
		return fmt.Sprintf("%s reopened: %v number %d, lease %s of worker %d", task, e.Fault, e.Count, leaseName(e.Lease), e.Worker)
	case TaskDied:
		return fmt.Sprintf("%s died: %v, lease %s of worker %d", task, e.Fault, leaseName(e.Lease), e.Worker)
	case JobEnding:
		return fmt.Sprintf("job %d is ending", e.Job)
	case JobEnded:
		return fmt.Sprintf("job %d ended", e.Job)
	case JobForgotten:
		return strings.TrimSpace(fmt.Sprintf("job %d forgotten %s", e.Job, e.Output))
	case WorkerJoined:
		return fmt.Sprintf("worker %d joined", e.Worker)
	case WorkerChanged:
		return fmt.Sprintf("worker %d changed", e.Worker)
	case WorkerQuarantined:
		return fmt.Sprintf("worker %d is quarantined: %s", e.Worker, e.Message)
	case WorkerReleased:
		return fmt.Sprintf("worker %d is released", e.Worker)
	case LockHeld, LockWaiting, LockGone, LockOver:
		return lockLine(&e)
	case PriorityChanged:
		return fmt.Sprintf("job %d has another priority", e.Job)
	case RequestApplied:
		if e.Err != nil {
			return fmt.Sprintf("%q refused: %v", e.Key, e.Err)
		}
		if e.Locks != nil {
			return fmt.Sprintf("%q applied: %s", e.Key, lockAnswers(e.Locks))
		}
		return fmt.Sprintf("%q applied: job %d, worker %d", e.Key, e.Job, e.Worker)
	}
	return fmt.Sprintf("event of kind %d", e.Kind)
}

// job shows all there is of a job.
func (s *story) job(id JobID) string {
	j := s.m.Job(id)
	if j == nil {
		return fmt.Sprintf("job %d: none\n", id)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "job %d %v; created %d, started %d, ended %d; read %d, wrote %d, records %d\n",
		id, j.Status, j.Created, j.Started, j.Ended, j.ReadBytes, j.OutputBytes, j.Records)
	if j.Error != "" {
		fmt.Fprintf(&b, "  error: %s\n", j.Error)
	}
	actions := [...]string{"", " publish", " publish partially", " abort"}
	for i, stage := range j.Stages {
		mark, closed := " ", ""
		if j.Ready(i) {
			mark = ">"
		}
		if stage.Closed {
			closed = ", closed"
		}
		if stage.Fence != 0 {
			closed += ", fence " + leaseName(stage.Fence)
		}
		fmt.Fprintf(&b, "%s %d %v%s: %d tasks, %d done, %d dead, %d failures%s\n",
			mark, i, stage.Name, actions[stage.Action], stage.Tasks, stage.Done, stage.Dead, stage.Failed, closed)
		for k := range stage.Tasks {
			failures := stage.Failures(k)
			if stage.Status(k) == TaskOpen && failures.Ended == 0 {
				continue
			}
			fmt.Fprintf(&b, "    %d %v", k, stage.Status(k))
			if out, ok := stage.Output(k); ok {
				fmt.Fprintf(&b, ", lease %s, %d bytes, %d records, checksum %d", leaseName(out.Winner), out.Size, out.Records, out.Checksum)
			}
			b.WriteString("\n")
			for _, f := range failures.Last {
				fmt.Fprintf(&b, "      #%d %v at %d, lease %s of worker %d: %s\n", f.Attempt, f.Kind, f.Time, leaseName(f.Lease), f.Worker, f.Message)
			}
		}
	}
	return b.String()
}

// runs shows where and when the tasks of a stage ran.
func (s *story) runs(path []uint64) string {
	var b strings.Builder
	stage := s.m.Job(JobID(path[0])).Stages[path[1]]
	for i := range stage.Tasks {
		if out, ok := stage.Output(i); ok {
			fmt.Fprintf(&b, "    %d on worker %d from %d ms on, for %d ms\n", i, out.Worker, out.Started, out.Millis)
		}
	}
	return b.String()
}

// restore replaces the machine by one that was read from its snapshot.
func (s *story) restore() string {
	var b bytes.Buffer
	if _, err := s.m.Snapshot().WriteTo(&b); err != nil {
		s.t.Fatal(err)
	}
	m, err := Restore(&b)
	if err != nil {
		s.t.Fatal(err)
	}
	s.m = m
	return fmt.Sprintf("restored at %d: %d jobs, %d workers\n", m.Index(), len(m.Jobs()), len(m.Workers()))
}

// storyLocks are names, each of which may end in ":shared".
func storyLocks(words []string) (names []LockName) {
	for _, word := range words {
		if name, shared := strings.CutSuffix(word, ":shared"); word != "" {
			names = append(names, LockName{Name: name, Shared: shared})
		}
	}
	return names
}

func lockLine(e *Event) string {
	of := ""
	if e.Job > 0 {
		of = fmt.Sprintf(" of job %d", e.Job)
	}
	switch e.Kind { //nolint:exhaustive // of locks
	case LockOver:
		return fmt.Sprintf("request %d%s is over", e.Lock, of)
	case LockHeld:
		return fmt.Sprintf("request %d%s is held", e.Lock, of)
	case LockWaiting:
		return fmt.Sprintf("request %d%s waits", e.Lock, of)
	}
	return strings.TrimSpace(fmt.Sprintf("request %d%s has gone: %v %s", e.Lock, of, e.Reason, e.Message))
}

func lockAnswers(list []LockAnswer) string {
	var parts []string
	for _, a := range list {
		switch {
		case a.Err != nil:
			parts = append(parts, "refused: "+a.Err.Message)
		case a.ID == 0:
			parts = append(parts, "released")
		case a.Fence == 0:
			parts = append(parts, fmt.Sprintf("request %d waits", a.ID))
		default:
			parts = append(parts, fmt.Sprintf("request %d, fence %d", a.ID, a.Fence))
		}
	}
	return strings.Join(parts, "; ")
}

// dumpLocks writes down the requests for locks in their order.
func dumpLocks(m *Machine) string {
	var b strings.Builder
	for l := range m.Locks() {
		names := lockNamesText(l.Names())
		state := fmt.Sprintf("waits for %d", l.Place())
		if l.Held() {
			state = fmt.Sprintf("fence %d", l.Fence)
		}
		if l.Over {
			state += ", over"
		} else if l.Job != 0 {
			state += fmt.Sprintf(", priority %d", l.inherited)
		}
		fmt.Fprintf(&b, "request %d of %s: %s, max %d, since %d %s\n", l.ID, l.text(), names, l.Max, l.Since, state)
	}
	return b.String()
}

// lockNamesText sorts and joins names.
func lockNamesText(list []LockName) string {
	var names []string
	for _, n := range list {
		text := n.Name
		if n.Shared {
			text += ":shared"
		}
		if n.Data {
			text = "data " + text
		}
		names = append(names, text)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
