package state

import (
	"slices"
	"strings"
	"testing"
)

func TestCheckPlan(t *testing.T) {
	input := Input{Kind: InputRange, Tasks: 3}
	valid := func() []StageSpec {
		return []StageSpec{
			{Name: "a", Role: RoleMap, Tasks: 3},
			{Name: "b_2", Role: RoleMap, Tasks: 3, From: []uint32{0}},
			{Name: "c", Role: RoleCollect, Tasks: 1, From: []uint32{0, 1}},
			{Name: "d", Role: RoleCommit, Tasks: 1, From: []uint32{1, 2}},
		}
	}
	if err := checkPlan(valid(), &input); err != nil {
		t.Errorf("checkPlan = %v, want none", err)
	}
	for _, tasks := range []uint64{0, 1, MaxTasks} {
		for _, collect := range []bool{false, true} {
			for _, publish := range []bool{false, true} {
				if err := checkPlan(DefaultPlan(tasks, collect, publish), &Input{Tasks: tasks}); err != nil {
					t.Errorf("checkPlan of the default plan of %d tasks, %v, %v = %v", tasks, collect, publish, err)
				}
			}
		}
	}
	for _, ends := range [][]StageRole{nil, {RoleCommit}, {RoleCheck}, {RoleCollect, RoleCommit}, {RoleCollect, RoleCheck}} {
		line := []StageSpec{{Name: "map", Tasks: 3}, {Name: "reduce", Tasks: PartitionsMax, Fitted: true}, {Name: "sort", Tasks: 2, Ranges: true}}
		if err := checkPlan(LinePlan(line, ends...), &input); err != nil {
			t.Errorf("checkPlan of a line of stages, %v = %v", ends, err)
		}
	}
	for want, spoil := range map[string]func(plan []StageSpec) []StageSpec{
		"a plan of 0 stages": func([]StageSpec) []StageSpec { return nil },
		"a plan of 65 stages": func(plan []StageSpec) []StageSpec {
			return append(plan, slices.Repeat(plan[:1], stagesMax+1-len(plan))...)
		},
		`the name "a" is taken`:    func(plan []StageSpec) []StageSpec { plan[2].Name = "a"; return plan },
		"a name of 0 bytes":        func(plan []StageSpec) []StageSpec { plan[1].Name = ""; return plan },
		"a name of 65 bytes":       func(plan []StageSpec) []StageSpec { plan[1].Name = strings.Repeat("x", 65); return plan },
		"characters a-z":           func(plan []StageSpec) []StageSpec { plan[1].Name = "../x"; return plan },
		"unknown role 5":           func(plan []StageSpec) []StageSpec { plan[1].Role = stageRoles; return plan },
		"comes from [1]":           func(plan []StageSpec) []StageSpec { plan[1].From = []uint32{1}; return plan },
		"comes from [2]":           func(plan []StageSpec) []StageSpec { plan[1].From = []uint32{2}; return plan },
		"comes from [1 0]":         func(plan []StageSpec) []StageSpec { plan[2].From = []uint32{1, 0}; return plan },
		"comes from [1 1]":         func(plan []StageSpec) []StageSpec { plan[2].From = []uint32{1, 1}; return plan },
		"must come from another":   func(plan []StageSpec) []StageSpec { plan[2].From = nil; return plan },
		"2 tasks; want 3":          func(plan []StageSpec) []StageSpec { plan[0].Tasks = 2; return plan },
		"2 tasks; want 1":          func(plan []StageSpec) []StageSpec { plan[3].Tasks = 2; return plan },
		"0 partitions of 1 stages": func(plan []StageSpec) []StageSpec { plan[1].Role, plan[1].Tasks = RoleReduce, 0; return plan },
		"65537 partitions": func(plan []StageSpec) []StageSpec {
			plan[1].Role, plan[1].Tasks = RoleReduce, PartitionsMax+1
			return plan
		},
		"a collect stage has no partitions": func(plan []StageSpec) []StageSpec { plan[2].Fitted = true; return plan },
		"a map stage has no partitions":     func(plan []StageSpec) []StageSpec { plan[1].Ranges = true; return plan },
		"1 partitions of 2 stages":          func(plan []StageSpec) []StageSpec { plan[2].Role = RoleReduce; return plan },
		"2 commit stages": func(plan []StageSpec) []StageSpec {
			return append(plan, StageSpec{Name: "e", Role: RoleCommit, Tasks: 1, From: []uint32{0}})
		},
	} {
		if err := checkPlan(spoil(valid()), &input); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("checkPlan = %v, want %q", err, want)
		}
	}
}
