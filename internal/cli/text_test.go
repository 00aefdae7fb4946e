package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

func TestTexts(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{bytesText(0), "0 B"},
		{bytesText(1023), "1023 B"},
		{bytesText(1024), "1 KiB"},
		{bytesText(1536), "1.5 KiB"},
		{bytesText(1<<20 - 1), "1 MiB"},
		{bytesText(64 << 20), "64 MiB"},
		{countText(999), "999"},
		{countText(1000), "1,000"},
		{countText(10_000_000), "10,000,000"},
		{plural(1, "part"), "1 part"},
		{plural(2000, "part"), "2,000 parts"},
		{durationText(3 * time.Millisecond), "3ms"},
		{durationText(1234 * time.Millisecond), "1.2s"},
		{durationText(90 * time.Second), "1m30s"},
		{durationText(3*time.Hour + 20*time.Minute), "3h20m"},
		{durationText(50 * time.Hour), "2d2h"},
		{printable("plain ü"), "plain ü"},
		{printable("a\nb\xff\x1b[2J"), `a\nb\xff\x1b[2J`},
		{keptText(&api.KeptJobs{RetentionRequest: api.RetentionRequest{Jobs: 2}, Jobs: 2, Next: 7}, time.Time{}), "2 ended of at most 2; job 7 goes when the next one ends"},
		{keptText(&api.KeptJobs{RetentionRequest: api.RetentionRequest{Jobs: 2}, Jobs: 3, Next: 7}, time.Time{}), "3 ended of at most 2; job 7 goes now"},
		{programText(api.Program{Command: []string{"grep", "-c", "x y"}}), "grep -c x y"},
		{programText(api.Program{Command: []string{strings.Repeat("é", 50)}}), strings.Repeat("é", 39) + "…"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"wordcount", "grep", "DelayedWordCount", "Sample", "AlwaysOk"}
	for _, c := range []struct{ given, want string }{
		{"wordcuont", "wordcount"},
		{"WordCount", "wordcount"},
		{"gerp", "grep"},
		{"alwaysok", "AlwaysOk"},
		{"tokenize", ""},
		{"x", ""},
	} {
		got := didYouMean(c.given, names)
		if c.want == "" && got != "" || c.want != "" && got != "; did you mean "+c.want+"?" {
			t.Errorf("didYouMean(%q) = %q, want %q", c.given, got, c.want)
		}
	}
	if got := didYouMean("--frob", []string{"--json", "--name"}); got != "" {
		t.Errorf("didYouMean(--frob) = %q, want nothing: half of json is not frob", got)
	}
}

func TestAbsoluteInput(t *testing.T) {
	for _, c := range []struct{ dir, in, want string }{
		{"/data", "logs", "/data/logs"},
		{"/data", "../logs/", "/logs"},
		{"/data", "/logs/*.gz", "/logs/*.gz"},
		{"/data", "logs/*.gz", "/data/logs/*.gz"},
		{"/da[t]a", "logs/*.gz", `/da\[t]a/logs/*.gz`},
		{"/da[t]a", "logs", "/da[t]a/logs"},
		{"/data", "s3://bucket/a/../b", "s3://bucket/a/../b"},
	} {
		if got := absoluteInput(c.dir, c.in); got != c.want {
			t.Errorf("absoluteInput(%q, %q) = %q, want %q", c.dir, c.in, got, c.want)
		}
	}
}

func TestLargest(t *testing.T) {
	top, all, err := largest(strings.NewReader("a\t3\nb\t1\nc c\t9\nd\t3\ne\t2"), 3)
	want := []countLine{{"c c", 9}, {"a", 3}, {"d", 3}}
	if err != nil || all != 5 || len(top) != len(want) {
		t.Fatalf("largest = %v, %d, %v, want %v, 5", top, all, err, want)
	}
	for i := range want {
		if top[i] != want[i] {
			t.Errorf("largest[%d] = %v, want %v", i, top[i], want[i])
		}
	}
	for _, other := range []string{"no tab\n", "a\tb\n", "a\t1\nmatched line\n"} {
		if top, _, err := largest(strings.NewReader(other), 3); err == nil {
			t.Errorf("largest(%q) = %v, want an error", other, top)
		}
	}
}

func TestProgressLine(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	job := api.Job{ID: 7, Status: api.JobRunning, InputBytes: 100 << 20, Stages: []api.Stage{
		{Name: "map", Tasks: 1000, Open: 996, Running: 4},
		{Name: "commit", Role: api.RoleCommit, Tasks: 1, Open: 1},
	}}
	var speed meter
	speed.add(start, &job)
	if got, want := progressLine(&job, &speed), "job 7 map: 0 of 1,000 tasks done · 4 running · 0 B of 100 MiB"; got != want {
		t.Errorf("progressLine = %q, want %q", got, want)
	}
	job.Stages[0] = api.Stage{Name: "map", Tasks: 1000, Open: 794, Running: 4, Done: 200, Dead: 2, Retried: 5}
	job.ReadBytes = 20 << 20
	speed.add(start.Add(2*time.Second), &job)
	want := "job 7 map: 200 of 1,000 tasks done · 4 running · 2 failed · 5 retried · 100/s · 20 MiB of 100 MiB, 10 MiB/s · ETA 8s"
	if got := progressLine(&job, &speed); got != want {
		t.Errorf("progressLine = %q, want %q", got, want)
	}
	// A retry takes tasks back; rates must not go below zero.
	job.Stages[0].Done = 100
	speed.add(start.Add(3*time.Second), &job)
	if tasks, bytes := speed.rates(); tasks < 0 || bytes < 0 {
		t.Errorf("rates = %v, %v, want none below 0", tasks, bytes)
	}
	job.Stages[0] = api.Stage{Name: "map", Tasks: 1000, Done: 1000}
	job.Status = api.JobHalted
	if got := progressLine(&job, &meter{}); !strings.Contains(got, "commit: 0 of 1 task done · halted") {
		t.Errorf("progressLine = %q, want the stage that is at work", got)
	}
	job.Stages = []api.Stage{job.Stages[0], {Name: "collect", Role: api.RoleCollect, Tasks: 1, Running: 1}, job.Stages[1]}
	if got := progressLine(&job, &meter{}); !strings.HasPrefix(got, "job 7 collect (stage 2 of 2): 0 of 1 task done") {
		t.Errorf("progressLine = %q, want the place of the stage", got)
	}
}

// TestLogPrinter holds that lines are never mixed, wherever the records are cut.
func TestLogPrinter(t *testing.T) {
	var out strings.Builder
	p := &logPrinter{w: &out, prefix: true, open: map[string][]byte{}}
	for _, r := range []api.LogRecord{
		{Task: "1/map/0", Attempt: 1, Winner: true, Text: []byte("one\ntw")},
		{Task: "1/map/1", Attempt: 1, Text: []byte("lost\n")},
		{Task: "1/map/0", Attempt: 1, Winner: true, Text: []byte("o\nthree")},
		{Task: "1/map/1", Attempt: 2, Winner: true, Text: []byte("won\n")},
	} {
		if err := p.add(&r); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	want := "1/map/0: one\n1/map/1#1: lost\n1/map/0: two\n1/map/1: won\n1/map/0: three\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

// TestReportOfARun: an embedded run that cannot reach its own leader gives no advice about other clusters.
func TestReportOfARun(t *testing.T) {
	for _, test := range []struct {
		err    error
		advice bool
	}{
		{client.ErrUnreachable, true},
		{&exitError{code: exitUnreachable, err: client.ErrUnreachable}, false},
	} {
		name := filepath.Join(t.TempDir(), "stderr")
		file, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		a := &app{stderr: newConsole(file)}
		code := a.report(test.err)
		text, err := os.ReadFile(name)
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		if code != exitUnreachable || strings.Contains(string(text), "--cluster") != test.advice {
			t.Errorf("report(%v) = %d, %q; want %d, with advice: %v", test.err, code, text, exitUnreachable, test.advice)
		}
	}
}

func TestInputText(t *testing.T) {
	for want, task := range map[string]api.Task{
		"":                  {},
		"/a":                {Input: "/a"},
		`/a\nb from byte 7`: {Input: "/a\nb", Offset: 7},
		`/a\nb and 2 more`:  {Inputs: []string{"/a\nb", "/c", "/d"}},
	} {
		if got := inputText(&task); got != want {
			t.Errorf("inputText(%+v) = %q, want %q", task, got, want)
		}
	}
}
