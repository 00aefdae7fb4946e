package plan

import (
	"strings"

	"github.com/bridgefour/bridgefour/internal/state"
)

// partitionsMax is the maximum number of partitions unless requested otherwise.
const partitionsMax = 1024

// reduce validates the command line of the reduce stage.
func (p *planner) reduce() {
	line := p.req.Program.Reduce
	switch {
	case line == "" && p.req.Partitions != 0:
		p.fail("partitions", "partitions are those of a reduce: give its command line (--reduce)")
	case line == "":
		return
	case strings.TrimSpace(line) == "" || strings.Contains(line, "\x00"):
		p.fail("program.reduce", "the command line is empty, or contains a NUL byte")
	case p.req.Program.Builtin != "":
		p.fail("program.reduce", "the reduce of a command; built-in jobs have stages of their own")
	case p.req.FirstSuccess:
		p.fail("first_success", "a job with a reduce needs the outputs of all its tasks")
	case p.req.NameParts != "":
		p.fail("name_parts", "the parts of a reduce are partitions of the keys, and have no input to be named by")
	case p.req.Partitions < 0 || p.req.Partitions > state.PartitionsMax:
		p.fail("partitions", "%d partitions; want 1 to %d, or 0 for a number that fits the input", p.req.Partitions, state.PartitionsMax)
	}
}

// partitions is the number of partitions: as requested, or one for each default split of the input.
func (p *planner) partitions() uint64 {
	if p.req.Partitions > 0 {
		return uint64(p.req.Partitions)
	}
	return min(max(1, p.result.Input.Bytes/p.opt.DefaultSplit), partitionsMax)
}
