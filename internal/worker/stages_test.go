package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestCommitLosesParts: the commit reports the parts and the result that it does not find, and is returned instead of having failed. One that publishes what there is
// leaves them out.
func TestCommitLosesParts(t *testing.T) {
	out := t.TempDir()
	job := &wire.Job{Id: 1, Uid: "abc", Output: out, Stages: []string{"map", "collect", "commit"}}
	private := filepath.Join(out, "_temporary", "abc")
	if err := os.MkdirAll(private, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(private, "map-0-10"), []byte("zero"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := newFakeLeader(t, "127.0.0.1:0")
	l.parts[0] = []*wire.PartsPage{{Index: []uint64{0, 1}, Lease: []uint64{10, 11}, Size: []uint64{4, 3}, Tasks: 2}}
	l.parts[1] = []*wire.PartsPage{{Index: []uint64{0}, Lease: []uint64{30}, Size: []uint64{3}, Tasks: 1}}
	startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, nothing)
	s := l.welcomed()
	s.work(&wire.Work{Jobs: []*wire.Job{job}, Leases: []*wire.Leases{{Job: 1, Stage: 2, FirstLease: 200, Index: []uint64{0}, Action: wire.CommitAction_COMMIT}}})
	r := s.report()
	lost := map[string]bool{}
	for _, o := range r.GetLost() {
		lost[fmt.Sprintf("%d/%d/%d#%d", o.GetJob(), o.GetStage(), o.GetIndex(), o.GetLease())] = strings.Contains(o.GetMessage(), "is missing (on ")
	}
	if want := map[string]bool{"1/0/1#11": true, "1/1/0#30": true}; !maps.Equal(lost, want) || !slices.Equal(r.GetReturned(), []uint64{200}) || len(r.GetFailed()) > 0 {
		t.Errorf("report = %v, want that two outputs are lost", r)
	}
	s.work(&wire.Work{Leases: []*wire.Leases{{Job: 1, Stage: 2, FirstLease: 300, Index: []uint64{0}, Action: wire.CommitAction_COMMIT_PARTIAL}}})
	if r := s.report(); !slices.Equal(finishedLeases([]*wire.Report{r}), []uint64{300}) {
		t.Errorf("report = %v, want the partial commit finished", r)
	}
	text, err := os.ReadFile(filepath.Join(out, "_PARTIAL"))
	var m api.Manifest
	if err := errors.Join(err, json.Unmarshal(text, &m)); err != nil || !slices.Equal(m.Missing, []uint64{1}) || len(m.Parts) != 1 || m.Result != "" {
		t.Errorf("manifest = %+v, %v", m, err)
	}
}

// TestCheck: the check of a job without an output finds what is there, leaves it where it is, and reports what is not there.
func TestCheck(t *testing.T) {
	out := t.TempDir()
	job := &wire.Job{Id: 1, Uid: "abc", Output: out, Spool: true, Plan: []*wire.Stage{
		{Name: "map", Role: wire.StageRole_STAGE_MAP},
		{Name: "collect", Role: wire.StageRole_STAGE_COLLECT, From: []uint32{0}},
		{Name: "check", Role: wire.StageRole_STAGE_CHECK, From: []uint32{0, 1}},
	}}
	private := filepath.Join(out, "_temporary", "abc")
	if err := os.MkdirAll(private, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(private, name), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("map-0-10")
	l := newFakeLeader(t, "127.0.0.1:0")
	l.parts[0] = []*wire.PartsPage{{Index: []uint64{0, 1}, Lease: []uint64{10, 11}, Size: []uint64{4, 4}, Tasks: 2}}
	l.parts[1] = []*wire.PartsPage{{Index: []uint64{0}, Lease: []uint64{30}, Size: []uint64{4}, Tasks: 1}}
	startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, nothing)
	s := l.welcomed()
	s.work(&wire.Work{Jobs: []*wire.Job{job}, Leases: []*wire.Leases{{Job: 1, Stage: 2, FirstLease: 200, Index: []uint64{0}}}})
	r := s.report()
	var lost []uint64
	for _, o := range r.GetLost() {
		lost = append(lost, o.GetLease())
	}
	if slices.Sort(lost); !slices.Equal(lost, []uint64{11, 30}) || !slices.Equal(r.GetReturned(), []uint64{200}) || len(r.GetFailed()) > 0 {
		t.Errorf("report = %v, want that two outputs are lost", r)
	}
	put("map-1-11")
	put("collect-0-30")
	s.work(&wire.Work{Leases: []*wire.Leases{{Job: 1, Stage: 2, FirstLease: 300, Index: []uint64{0}}}})
	if r := s.report(); !slices.Equal(finishedLeases([]*wire.Report{r}), []uint64{300}) {
		t.Errorf("report = %v, want the check finished", r)
	}
	if files, err := os.ReadDir(private); err != nil || len(files) != 3 {
		t.Errorf("after the check there is %v, %v", files, err)
	}
}

// TestStagesByRole runs a plan whose stages have names of their own: a collect reads all stages that it comes from, a commit
// publishes the last of them that makes data, and a role that is not known fails the attempt.
func TestStagesByRole(t *testing.T) {
	out := t.TempDir()
	job := &wire.Job{
		Id: 1, Uid: "abc", Output: out, Stages: []string{"left", "right", "merge", "publish", "sort"},
		Plan: []*wire.Stage{
			{Name: "left", Role: wire.StageRole_STAGE_MAP},
			{Name: "right", Role: wire.StageRole_STAGE_MAP},
			{Name: "merge", Role: wire.StageRole_STAGE_COLLECT, From: []uint32{0, 1}},
			{Name: "publish", Role: wire.StageRole_STAGE_COMMIT, From: []uint32{0, 1, 2}},
			{Name: "sort", Role: 99},
		},
	}
	private := filepath.Join(out, "_temporary", "abc")
	if err := os.MkdirAll(private, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"left-0-10": "l", "right-0-20": "right", "merge-0-30": "all"} {
		if err := os.WriteFile(filepath.Join(private, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := newFakeLeader(t, "127.0.0.1:0")
	for stage, part := range []struct{ lease, size uint64 }{{10, 1}, {20, 5}, {30, 3}} {
		l.parts[uint32(stage)] = []*wire.PartsPage{{Index: []uint64{0}, Lease: []uint64{part.lease}, Size: []uint64{part.size}, Tasks: 1}}
	}
	read := make(chan []string, 1)
	startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, func(_ context.Context, a *runner.Attempt) runner.Outcome {
		var names []string
		for part, err := range a.Parts {
			if err != nil {
				t.Error(err)
			}
			names = append(names, filepath.Base(fmt.Sprint(part.Path)))
		}
		read <- names
		return runner.Outcome{}
	})
	s := l.welcomed()
	s.work(&wire.Work{Jobs: []*wire.Job{job}, Leases: []*wire.Leases{{Job: 1, Stage: 2, FirstLease: 100, Index: []uint64{0}}}})
	if got, want := <-read, []string{"left-0-10", "right-0-20"}; !slices.Equal(got, want) {
		t.Errorf("the collect reads %q, want %q", got, want)
	}
	s.report()
	s.work(&wire.Work{Leases: []*wire.Leases{{Job: 1, Stage: 4, FirstLease: 150, Index: []uint64{0}}}})
	if f := s.report().GetFailed(); len(f) != 1 || f[0].GetKind() != wire.FailureKind_BAD_PROGRAM || !strings.Contains(f[0].GetMessage(), "unknown role 99") {
		t.Errorf("a stage of an unknown role: %v, want BAD_PROGRAM", f)
	}
	s.work(&wire.Work{Leases: []*wire.Leases{{Job: 1, Stage: 3, FirstLease: 200, Index: []uint64{0}, Action: wire.CommitAction_COMMIT}}})
	if r := s.report(); !slices.Equal(finishedLeases([]*wire.Report{r}), []uint64{200}) {
		t.Fatalf("report = %v, want the commit finished", r)
	}
	for name, want := range map[string]string{"part-00000": "right", "_RESULT": "all"} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
}
