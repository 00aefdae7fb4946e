package plan

import (
	"strings"

	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/state"
)

// partitionsMax is the maximum number of partitions unless requested otherwise.
const partitionsMax = 1024

// line plans the stages that read input or what stages before them have written, but for the numbers of tasks that follow from the input.
func (p *planner) line() {
	program := &p.req.Program
	line := []stage.Stage{{Name: "map"}}
	switch {
	case program.Builtin != "":
		line = p.builtin(program.Builtin)
	case program.Reduce != "":
		line = append(line, stage.Stage{Name: "reduce"})
	}
	chosen := false // the partitions of a stage
	for i, s := range line {
		spec := state.StageSpec{Name: s.Name, Tasks: uint64(max(0, s.Partitions)), Ranges: i > 0 && s.Partition == stage.ByRange}
		if i > 0 && spec.Tasks == 0 {
			chosen = true
			spec.Tasks, spec.Fitted = uint64(max(0, p.req.Partitions)), p.req.Partitions == 0
		}
		p.result.Stages = append(p.result.Stages, spec)
	}
	p.reduce(chosen)
}

// reduce validates what a request says of the stages after the first. Chosen: one of them has the partitions of the request.
func (p *planner) reduce(chosen bool) {
	line, combine, reduces := p.req.Program.Reduce, p.req.Program.Combine, len(p.result.Stages) > 1
	switch {
	case combine != "" && line == "":
		p.fail("program.combine", "what it writes is for a reduce: give its command line (--reduce)")
	case combine != "" && (strings.TrimSpace(combine) == "" || strings.Contains(combine, "\x00")):
		p.fail("program.combine", "the command line is empty, or contains a NUL byte")
	case line != "" && p.req.Program.Builtin != "":
		p.fail("program.reduce", "the reduce of a command; built-in jobs have stages of their own")
	case line != "" && (strings.TrimSpace(line) == "" || strings.Contains(line, "\x00")):
		p.fail("program.reduce", "the command line is empty, or contains a NUL byte")
	case !reduces && p.req.Partitions != 0 && p.req.Program.Builtin != "":
		p.fail("partitions", "partitions are those of a stage that reduces; %s has none", p.req.Program.Builtin)
	case !reduces && p.req.Partitions != 0:
		p.fail("partitions", "partitions are those of a reduce: give its command line (--reduce)")
	case !reduces:
	case p.result.FirstSuccess:
		p.fail("first_success", "a job with a reduce needs the outputs of all its tasks")
	case p.req.NameParts != "":
		p.fail("name_parts", "the parts of a reduce are partitions of the keys, and have no input to be named by")
	case !chosen && p.req.Partitions != 0:
		p.fail("partitions", "partitions are those of a stage that reduces; the number of those of %s is fixed", p.req.Program.Builtin)
	case p.req.Partitions < 0 || p.req.Partitions > state.PartitionsMax:
		p.fail("partitions", "%d partitions; want 1 to %d, or 0 for a number that fits the input", p.req.Partitions, state.PartitionsMax)
	}
}

// fitted reports whether the tasks of a stage follow from the size of the input.
func (p *planner) fitted() bool {
	for i := range p.result.Stages {
		if p.result.Stages[i].Fitted {
			return true
		}
	}
	return false
}

// partitions is the number of partitions that fits the input: one for each default split.
func (p *planner) partitions() uint64 {
	return min(max(1, p.result.Input.Bytes/p.opt.DefaultSplit), partitionsMax)
}

// stages completes the plan once the input is known.
func (p *planner) stages() {
	line := p.result.Stages
	line[0].Tasks = max(1, p.result.Input.Tasks)
	for i := range line {
		if line[i].Fitted {
			line[i].Tasks = p.partitions()
		}
	}
	var ends []state.StageRole
	if p.result.Collects {
		ends = append(ends, state.RoleCollect)
	}
	switch {
	case p.result.Output != "":
		ends = append(ends, state.RoleCommit)
	case p.opt.Check:
		ends = append(ends, state.RoleCheck)
	}
	p.result.Stages = state.LinePlan(line, ends...)
}
