package state

import (
	"errors"
	"fmt"
	"slices"
)

// StageRole is what the tasks of a stage do. Log and snapshots contain the numbers: never renumber.
type StageRole uint8

// The roles of a stage.
const (
	RoleMap     StageRole = iota // run the program, each task on one split of the input
	RoleCollect                  // merge the outputs of the stages in From into the result
	RoleCommit                   // publish the outputs of the stages in From, or remove them
	RoleReduce                   // run the reduce program, each task on one partition of the outputs of the stage in From
	RoleCheck                    // see that the outputs of the stages in From are there, of a job that keeps them in the spool
	stageRoles
)

// RunsProgram reports whether the tasks of the stage run a program of the user on input of their own.
func (r StageRole) RunsProgram() bool { return r == RoleMap || r == RoleReduce }

func (r StageRole) String() string {
	return nameOf(r, "role", "map", "collect", "commit", "reduce", "check")
}

// StageSpec is one stage of a job's plan. It never changes, except for the tasks of an input that grows.
type StageSpec struct {
	Name  string // unique in its job; part of the names of tasks and files
	Role  StageRole
	Tasks uint64
	From  []uint32 // stages that must be complete before its tasks run, ascending; all are earlier ones
	// Of a reduce stage: its partitions are ranges of the keys, in order; otherwise a hash divides the keys.
	Ranges bool
	// Of a reduce stage: Tasks follows from the size of the input, also of one that is deferred.
	Fitted bool
}

// Bounds of a plan.
const (
	stagesMax    = 64
	stageNameMax = 64 // bytes

	// PartitionsMax is the maximum number of tasks of a reduce stage.
	PartitionsMax = 1 << 16
)

// DefaultPlan is map, then collect if the program merges its parts, then commit if there is an output folder to publish in.
// Jobs without a recorded plan have this one.
func DefaultPlan(tasks uint64, collect, publish bool) []StageSpec {
	var ends []StageRole
	if collect {
		ends = append(ends, RoleCollect)
	}
	if publish {
		ends = append(ends, RoleCommit)
	}
	return LinePlan([]StageSpec{{Name: "map", Tasks: max(tasks, 1)}}, ends...)
}

// LinePlan is a line of stages: the first reads the input, each other one reduces what the one before it has written. Then comes a stage of one task for each role in ends: it
// is named after the role, and comes from the last stage of the line and the other ends before it. Of the stages in the line, the roles and what they come from are set here.
func LinePlan(line []StageSpec, ends ...StageRole) []StageSpec {
	plan := slices.Clone(line)
	for i := range plan {
		if plan[i].Role, plan[i].From = RoleMap, nil; i > 0 {
			plan[i].Role, plan[i].From = RoleReduce, []uint32{uint32(i) - 1}
		}
	}
	last := len(plan) - 1
	for _, role := range ends {
		end := StageSpec{Name: role.String(), Role: role, Tasks: 1}
		for i := last; i < len(plan); i++ {
			end.From = append(end.From, uint32(i))
		}
		plan = append(plan, end)
	}
	return plan
}

// checkPlan returns an error if a plan is invalid for an input.
func checkPlan(plan []StageSpec, input *Input) error {
	if len(plan) == 0 || len(plan) > stagesMax {
		return fmt.Errorf("a plan of %d stages; want 1 to %d", len(plan), stagesMax)
	}
	commits := 0
	for i := range plan {
		s := &plan[i]
		if err := s.check(uint32(i), input); err != nil {
			return fmt.Errorf("stage %d, %q: %w", i, s.Name, err)
		}
		if slices.ContainsFunc(plan[:i], func(other StageSpec) bool { return other.Name == s.Name }) {
			return fmt.Errorf("stage %d: the name %q is taken", i, s.Name)
		}
		if s.Role == RoleCommit {
			commits++
		}
	}
	if commits > 1 {
		return fmt.Errorf("%d commit stages; want one at most", commits)
	}
	return nil
}

// check returns an error if s is invalid as stage i.
func (s *StageSpec) check(i uint32, input *Input) error {
	if s.Name == "" || len(s.Name) > stageNameMax {
		return fmt.Errorf("a name of %d bytes; want 1 to %d", len(s.Name), stageNameMax)
	}
	for _, c := range []byte(s.Name) { // it is part of file names and URLs
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return errors.New("a name has the characters a-z, 0-9 and _")
		}
	}
	for k, from := range s.From {
		if from >= i || k > 0 && from <= s.From[k-1] {
			return fmt.Errorf("it comes from %v; want earlier stages in ascending order", s.From)
		}
	}
	tasks := uint64(1)
	switch {
	case s.Role >= stageRoles:
		return fmt.Errorf("unknown %v", s.Role)
	case s.Role != RoleReduce && (s.Ranges || s.Fitted):
		return fmt.Errorf("a %v stage has no partitions", s.Role)
	case s.Role == RoleMap:
		tasks = max(input.Tasks, 1)
		if input.Growing && i > 0 {
			return errors.New("an input that grows is that of the first stage alone")
		}
	case len(s.From) == 0:
		return fmt.Errorf("a %v stage must come from another stage", s.Role)
	case s.Role == RoleReduce && (len(s.From) != 1 || s.Tasks == 0 || s.Tasks > PartitionsMax):
		return fmt.Errorf("%d partitions of %d stages; want 1 to %d of one", s.Tasks, len(s.From), PartitionsMax)
	case s.Role == RoleReduce:
		tasks = s.Tasks
	}
	if s.Tasks != tasks {
		return fmt.Errorf("%d tasks; want %d", s.Tasks, tasks)
	}
	return nil
}

// PartStage is the number of the stage whose outputs are the job's parts: the last one that reads the input, or reduces.
func (s *Spec) PartStage() int { return PartStage(s.Stages) }

// PartStage is Spec.PartStage of a plan.
func PartStage(plan []StageSpec) int {
	for i := len(plan) - 1; i > 0; i-- {
		if role := plan[i].Role; role == RoleMap || role == RoleReduce {
			return i
		}
	}
	return 0
}
