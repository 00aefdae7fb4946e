package worker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/commit"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// ended is the result of an attempt of a commit or a check stage, which has returned err.
func (s *stages) ended(ctx context.Context, job *wire.Job, stage *wire.Stage, err error) core.Result {
	switch {
	case err == nil:
		return core.Result{}
	case ctx.Err() != nil:
		return core.Result{Canceled: true}
	}
	if gone, ok := errors.AsType[*commit.LostError](err); ok {
		return core.Result{Canceled: true, Lost: s.lost(job, stage, gone)}
	}
	kind := wire.FailureKind_OUTPUT_ERROR
	if _, occupied := errors.AsType[*commit.OccupiedError](err); occupied {
		kind = wire.FailureKind_BAD_INPUT // there is another output: a retry would fail as well
	}
	return core.Result{Failure: &wire.Failure{Kind: kind, Message: wire.FailureMessage(err.Error())}}
}

// lostTextsMax bounds how many parts that are lost are described.
const lostTextsMax = 1000

// lost reports the outputs that such a stage has not found as their tasks wrote them.
func (s *stages) lost(job *wire.Job, stage *wire.Stage, gone *commit.LostError) (list []*wire.OutputLost) {
	for i := range gone.Lost {
		p := &gone.Lost[i]
		lease, _ := layout.Lease(p.File)
		o := &wire.OutputLost{Job: job.GetId(), Stage: partStage(job, stage), Index: p.Index, Lease: lease}
		if p.Result {
			o.Stage = resultStage(job, stage)
		}
		if i < lostTextsMax {
			o.Message = wire.FailureMessage(fmt.Sprintf("output %q of task %d %s (on %s)", attemptFolder(job).Join(p.File), p.Index, p.What, s.users.Host))
		}
		list = append(list, o)
	}
	return list
}

// open opens the output folder of a job as its user.
func (s *stages) open(job *wire.Job) (blob.Store, blob.Location, error) {
	access, err := s.users.Of(job)
	if err != nil {
		return nil, "", err
	}
	return access.Outputs.Open(job.GetOutput())
}

// check runs a check stage. What a task has not written has no file.
func (s *stages) check(ctx context.Context, job *wire.Job, stage *wire.Stage) error {
	store, dir, err := s.open(job)
	if err != nil {
		return err
	}
	return commit.Check(ctx, store, commit.Output{Dir: dir, UID: job.GetUid()}, s.winners(ctx, job, stage, true))
}

// commit runs a commit stage: the only place where an output becomes visible.
func (s *stages) commit(ctx context.Context, job *wire.Job, stage *wire.Stage, action wire.CommitAction) error {
	store, dir, err := s.open(job)
	if err != nil {
		return err
	}
	out := commit.Output{Dir: dir, UID: job.GetUid(), Overwrite: job.GetOverwrite(), Manifest: manifest(job)}
	switch action {
	case wire.CommitAction_ABORT:
		return commit.Abort(ctx, store, out)
	case wire.CommitAction_COMMIT, wire.CommitAction_COMMIT_PARTIAL:
		out.Partial = action == wire.CommitAction_COMMIT_PARTIAL
	case wire.CommitAction_COMMIT_ACTION_UNSPECIFIED:
		return fmt.Errorf("commit of job %d: no action given", job.GetId())
	default:
		return fmt.Errorf("commit of job %d: unknown action %d: upgrade this worker to the version of the leader", job.GetId(), action)
	}
	// The list is read three times, because it may be too long for memory: first for the head of the manifest, and last for what the tasks read. An output that is not
	// partial lacks no part: then the first page is enough.
	var tasks, next uint64
	for p, err := range s.leader.parts(ctx, &wire.PartsRequest{Job: job.GetId(), Stage: partStage(job, stage)}, &tasks) {
		if err != nil {
			return err
		}
		if !out.Partial {
			break
		}
		out.Manifest.Missing = appendRange(out.Manifest.Missing, next, p.index)
		next = p.index + 1
	}
	if out.Partial {
		out.Manifest.Missing = appendRange(out.Manifest.Missing, next, tasks)
	}
	out.Tasks = tasks
	out.Inputs = s.partInputs(ctx, job, stage)
	out.Manifest.Ended = time.Now().UTC()
	_, err = commit.Publish(ctx, store, out, s.winners(ctx, job, stage, false))
	return err
}

func appendRange(list []uint64, from, to uint64) []uint64 {
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}

// partStage is the stage whose outputs a commit stage publishes as parts: the last that it comes from and that is no collect. A check stage likewise.
func partStage(job *wire.Job, stage *wire.Stage) (number uint32) {
	for _, from := range stage.GetFrom() {
		if wire.StageOf(job, from).GetRole() != wire.StageRole_STAGE_COLLECT {
			number = from
		}
	}
	return number
}

// resultStage is the collect stage that a commit stage comes from.
func resultStage(job *wire.Job, stage *wire.Stage) (number uint32) {
	for _, from := range stage.GetFrom() {
		if wire.StageOf(job, from).GetRole() == wire.StageRole_STAGE_COLLECT {
			number = from
		}
	}
	return number
}

// winners is the parts of a job and its collected result; written: only those that are not empty.
func (s *stages) winners(ctx context.Context, job *wire.Job, stage *wire.Stage, written bool) iter.Seq2[commit.Part, error] {
	return func(yield func(commit.Part, error) bool) {
		for _, from := range stage.GetFrom() {
			source := wire.StageOf(job, from)
			result := source.GetRole() == wire.StageRole_STAGE_COLLECT
			if !result && from != partStage(job, stage) {
				continue
			}
			req := &wire.PartsRequest{Job: job.GetId(), Stage: from, Host: s.users.Host, Names: !result && job.GetNameParts() != "", Written: written}
			for p, err := range s.leader.parts(ctx, req, nil) {
				part := commit.Part{
					Result: result, Index: p.index, Size: p.size, Records: p.records, Checksum: p.checksum, Name: p.name,
					Maker: p.maker, File: layout.Attempt(source.GetName(), p.index, p.lease),
				}
				if !yield(part, err) || err != nil {
					return
				}
			}
		}
	}
}

// partInputs is what the tasks of the parts read, for the manifest.
func (s *stages) partInputs(ctx context.Context, job *wire.Job, stage *wire.Stage) iter.Seq2[commit.Input, error] {
	return func(yield func(commit.Input, error) bool) {
		for p, err := range s.leader.parts(ctx, &wire.PartsRequest{Job: job.GetId(), Stage: partStage(job, stage), Inputs: true}, nil) {
			if !yield(commit.Input{
				Part: p.index, Name: p.input, Names: p.inputs.GetName(), More: p.inputs.GetMore(), Offset: p.offset, Length: p.length,
			}, err) || err != nil {
				return
			}
		}
	}
}

func manifest(job *wire.Job) api.Manifest {
	m := api.Manifest{
		Job: job.GetId(), Name: job.GetName(), User: job.GetUser(), Program: api.Program{Builtin: job.GetProgram().GetBuiltin(), Reduce: job.GetReduce(), Combine: job.GetCombine()},
		NameParts: job.GetNameParts(), Fence: job.GetFence(), Cluster: job.GetClusterId(), Started: time.UnixMilli(int64(job.GetStartedUnixMs())).UTC(),
	}
	if job.GetStartedUnixMs() == 0 {
		m.Started = time.UnixMilli(int64(job.GetCreatedUnixMs())).UTC()
	}
	argv := job.GetProgram().GetCommand().GetArgv()
	if job.GetProgram().GetCommand().GetShell() && len(argv) > 0 {
		m.Program.Shell = string(argv[len(argv)-1])
		return m
	}
	for _, arg := range argv {
		m.Program.Command = append(m.Program.Command, string(arg))
	}
	return m
}
