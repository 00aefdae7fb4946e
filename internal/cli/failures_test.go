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
