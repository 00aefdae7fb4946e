package cli

import (
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

func TestCauses(t *testing.T) {
	c := causes{byKey: map[string]*cause{}}
	for i, message := range []string{
		"exit status 1\nTraceback:\nTypeError: bad operand 17", "exit status 1", "exit status 3", "exit status 1\nTypeError: bad operand 4\n\n",
		"exit status 1\nopen /data/a/1.csv: no such file", "exit status 2\nopen /tmp/2: no such file", "exit status 1", "exit status 1\nopen 3.csv: no such file", "",
	} {
		task := api.Task{Index: uint64(i)}
		if message != "" {
			task.Failures = []api.Failure{{Message: "an earlier one"}, {Message: message}}
		}
		c.add(&task)
	}
	want := []cause{
		{text: "open /data/a/1.csv: no such file", tasks: 3},
		{text: "TypeError: bad operand 17", tasks: 2},
		{text: "exit status 1", tasks: 2},
		{text: "exit status 3", tasks: 1},
		{text: "not kept: only the first failures of a job are", tasks: 1},
	}
	for i, got := range c.sorted() {
		if i >= len(want) || got.text != want[i].text || got.tasks != want[i].tasks {
			t.Errorf("cause %d = %d tasks: %s; want %+v", i, got.tasks, got.text, want)
		}
	}
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct{ text, want string }{{"", ""}, {"a", "a"}, {"a\nb\n", "a\nb"}, {"a\nb\nc\n", "b\nc"}, {"\n\nc", "\nc"}} {
		if got := lastLines(c.text, 2); got != c.want {
			t.Errorf("lastLines(%q, 2) = %q, want %q", c.text, got, c.want)
		}
	}
}

// TestFailedTasks: the tasks of all stages that run the program are counted, as in the lists of jobs and runs; the stage is named if there are several.
func TestFailedTasks(t *testing.T) {
	stage := func(role string, tasks, done, dead uint64) api.Stage {
		return api.Stage{Name: role, Role: role, Tasks: tasks, Done: done, Dead: dead, Open: tasks - done - dead}
	}
	for _, c := range []struct {
		job  api.Job
		want string
	}{
		{api.Job{Stages: []api.Stage{stage(api.RoleMap, 4, 4, 0), stage(api.RoleCommit, 1, 0, 0)}}, ""},
		{api.Job{Stages: []api.Stage{stage(api.RoleMap, 4, 3, 1), stage(api.RoleCommit, 1, 0, 0)}}, "1 of 4 tasks"},
		{api.Job{Stages: []api.Stage{stage(api.RoleMap, 2, 0, 2), stage(api.RoleReduce, 2, 0, 0)}}, "2 of 4 tasks, in map (stage 1 of 2)"},
		{api.Job{Stages: []api.Stage{stage(api.RoleMap, 2, 2, 0), stage(api.RoleReduce, 2, 1, 1), stage(api.RoleCommit, 1, 0, 0)}}, "1 of 4 tasks, in reduce (stage 2 of 2)"},
		{api.Job{Stages: []api.Stage{stage(api.RoleMap, 4, 4, 0), stage(api.RoleCommit, 1, 0, 1)}}, "1 task, in commit"},
		{
			api.Job{MaxFails: "0", Stages: []api.Stage{stage(api.RoleMap, 4, 1, 1), stage(api.RoleReduce, 2, 0, 0)}},
			"1 of 6 tasks, in map (stage 1 of 2); it was stopped then (--max-fails 0), 4 not run to the end",
		},
		{
			api.Job{Error: "stopped by its program: task 1/map/0: no", Stages: []api.Stage{stage(api.RoleMap, 4, 1, 1)}},
			"1 of 4 tasks; it was stopped by its program, 2 not run to the end",
		},
	} {
		if got := failedTasks(&c.job); got != c.want {
			t.Errorf("failedTasks(%+v) = %q, want %q", c.job.Stages, got, c.want)
		}
	}
}
