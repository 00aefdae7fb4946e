package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"mime/multipart"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bridgefour/bridgefour/api"
)

// Paths of the API, for Raw.

// JobPath is the path of a job.
func JobPath(id uint64) string { return "/v1/jobs/" + strconv.FormatUint(id, 10) }

// JobsPath is the path of a page of jobs.
func JobsPath(q api.JobQuery) string {
	return withQuery("/v1/jobs", parameters{"status": strings.Join(q.Status, ","), "user": q.User, "limit": max(0, q.Limit), "cursor": q.Cursor})
}

// TasksPath is the path of a page of tasks.
func TasksPath(id uint64, q api.TaskQuery) string {
	return withQuery(JobPath(id)+"/tasks", parameters{"stage": q.Stage, "status": q.Status, "limit": max(0, q.Limit), "cursor": q.Cursor})
}

// TaskPath is the path of a task.
func TaskPath(id uint64, stage string, index uint64) string {
	return fmt.Sprintf("%s/tasks/%s/%d", JobPath(id), url.PathEscape(stage), index)
}

// ExplainPath is the path of the explanation of a job, or of a task if stage is not empty.
func ExplainPath(id uint64, stage string, index uint64) string {
	p := parameters{}
	if stage != "" {
		p["task"] = fmt.Sprintf("%s/%d", stage, index)
	}
	return withQuery(JobPath(id)+"/explain", p)
}

// Paths of the cluster and its members.
const (
	ClusterPath = "/v1/cluster"
	WorkersPath = "/v1/workers"
	LeadersPath = "/v1/leaders"
)

// WorkerPath is the path of a worker.
func WorkerPath(id uint64) string { return WorkersPath + "/" + strconv.FormatUint(id, 10) }

// parameters are those of a query, by name. Zero values are left out.
type parameters map[string]any

func withQuery(path string, p parameters) string {
	v := url.Values{}
	for name, value := range p {
		if !reflect.ValueOf(value).IsZero() {
			v.Set(name, fmt.Sprint(value))
		}
	}
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

// Submit submits a job. It returns when the job is durable. The key makes a repetition harmless: within 24 hours the same key
// gives the same job. An empty key stands for a random one.
func (c *Client) Submit(ctx context.Context, r *api.JobRequest, key string) (api.Job, error) {
	if r.Lines != nil && len(r.Lines.Raw) >= linesPart && len(r.Lines.Items) == 0 {
		return c.SubmitLines(ctx, r, bytes.NewReader(r.Lines.Raw), int64(len(r.Lines.Raw)), key)
	}
	if err := checkUTF8(r); err != nil {
		return api.Job{}, err
	}
	body, err := jsonPayload(r)
	if err != nil {
		return api.Job{}, err
	}
	var job api.Job
	err = c.submit(ctx, "/v1/jobs", body, key, &job)
	return job, err
}

// SubmitFlow submits several jobs, all of them or none, and returns them in the order of the request. The key is as of Submit.
func (c *Client) SubmitFlow(ctx context.Context, r *api.FlowRequest, key string) ([]api.Job, error) {
	for i := range r.Jobs {
		if err := checkUTF8(&r.Jobs[i]); err != nil {
			return nil, fmt.Errorf("job %q: %w", r.Jobs[i].Name, err)
		}
	}
	body, err := jsonPayload(r)
	if err != nil {
		return nil, err
	}
	var flow api.Flow
	err = c.submit(ctx, "/v1/flows", body, key, &flow)
	return flow.Jobs, err
}

// linesPart is the size from which lines are sent in a part of their own.
const linesPart = 64 << 10

// SubmitLines is Submit of a request whose lines are size bytes of a file, which are not held in memory. They take the place of those of r.Lines.
func (c *Client) SubmitLines(ctx context.Context, r *api.JobRequest, lines io.ReaderAt, size int64, key string) (api.Job, error) {
	small := *r
	if small.Lines != nil {
		small.Lines = &api.Lines{Null: r.Lines.Null, Columns: r.Lines.Columns}
	}
	if err := checkUTF8(&small); err != nil {
		return api.Job{}, err
	}
	var frame bytes.Buffer // the body without the lines
	parts := multipart.NewWriter(&frame)
	job, err := parts.CreateFormField("job")
	if err == nil {
		err = json.NewEncoder(job).Encode(&small)
	}
	if err == nil {
		_, err = parts.CreateFormField("lines")
	}
	begin := frame.Len()
	if err == nil {
		err = parts.Close() // writes the last boundary
	}
	if err != nil {
		return api.Job{}, err
	}
	var submitted api.Job
	err = c.submit(ctx, "/v1/jobs", payload{
		kind: parts.FormDataContentType(),
		size: int64(frame.Len()) + size,
		open: func() io.Reader {
			return io.MultiReader(bytes.NewReader(frame.Bytes()[:begin]), io.NewSectionReader(lines, 0, size), bytes.NewReader(frame.Bytes()[begin:]))
		},
	}, key, &submitted)
	return submitted, err
}

func (c *Client) submit(ctx context.Context, path string, body payload, key string, answer any) error {
	if key == "" {
		key = rand.Text()
	}
	return c.call(ctx, request{
		method: http.MethodPost, path: path, body: body, key: key, again: true,
		timeout: time.Minute + time.Duration(body.size>>20)*time.Second, // a slow network has 1 MiB/s
	}, answer)
}

// checkUTF8 rejects text that JSON would silently change.
func checkUTF8(r *api.JobRequest) error {
	check := func(what, s string) error {
		if utf8.ValidString(s) {
			return nil
		}
		return fmt.Errorf("%s %q is not UTF-8, which a request requires: name a folder or a glob that covers it, or pass it with --lines", what, s)
	}
	named := [][2]string{{"name", r.Name}, {"user", r.User}, {"output", r.Output}, {"directory", r.Dir}, {"program", r.Program.Builtin}, {"command line", r.Program.Shell}, {"placeholder", r.Program.Placeholder}}
	for _, s := range r.Inputs {
		named = append(named, [2]string{"input", s})
	}
	for _, s := range r.Program.Command {
		named = append(named, [2]string{"argument", s})
	}
	for k, v := range r.Set {
		named = append(named, [2]string{"setting", k}, [2]string{"setting", v})
	}
	for k, v := range r.Labels {
		named = append(named, [2]string{"label", k}, [2]string{"label", v})
	}
	for i := range r.Each {
		named = append(named, [2]string{"name", r.Each[i].Name})
		for _, s := range r.Each[i].Values {
			named = append(named, [2]string{"value", s})
		}
	}
	if r.Lines != nil {
		for _, s := range r.Lines.Columns {
			named = append(named, [2]string{"column", s})
		}
		for _, s := range r.Lines.Items {
			if err := check("line", s); err != nil {
				return err
			}
		}
	}
	for _, n := range named {
		if err := check(n[0], n[1]); err != nil {
			return err
		}
	}
	return nil
}

// Job returns a job.
func (c *Client) Job(ctx context.Context, id uint64) (api.Job, error) {
	return ask[api.Job](ctx, c, get(JobPath(id)))
}

const (
	// pollWait is the duration of one poll of Wait: a leader that is cut off from the others answers with an old state.
	pollWait = 10 * time.Second
	// ageMax is the age, by ageOf, up to which a node is worth polling.
	ageMax = 5 * time.Second
)

// Poll returns the job when it has ended, or after wait.
func (c *Client) Poll(ctx context.Context, id uint64, wait time.Duration) (api.Job, error) {
	return c.poll(ctx, id, wait, c.options.Patience)
}

// Wait returns the job when it has ended. Once it has reached the cluster it survives absences of the leader of up to
// Options.WaitPatience.
func (c *Client) Wait(ctx context.Context, id uint64) (api.Job, error) {
	job, err := c.Job(ctx, id)
	for err == nil && !job.IsEnded() {
		job, err = c.poll(ctx, id, pollWait, c.options.WaitPatience)
	}
	return job, err
}

func (c *Client) poll(ctx context.Context, id uint64, wait, patience time.Duration) (api.Job, error) {
	c.listServersOnce(ctx) // for when the answer does not come
	q := get(JobPath(id) + "?wait=" + wait.String())
	q.timeout += wait
	q.patience, q.continues = patience, true
	var job api.Job
	var invalid error
	err := c.send(ctx, q, func(r *http.Response) error {
		body, err := readBody(r)
		if err != nil {
			return err
		}
		job = api.Job{}
		invalid = q.decode(body, &job)
		if age := ageOf(r); !job.IsEnded() && age > ageMax {
			return fmt.Errorf("%s has not heard from the leader for %v", r.Request.URL.Host, age.Round(time.Second))
		}
		return nil
	})
	return job, cmp.Or(err, invalid)
}

// Jobs returns the jobs that q selects, newest first, page by page. The sequence ends after its first error.
func (c *Client) Jobs(ctx context.Context, q api.JobQuery) iter.Seq2[api.Job, error] {
	return pages(q.Cursor, func(cursor string) ([]api.Job, string, error) {
		q.Cursor = cursor
		list, err := ask[api.JobList](ctx, c, get(JobsPath(q)))
		return list.Jobs, list.Next, err
	})
}

// Tasks returns the tasks that q selects, in index order, page by page. The sequence ends after its first error.
func (c *Client) Tasks(ctx context.Context, id uint64, q api.TaskQuery) iter.Seq2[api.Task, error] {
	return pages(q.Cursor, func(cursor string) ([]api.Task, string, error) {
		q.Cursor = cursor
		list, err := ask[api.TaskList](ctx, c, get(TasksPath(id, q)))
		return list.Tasks, list.Next, err
	})
}

// pages iterates over a paged list.
func pages[T any](cursor string, page func(cursor string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for cursor := cursor; ; {
			items, next, err := page(cursor)
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			cursor = next
		}
	}
}

// Task returns a task, with its latest failures.
func (c *Client) Task(ctx context.Context, id uint64, stage string, index uint64) (api.Task, error) {
	return ask[api.Task](ctx, c, get(TaskPath(id, stage, index)))
}

// TimesPath is the path of the run times of a job's tasks.
func TimesPath(id uint64, slowest int) string {
	return JobPath(id) + "/times?slowest=" + strconv.Itoa(slowest)
}

// Times returns the run times of the done tasks of a job, with the slowest of them, at most 1,000.
func (c *Client) Times(ctx context.Context, id uint64, slowest int) (api.Times, error) {
	return ask[api.Times](ctx, c, get(TimesPath(id, slowest)))
}

// Explain returns the reasons for the state of a job, or of a task if stage is not empty.
func (c *Client) Explain(ctx context.Context, id uint64, stage string, index uint64) (api.Explanation, error) {
	return ask[api.Explanation](ctx, c, get(ExplainPath(id, stage, index)))
}

// Stop stops a job.
func (c *Client) Stop(ctx context.Context, id uint64) (api.Job, error) {
	return ask[api.Job](ctx, c, repeatable(http.MethodPost, JobPath(id)+"/stop"))
}

// Forget removes a job that has ended, and its result, unless that was published in an output of its own.
func (c *Client) Forget(ctx context.Context, id uint64) error {
	return c.remove(ctx, JobPath(id))
}

// Keep keeps a job after its end, whatever the retention is, or ends that.
func (c *Client) Keep(ctx context.Context, id uint64, keep bool) (api.Job, error) {
	q := repeatable(http.MethodPut, JobPath(id)+"/keep")
	if !keep {
		q.method = http.MethodDelete
	}
	return ask[api.Job](ctx, c, q)
}

// retryTimeout lets the leader examine millions of files.
const retryTimeout = 10 * time.Minute

// Retry runs the failed and dead tasks of a job again. Files of its input that have changed are read in their new form, and their tasks that
// are done run again.
func (c *Client) Retry(ctx context.Context, id uint64) (api.Job, error) {
	return ask[api.Job](ctx, c, request{method: http.MethodPost, path: JobPath(id) + "/retry", timeout: retryTimeout})
}

// Cluster returns the cluster's health.
func (c *Client) Cluster(ctx context.Context) (api.Cluster, error) {
	return ask[api.Cluster](ctx, c, get(ClusterPath))
}

// Workers returns all workers, by number.
func (c *Client) Workers(ctx context.Context) ([]api.Worker, error) {
	list, err := ask[api.WorkerList](ctx, c, get(WorkersPath))
	return list.Workers, err
}

// Worker returns a worker.
func (c *Client) Worker(ctx context.Context, id uint64) (api.Worker, error) {
	return ask[api.Worker](ctx, c, get(WorkerPath(id)))
}

// DrainWorker lets a worker finish its running tasks and gives it no more.
func (c *Client) DrainWorker(ctx context.Context, id uint64) (api.Worker, error) {
	return ask[api.Worker](ctx, c, repeatable(http.MethodPost, WorkerPath(id)+"/drain"))
}

// RemoveWorker removes a worker from the cluster. Its tasks run on other workers.
func (c *Client) RemoveWorker(ctx context.Context, id uint64) error {
	return c.remove(ctx, WorkerPath(id))
}
