package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/jobs"
)

// makeRuns makes n runs, a minute apart, the oldest first. They are held.
func makeRuns(t *testing.T, runs string, n int) []*runDir {
	t.Helper()
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	out := make([]*runDir, n)
	for i := range out {
		req := &api.JobRequest{Program: api.Program{Builtin: "wordcount"}}
		d, err := newRunDir(t.Context(), runs, runInfo{Created: start.Add(time.Duration(i) * time.Minute)}, req, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = d
	}
	return out
}

func TestOpenRun(t *testing.T) {
	runs := filepath.Join(t.TempDir(), "runs")
	if _, err := openRun(runs, ""); err == nil || !strings.Contains(err.Error(), "no run to resume") {
		t.Errorf("openRun without any = %v, want an error that says so", err)
	}
	made := makeRuns(t, runs, 3)
	if _, err := openRun(runs, ""); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("openRun of held ones = %v, want that they are in use", err)
	}
	for _, d := range made[:2] {
		if err := d.release(); err != nil {
			t.Fatal(err)
		}
	}
	// A folder that is being made has no run.json yet.
	if err := os.Mkdir(filepath.Join(runs, "20270101-000000-new"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := openRun(runs, "")
	if err != nil || got.info.ID != made[1].info.ID {
		t.Fatalf("openRun = %v, %v, want the newest that is free, %s", got, err, made[1].info.ID)
	}
	req, err := got.request()
	if err != nil || req.Program.Builtin != "wordcount" {
		t.Errorf("request = %v, %v, want the one that was made", req, err)
	}
	if _, err := openRun(runs, made[1].info.ID); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("openRun of one that is held = %v, want that it is not over", err)
	}
	if _, err := openRun(runs, "2026"); err == nil || !strings.Contains(err.Error(), "ambiguous") || !strings.Contains(err.Error(), made[0].info.ID) {
		t.Errorf("openRun of a beginning of three = %v, want them listed", err)
	}
	if err := got.remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(got.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the removed run is still there: %v", err)
	}
}

func TestPruneRuns(t *testing.T) {
	runs := t.TempDir()
	made := makeRuns(t, runs, 5)
	for _, d := range made[1:] { // the oldest stays held
		if err := d.release(); err != nil {
			t.Fatal(err)
		}
	}
	if err := pruneRuns(runs, 2, time.Time{}); err != nil {
		t.Fatal(err)
	}
	left, _, err := listRuns(runs)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, d := range left {
		ids = append(ids, d.info.ID)
	}
	want := strings.Join([]string{made[4].info.ID, made[3].info.ID, made[0].info.ID}, " ")
	if got := strings.Join(ids, " "); got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
}

// TestRemoveAmongOthers: processes that look at all runs do not disturb the removal of one, and remove what a crash has left of another.
func TestRemoveAmongOthers(t *testing.T) {
	runs := t.TempDir()
	left := filepath.Join(runs, "20260101-120000-left"+removedSuffix)
	if err := os.MkdirAll(filepath.Join(left, "leader"), 0o700); err != nil {
		t.Fatal(err)
	}
	made := makeRuns(t, runs, 100)
	pruned := make(chan error, 1)
	go func() {
		var err error
		for range 100 {
			err = errors.Join(err, pruneRuns(runs, len(made), time.Time{}))
		}
		pruned <- err
	}()
	for _, d := range made {
		if err := d.remove(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-pruned; err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(runs); len(names) > 0 || err != nil {
		t.Errorf("left are %v, %v, want none", names, err)
	}
}

// TestRecordRun: a kept run tells of the tasks of all its job's stages.
func TestRecordRun(t *testing.T) {
	d := makeRuns(t, t.TempDir(), 1)[0]
	job := &api.Job{Status: api.JobFailed, Stages: []api.Stage{
		{Name: "map", Role: api.RoleMap, Tasks: 5, Done: 3, Dead: 2},
		{Name: "reduce", Role: api.RoleReduce, Parts: true, Tasks: 1, Open: 1},
		{Name: "commit", Role: api.RoleCommit, Tasks: 1, Open: 1},
	}}
	if err := d.record(job); err != nil {
		t.Fatal(err)
	}
	if got := d.info; got.Status != api.JobFailed || got.Tasks != 6 || got.Done != 3 || got.Failed != 2 {
		t.Errorf("recorded %s, %d tasks, %d done, %d failed; want failed, 6, 3, 2", got.Status, got.Tasks, got.Done, got.Failed)
	}
}

// A run of a job of a program is continued by that program, which may have been built again without the job.
func TestCheckOwner(t *testing.T) {
	here, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &app{own: true, program: "./mine", jobs: []bridgefour.Job{jobs.Sample{}}}
	for _, test := range []struct{ job, owner, want string }{
		{"Sample", here, ""},
		{"gone", here, "run 7 is of the job gone, which this program had: it has Sample; './mine runs rm 7' removes the run"},
		{"gone", "/bin/other", "run 7 is of the job gone of another program; continue it by: /bin/other run --resume 7"},
		{"gone", "go run example.com/other", "run 7 is of the job gone of another program; continue it by: go run example.com/other run --resume 7"},
	} {
		got := ""
		err := a.checkOwner(&runDir{info: runInfo{ID: "7", Owner: test.owner}}, &api.JobRequest{Program: api.Program{Builtin: test.job}})
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("checkOwner() of the job %s of %s = %q, want %q", test.job, test.owner, got, test.want)
		}
	}
}
