// Package leadertest holds the suite that every httpapi.Leader passes: the real node, and the fake of package httpapitest.
package leadertest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi"
)

// Suite checks what httpapi.Leader promises. The leader that start returns leads a cluster that has no jobs, workers or other
// leaders, and has its state for itself.
func Suite(t *testing.T, start func(t *testing.T) httpapi.Leader) {
	t.Helper()
	for name, test := range map[string]func(*suite){
		"submit": (*suite).submit, "stop and retry": (*suite).stop, "forget": (*suite).forget, "pages": (*suite).pages, "waits": (*suite).waits, "tasks": (*suite).tasks,
		"unknown": (*suite).unknown, "members": (*suite).members, "events": (*suite).events, "quotas": (*suite).quotas, "retention": (*suite).retention,
		"locks": (*suite).locks, "lock queue": (*suite).lockQueue, "lock batch": (*suite).lockBatch, "lock owners": (*suite).lockOwners,
		"lock holders": (*suite).lockHolders,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{T: t, leader: start(t)}) })
	}
}

type suite struct {
	*testing.T
	leader httpapi.Leader
}

// Context has a principal that owns all jobs.
func (s *suite) Context() context.Context {
	return access.WithPrincipal(s.T.Context(), access.Principal{Name: "ann", Permissions: access.Read | access.Submit | access.Operate})
}

// numbers is a job of n tasks that no worker runs.
func numbers(n int64) *api.JobRequest {
	return &api.JobRequest{Name: "numbers", Program: api.Program{Command: []string{"true", "{}"}}, Range: &api.Range{From: 1, To: n}}
}

func (s *suite) added(n int64, key string) api.Job {
	s.Helper()
	id, _, err := s.leader.Submit(s.Context(), numbers(n), key)
	if err != nil {
		s.Fatalf("Submit() = %v", err)
	}
	job, ok := s.leader.Job(s.Context(), id)
	if !ok {
		s.Fatalf("no job %d after Submit()", id)
	}
	return job
}

// fails checks that err is a problem with a status.
func (s *suite) fails(what string, err error, statusWant int) {
	s.Helper()
	if !api.IsStatus(err, statusWant) {
		s.Errorf("%s = %v, want %d", what, err, statusWant)
	}
}

func (s *suite) submit() {
	before, _, _ := s.leader.Status()
	job := s.added(3, "")
	after, age, leader := s.leader.Status()
	if after <= before || age != 0 || leader == 0 {
		s.Errorf("Status() = %d, %d, %d; want more than position %d, age 0, and a leader", after, age, leader, before)
	}
	got, ok := s.leader.Job(s.Context(), job.ID)
	if !ok || job.ID != 1 || got.Name != "numbers" || got.Status != api.JobWaiting && got.Status != api.JobHalted || got.PartStage().Tasks != 3 {
		s.Errorf("Job() = %+v, %v; want job 1, waiting, with 3 tasks", got, ok)
	}
	if first, again, other := s.added(3, "key"), s.added(3, "key"), s.added(3, ""); first.ID != 2 || again.ID != 2 || other.ID != 3 {
		s.Errorf("jobs %d and, with the same key, %d, then %d; want 2, 2 and 3", first.ID, again.ID, other.ID)
	}
	if index, err := s.leader.ReadIndex(s.Context()); err != nil || index < after {
		s.Errorf("ReadIndex() = %d, %v; want at least %d", index, err, after)
	}
}

func (s *suite) quotas() {
	ann := api.Quota{User: "ann", QuotaRequest: api.QuotaRequest{Slots: 4, Jobs: 2, Weight: 3}}
	everyone := api.Quota{User: "*", QuotaRequest: api.QuotaRequest{Jobs: 9}}
	for _, q := range []api.Quota{{User: "ann"}, everyone, ann} {
		if err := s.leader.SetQuota(s.Context(), q); err != nil {
			s.Fatalf("SetQuota(%+v) = %v", q, err)
		}
	}
	if got := s.leader.Quotas(); !slices.Equal(got, []api.Quota{everyone, ann}) {
		s.Errorf("Quotas() = %+v, want those of all and of ann", got)
	}
	if err := s.leader.RemoveQuota(s.Context(), "ann"); err != nil {
		s.Errorf("RemoveQuota() = %v", err)
	}
	if got := s.leader.Quotas(); !slices.Equal(got, []api.Quota{everyone}) {
		s.Errorf("Quotas() = %+v, want that of all", got)
	}
	s.fails("RemoveQuota() of none", s.leader.RemoveQuota(s.Context(), "ann"), http.StatusNotFound)
}

func (s *suite) stop() {
	ctx, job := s.Context(), s.added(2, "")
	err := s.leader.Retry(ctx, job.ID)
	s.fails("Retry() of a job that waits", err, http.StatusConflict)
	if err := s.leader.Stop(ctx, job.ID); err != nil {
		s.Fatalf("Stop() = %v", err)
	}
	if err := s.leader.WaitJob(ctx, job.ID); err != nil {
		s.Fatal(err)
	}
	if now, _ := s.leader.Job(s.Context(), job.ID); now.Status != api.JobStopped {
		s.Errorf("the job is %s, want stopped", now.Status)
	}
	if err := s.leader.Stop(ctx, job.ID); err != nil {
		s.Errorf("Stop() of a stopped job = %v", err)
	}
	if err := s.leader.Retry(ctx, job.ID); err != nil {
		s.Errorf("Retry() of a stopped job = %v", err)
	}
	if now, _ := s.leader.Job(s.Context(), job.ID); now.IsEnded() {
		s.Errorf("the job is %s after Retry(), want it to go on", now.Status)
	}
}

func (s *suite) forget() {
	ctx, job := s.Context(), s.added(1, "")
	s.fails("Forget() of a job that waits", s.leader.Forget(ctx, job.ID), http.StatusConflict)
	if err := errors.Join(s.leader.Stop(ctx, job.ID), s.leader.WaitJob(ctx, job.ID), s.leader.Forget(ctx, job.ID)); err != nil {
		s.Fatal(err)
	}
	if _, ok := s.leader.Job(ctx, job.ID); ok {
		s.Error("the job is still there after Forget()")
	}
	s.fails("Forget() once more", s.leader.Forget(ctx, job.ID), http.StatusNotFound)
}

func (s *suite) retention() {
	ctx := s.Context()
	all := api.Retention{User: "*", RetentionRequest: api.RetentionRequest{Jobs: 1000}}
	ann := api.Retention{User: "ann", RetentionRequest: api.RetentionRequest{Jobs: 4, Seconds: 60, Bytes: 1 << 40}}
	set := func(r api.Retention, want ...api.Retention) {
		s.Helper()
		if err := s.leader.SetRetention(ctx, r); err != nil {
			s.Errorf("SetRetention(%+v) = %v", r, err)
		}
		if got := s.leader.Retentions(); !slices.Equal(got, want) {
			s.Errorf("Retentions() = %+v, want %+v", got, want)
		}
	}
	set(ann, all, ann)
	set(api.Retention{User: "*", RetentionRequest: api.RetentionRequest{Bytes: 7}},
		api.Retention{User: "*", RetentionRequest: api.RetentionRequest{Jobs: 1000, Bytes: 7}}, ann)
	set(api.Retention{User: "*"}, all, ann)
	set(api.Retention{User: "ann"}, all)

	job := s.added(1, "")
	for _, pinned := range []bool{true, true, false, false} {
		err := s.leader.Pin(ctx, job.ID, pinned)
		if now, _ := s.leader.Job(ctx, job.ID); err != nil || now.Pinned != pinned {
			s.Errorf("Pin(%v) = %v, and the job is pinned: %v", pinned, err, now.Pinned)
		}
	}
}

func (s *suite) pages() {
	for range 5 {
		s.added(1, "")
	}
	if err := s.leader.Stop(s.Context(), 2); err != nil {
		s.Fatal(err)
	}
	if err := s.leader.WaitJob(s.Context(), 2); err != nil {
		s.Fatal(err)
	}
	for _, c := range []struct {
		q    api.JobQuery
		want []uint64
	}{
		{api.JobQuery{Limit: 10}, []uint64{5, 4, 3, 2, 1}},
		{api.JobQuery{Limit: 2}, []uint64{5, 4, 3, 2, 1}},
		{api.JobQuery{Limit: 1, Status: []string{api.JobWaiting, api.JobHalted}}, []uint64{5, 4, 3, 1}},
		{api.JobQuery{Limit: 1, Status: []string{api.JobStopped, api.JobDone}}, []uint64{2}},
		{api.JobQuery{Limit: 1, Status: []string{api.JobFailed}}, nil},
	} {
		var got []uint64
		for q := c.q; ; {
			page, err := s.leader.Jobs(s.Context(), q)
			if err != nil || len(page.Jobs) > q.Limit {
				s.Fatalf("Jobs(%+v) = %d jobs, %v", q, len(page.Jobs), err)
			}
			for i := range page.Jobs {
				got = append(got, page.Jobs[i].ID)
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		if !slices.Equal(got, c.want) {
			s.Errorf("Jobs(%+v) in pages = %v, want %v", c.q, got, c.want)
		}
	}
	_, err := s.leader.Jobs(s.Context(), api.JobQuery{Limit: 1, Cursor: "x"})
	s.fails("Jobs() with an invalid cursor", err, http.StatusUnprocessableEntity)
}

func (s *suite) waits() {
	job := s.added(1, "")
	index, _, _ := s.leader.Status()
	if err := s.leader.WaitIndex(s.Context(), index); err != nil {
		s.Errorf("WaitIndex(%d) = %v at that position", index, err)
	}
	if err := s.leader.WaitLeader(s.Context(), ""); err != nil {
		s.Errorf("WaitLeader() of the leader = %v", err)
	}
	late := errors.New("late")
	for name, wait := range map[string]func(context.Context) error{
		"WaitJob":   func(ctx context.Context) error { return s.leader.WaitJob(ctx, job.ID) },
		"WaitIndex": func(ctx context.Context) error { return s.leader.WaitIndex(ctx, index+1000) },
		"Events": func(ctx context.Context) error {
			return s.leader.Events(ctx, api.Position{Index: index + 1000}, func(api.Event) error { return nil })
		},
	} {
		ctx, cancel := context.WithTimeoutCause(s.Context(), 20*time.Millisecond, late)
		if err := wait(ctx); !errors.Is(err, late) {
			s.Errorf("%s() = %v, want the cause of its context", name, err)
		}
		cancel()
	}
}

func (s *suite) tasks() {
	ctx, job := s.Context(), s.added(5, "")
	stage := job.PartStage().Name
	var got []uint64
	for q := (api.TaskQuery{Stage: stage, Status: api.TaskOpen, Limit: 2}); ; {
		page, err := s.leader.Tasks(ctx, job.ID, q)
		if err != nil || len(page.Tasks) > q.Limit {
			s.Fatalf("Tasks(%+v) = %d tasks, %v", q, len(page.Tasks), err)
		}
		for _, task := range page.Tasks {
			got = append(got, task.Index)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if want := []uint64{0, 1, 2, 3, 4}; !slices.Equal(got, want) {
		s.Errorf("Tasks() in pages = %v, want %v", got, want)
	}
	if page, err := s.leader.Tasks(ctx, job.ID, api.TaskQuery{Status: api.TaskDone, Limit: 9}); err != nil || len(page.Tasks) > 0 {
		s.Errorf("Tasks() that are done = %+v, %v; want none", page, err)
	}
	if task, err := s.leader.Task(ctx, job.ID, stage, 4); err != nil || task.Index != 4 || task.Stage != stage || task.Status != api.TaskOpen {
		s.Errorf("Task() = %+v, %v; want task 4, open", task, err)
	}
	_, err := s.leader.Task(ctx, job.ID, stage, 5)
	s.fails("Task() of no task", err, http.StatusNotFound)
	if e, err := s.leader.Explain(ctx, job.ID, "", 0); err != nil || e.Subject != "1" || e.Status == "" {
		s.Errorf("Explain() = %+v, %v; want it of job 1", e, err)
	}
	s.fails("Result() of a job that waits", s.leader.Result(ctx, job.ID, io.Discard), http.StatusConflict)
}

func (s *suite) unknown() {
	ctx := s.Context()
	for name, ask := range map[string]func() error{
		"Stop":    func() error { return s.leader.Stop(ctx, 9) },
		"Retry":   func() error { return s.leader.Retry(ctx, 9) },
		"Forget":  func() error { return s.leader.Forget(ctx, 9) },
		"Pin":     func() error { return s.leader.Pin(ctx, 9, true) },
		"WaitJob": func() error { return s.leader.WaitJob(ctx, 9) },
		"Tasks":   func() error { _, err := s.leader.Tasks(ctx, 9, api.TaskQuery{Limit: 1}); return err },
		"Task":    func() error { _, err := s.leader.Task(ctx, 9, "map", 0); return err },
		"Explain": func() error { _, err := s.leader.Explain(ctx, 9, "", 0); return err },
		"Result":  func() error { return s.leader.Result(ctx, 9, io.Discard) },
		"Joblog":  func() error { return s.leader.Joblog(ctx, 9, io.Discard) },
		"Times":   func() error { _, err := s.leader.Times(ctx, 9, 1); return err },
		"StreamParts": func() error {
			return s.leader.StreamParts(ctx, api.PartQuery{Job: 9}, func(api.Part) error { return nil })
		},
		"Logs": func() error {
			return s.leader.Logs(ctx, api.LogQuery{Job: 9}, func(api.LogRecord) error { return nil })
		},
		"DrainWorker":  func() error { _, err := s.leader.DrainWorker(ctx, 9); return err },
		"RemoveWorker": func() error { return s.leader.RemoveWorker(ctx, 9) },
		"RemoveLeader": func() error { return s.leader.RemoveLeader(ctx, 9, false) },
	} {
		s.fails(name+"() of what does not exist", ask(), http.StatusNotFound)
	}
	if job, ok := s.leader.Job(s.Context(), 9); ok {
		s.Errorf("Job(9) = %+v, want none", job)
	}
	if w, ok := s.leader.Worker(9); ok {
		s.Errorf("Worker(9) = %+v, want none", w)
	}
}

func (s *suite) members() {
	if address, self := s.leader.LeaderAddress(); address == "" || !self {
		s.Errorf("LeaderAddress() = %q, %v; want its own", address, self)
	}
	if why := s.leader.NotReady(); why != "" {
		s.Errorf("NotReady() = %q, want none", why)
	}
	if workers := s.leader.Workers(); len(workers) != 0 {
		s.Errorf("Workers() = %+v, want none", workers)
	}
	if c := s.leader.Cluster(); c.Name != "test" || c.NotReady != "" {
		s.Errorf("Cluster() = %+v, want test", c)
	}
	_, err := s.leader.InviteWorker(s.Context(), "127.0.0.1:1", nil)
	s.fails("InviteWorker() of an unused address", err, http.StatusConflict)
}

func (s *suite) events() {
	ctx := s.Context()
	job := s.added(1, "")
	if err := s.leader.Stop(ctx, job.ID); err != nil {
		s.Fatal(err)
	}
	enough := errors.New("enough")
	var all []api.Event
	err := s.leader.Events(ctx, api.Position{}, func(e api.Event) error {
		if all = append(all, e); e.Type == api.EventJobEnded {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || all[0].Type != api.EventJobSubmitted || all[0].Job != job.ID {
		s.Fatalf("Events() = %v after %+v; want the first error of emit, after the job's submission and end", err, all)
	}
	for i, e := range all {
		if i > 0 && (e.Index < all[i-1].Index || e.Index == all[i-1].Index && e.Seq <= all[i-1].Seq) {
			s.Errorf("event %d-%d comes after %d-%d", e.Index, e.Seq, all[i-1].Index, all[i-1].Seq)
		}
	}
	err = s.leader.Events(ctx, api.Position{Index: all[0].Index, Seq: all[0].Seq}, func(e api.Event) error {
		if !reflect.DeepEqual(e, all[1]) {
			s.Errorf("the event after the first is %+v, want %+v", e, all[1])
		}
		return enough
	})
	if !errors.Is(err, enough) {
		s.Errorf("Events() after the first = %v", err)
	}
}
