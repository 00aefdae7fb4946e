package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

func TestOwned(t *testing.T) {
	r := newRig(t)
	n := Owned{r.node}
	r.until("the level rises", func() bool { return n.Cluster().Level > 0 })
	as := func(name string, permissions access.Permission) context.Context {
		return access.WithPrincipal(t.Context(), access.Principal{Name: name, Permissions: permissions, Token: "of " + name})
	}
	ann, bob := as("ann", access.Read|access.Submit), as("bob", access.Read|access.Submit)
	operator := as("eve", access.Read|access.Submit|access.Operate)
	req := request(2)
	req.Program.Command, req.Set = []string{"sh", "-c", "PASSWORD=hunter2"}, map[string]string{"password": "hunter2"}
	id, _, err := n.Submit(ann, req, "key")
	if err != nil {
		t.Fatal(err)
	}
	r.worker("alice", failAll)
	finished(t, r.node, id)

	var texts []string // what bob sees
	show := func(v any, err error) {
		text, _ := json.Marshal(v)
		texts = append(texts, string(text))
		if err != nil {
			t.Error(err)
		}
	}
	job, ok := n.Job(bob, id)
	show(job, nil)
	if !ok || !job.Hidden || job.User != "ann" || job.Status != api.JobFailed || len(job.Stages) == 0 || job.Stages[0].Dead == 0 {
		t.Errorf("another user sees %+v, want its status and counts", job)
	}
	jobs, err := n.Jobs(bob, api.JobQuery{Limit: 9})
	show(jobs, err)
	tasks, err := n.Tasks(bob, id, api.TaskQuery{Limit: 9})
	show(tasks, err)
	task, err := n.Task(bob, id, "map", 0)
	show(task, err)
	if len(tasks.Tasks) == 0 || tasks.Tasks[0].Input != "" || tasks.Tasks[0].Failures != nil || task.Status != api.TaskDead {
		t.Errorf("another user sees the tasks %+v and %+v, want them without inputs and messages", tasks, task)
	}
	errEnough := errors.New("enough")
	events := func(ctx context.Context) (list []api.Event) {
		err := n.Events(ctx, api.Position{}, func(e api.Event) error {
			if list = append(list, e); e.Type == api.EventJobEnded {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Error(err)
		}
		return list
	}
	show(events(bob), nil)
	for _, text := range texts {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "no such line") {
			t.Errorf("another user sees %s", text)
		}
	}
	for what, try := range map[string]func(context.Context) error{
		"Explain": func(ctx context.Context) error { _, err := n.Explain(ctx, id, "", 0); return err },
		"Result":  func(ctx context.Context) error { return n.Result(ctx, id, &bytes.Buffer{}) },
		"Logs": func(ctx context.Context) error {
			return n.Logs(ctx, api.LogQuery{Job: id}, func(api.LogRecord) error { return nil })
		},
		"Retry": func(ctx context.Context) error { return n.Retry(ctx, id) },
		"Stop":  func(ctx context.Context) error { return n.Stop(ctx, id) },
	} {
		problemOf(t, try(bob), http.StatusForbidden, `belongs to user "ann"`)
		problemOf(t, try(t.Context()), http.StatusForbidden, `belongs to user "ann"`)
		for who, ctx := range map[string]context.Context{"its user": ann, "an operator": operator} {
			if err := try(ctx); api.IsStatus(err, http.StatusForbidden) {
				t.Errorf("%s by %s: %v", what, who, err)
			}
		}
	}
	if job, _ := n.Job(ann, id); job.Hidden || job.Set["password"] != "hunter2" || len(job.Program.Command) == 0 {
		t.Errorf("the user of a job sees %+v, want all of it", job)
	}
	failed := false
	for _, e := range events(ann) {
		failed = failed || e.Type == api.EventJobEnded && e.Detail != ""
	}
	if !failed {
		t.Error("the user of a job does not see why it ended")
	}
	if again, _, err := n.Submit(ann, req, "key"); err != nil || again != id {
		t.Errorf("the same key of the same user is job %d, %v, want %d", again, err, id)
	}
	if other, _, err := n.Submit(bob, req, "key"); err != nil || other == id {
		t.Errorf("the same key of another user is job %d, %v, want a new one", other, err)
	}
	problemOf(t, n.Forget(bob, id), http.StatusForbidden, `belongs to user "ann"`)
	if err := errors.Join(n.Stop(ann, id), n.WaitJob(ann, id), n.Forget(ann, id)); err != nil {
		t.Errorf("Forget() by the user = %v", err)
	}
	if list, err := n.Jobs(bob, api.JobQuery{Limit: 9, User: "bob"}); err != nil || len(list.Jobs) != 1 || list.Jobs[0].Hidden {
		t.Errorf("the jobs of bob are %+v, %v, want one, all of it", list, err)
	}
}
