package node

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// partsPage is how many tasks one page covers, and so bounds a visit to the goroutine of Run.
const partsPage = 16 << 10

// Parts sends the winners of a stage, page by page, once it is final. Every node that is not behind can do that.
func (n *Node) Parts(req *wire.PartsRequest, rpc grpc.ServerStreamingServer[wire.PartsPage]) error {
	for first := uint64(0); ; first += partsPage {
		page := &wire.PartsPage{}
		var stage *state.Stage
		var spec *state.Spec // constant
		behind := false
		err := n.do(rpc.Context(), func() {
			job := n.loop.controller.Machine().Job(state.JobID(req.GetJob()))
			stage = stageOf(job, req.GetStage())
			if stage != nil && job.Final(int(req.GetStage())) {
				fillParts(page, stage, first, req.GetWritten())
				n.fillMakers(page, stage, req.GetHost())
				spec = job.Spec
			} else {
				behind = stage != nil || !n.loop.controller.Leading()
			}
		})
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		switch {
		case behind && stage != nil:
			return status.Errorf(codes.Unavailable, "stage %d of job %d is not complete", req.GetStage(), req.GetJob())
		case behind:
			return status.Error(codes.Unavailable, n.notLeader().Error())
		}
		if stage == nil {
			return status.Errorf(codes.NotFound, "job %d has no stage %d", req.GetJob(), req.GetStage())
		}
		if int(req.GetStage()) == spec.PartStage() {
			if err := describeParts(page, spec, req); err != nil {
				return status.Error(codes.Internal, err.Error())
			}
		}
		if err := rpc.Send(page); err != nil {
			return err
		}
		if first+partsPage >= page.GetTasks() {
			return nil
		}
	}
}

// stageOf returns a stage of a job; nil if there is no such job or stage.
func stageOf(job *state.Job, stage uint32) *state.Stage {
	if job == nil || int(stage) >= len(job.Stages) {
		return nil
	}
	return job.Stages[stage]
}

// fillParts lists the winners among the tasks of a page. Written leaves out those without output.
func fillParts(page *wire.PartsPage, stage *state.Stage, first uint64, written bool) {
	page.Tasks = stage.Tasks
	for i := first; i < min(first+partsPage, stage.Tasks); i++ {
		out, done := stage.Output(i)
		if !done {
			if stage.Status(i) == state.TaskDead {
				page.Dead = append(page.Dead, i)
			}
			continue
		}
		if written && out.Size == 0 {
			continue
		}
		page.Index = append(page.Index, i)
		page.Lease = append(page.Lease, uint64(out.Winner))
		page.Size = append(page.Size, out.Size)
		page.Records = append(page.Records, out.Records)
		page.Checksum = append(page.Checksum, out.Checksum)
	}
}

// fillMakers adds where the outputs of a page were made, as seen from a host.
func (n *Node) fillMakers(page *wire.PartsPage, stage *state.Stage, host string) {
	makers := map[state.WorkerID]wire.Maker{}
	for _, i := range page.GetIndex() {
		out, _ := stage.Output(i)
		maker, known := makers[out.Worker]
		if !known {
			switch w := n.loop.controller.Machine().Worker(out.Worker); {
			case out.Worker == 0 || host == "": // of an earlier version
			case w == nil:
				maker = wire.Maker_MAKER_LEFT
			case w.Host == host:
				maker = wire.Maker_MAKER_HERE
			default:
				maker = wire.Maker_MAKER_ELSEWHERE
			}
			makers[out.Worker] = maker
		}
		page.Maker = append(page.Maker, maker)
	}
}

// inputBytesMax bounds the names that a page has of the input of a part.
const inputBytesMax = 1 << 10

// describeParts adds what was asked for of the parts of a page.
func describeParts(page *wire.PartsPage, spec *state.Spec, req *wire.PartsRequest) error {
	names := partname.Of(spec)
	for _, task := range page.GetIndex() {
		if req.GetNames() && spec.NameParts != "" {
			name, err := names.Name(task)
			if err != nil {
				return fmt.Errorf("name of part %d: %w", task, err)
			}
			page.Name = append(page.Name, name)
		}
		if req.GetInputs() && spec.Reads(int(req.GetStage())) {
			describeInput(page, partname.Reads(names.Input(), task))
		}
	}
	return nil
}

// describeInput adds what a task reads.
func describeInput(page *wire.PartsPage, r partname.Reading) {
	list := &wire.InputNames{}
	for i, n, size := 0, r.Len(), 0; i < n; i++ {
		name := r.Name(i)
		if size += len(name); size > inputBytesMax && i > 0 {
			list.More = uint64(n - i)
			break
		}
		if len(name) > inputBytesMax {
			name = name[:inputBytesMax-len("…")] + "…"
		}
		list.Name = append(list.Name, strings.ToValidUTF8(name, "\ufffd"))
	}
	one := ""
	switch {
	case r.Len() > 1:
		for len(page.GetInputs()) < len(page.GetInput()) {
			page.Inputs = append(page.Inputs, &wire.InputNames{})
		}
		page.Inputs = append(page.Inputs, list)
	case r.Len() == 1:
		one = list.GetName()[0]
	}
	page.Input = append(page.Input, one)
	page.InputOffset = append(page.InputOffset, r.Offset)
	page.InputLength = append(page.InputLength, r.Length)
}
