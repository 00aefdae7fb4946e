package httpapi

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLeader holds jobs and workers in maps. Its hooks replace single methods.
type fakeLeader struct {
	mu      sync.Mutex
	index   uint64
	jobs    map[uint64]api.Job
	tasks   map[uint64][]api.Task
	workers map[uint64]api.Worker
	keys    map[string]uint64
	got     api.JobRequest // the last submission
	changed chan struct{}  // closed and replaced at each change

	address string // of the node that leads; empty: none is known
	self    bool   // it is this one
	age     int64
	leaders api.LeaderList
	idle    map[string]api.Worker // by address: workers that wait to be invited
	events  []api.Event
	oldest  uint64 // events before this log position are not kept

	cluster   api.Cluster
	notReady  string
	consensus api.Consensus
	readIndex func(ctx context.Context) (uint64, error)
	submit    func(*api.JobRequest) error
	result    func(ctx context.Context, w io.Writer) error
	logs      func(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error
}

func newFakeLeader() *fakeLeader {
	return &fakeLeader{
		index: 7, jobs: map[uint64]api.Job{}, tasks: map[uint64][]api.Task{}, workers: map[uint64]api.Worker{}, keys: map[string]uint64{},
		changed: make(chan struct{}), address: "10.0.0.1:6550", self: true, idle: map[string]api.Worker{}, cluster: api.Cluster{Name: "test", Status: api.ClusterHealthy},
	}
}

// ownHosts accepts the host of httptest's requests.
func ownHosts() access.Hosts { return access.NewHosts("example.com") }

func newAPI(l Leader) *API {
	return New(Options{Leader: l, Hosts: ownHosts(), Version: "v0", Log: slog.New(slog.DiscardHandler), Metrics: http.NotFoundHandler()})
}

// change changes the state and moves the log on.
func (l *fakeLeader) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.index++
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *fakeLeader) set(job api.Job) { l.change(func() { l.jobs[job.ID] = job }) }

// until waits until ok.
func (l *fakeLeader) until(ctx context.Context, ok func() (bool, error)) error {
	for {
		l.mu.Lock()
		good, err := ok()
		changed := l.changed
		l.mu.Unlock()
		if good || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *fakeLeader) Submit(_ context.Context, req *api.JobRequest, key string) (api.Job, error) {
	if l.submit != nil {
		if err := l.submit(req); err != nil {
			return api.Job{}, err
		}
	}
	var job api.Job
	l.change(func() {
		l.got = *req
		id, known := l.keys[key]
		if !known || key == "" {
			id = uint64(len(l.jobs)) + 1
			l.keys[key] = id
			l.jobs[id] = api.Job{
				ID: id, Name: req.Name, Program: req.Program, Status: api.JobWaiting, Output: req.Output, Inputs: req.Inputs, Set: req.Set,
				Stages: []api.Stage{{Name: "map", Tasks: uint64(len(req.Inputs)), Open: uint64(len(req.Inputs))}},
			}
			l.tasks[id] = []api.Task{}
			for i, input := range req.Inputs {
				l.tasks[id] = append(l.tasks[id], api.Task{Index: uint64(i), Stage: "map", Status: api.TaskOpen, Input: input})
			}
		}
		job = l.jobs[id]
	})
	return job, nil
}

func (l *fakeLeader) turn(id uint64, status string) (api.Job, error) {
	job, ok := l.Job(id)
	if !ok {
		return api.Job{}, api.NotFound("there is no job %d", id)
	}
	job.Status = status
	l.set(job)
	return job, nil
}

func (l *fakeLeader) Stop(_ context.Context, id uint64) (api.Job, error) {
	if job, ok := l.Job(id); ok && job.IsEnded() {
		return api.Job{}, api.Conflict("job %d is %s", id, job.Status)
	}
	return l.turn(id, api.JobStopped)
}

func (l *fakeLeader) Retry(_ context.Context, id uint64) (api.Job, error) {
	return l.turn(id, api.JobRunning)
}

func (l *fakeLeader) Job(id uint64) (api.Job, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	job, ok := l.jobs[id]
	return job, ok
}

func (l *fakeLeader) Jobs(q api.JobQuery) (api.JobList, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := uint64(1 << 62)
	if q.Cursor != "" {
		n, err := strconv.ParseUint(q.Cursor, 10, 64)
		if err != nil {
			return api.JobList{}, api.Invalid("cursor %q is not one of this API", q.Cursor)
		}
		before = n
	}
	var list api.JobList
	ids := slices.Sorted(maps.Keys(l.jobs))
	slices.Reverse(ids)
	for _, id := range ids {
		if id >= before || len(q.Status) > 0 && !slices.Contains(q.Status, l.jobs[id].Status) {
			continue
		}
		if len(list.Jobs) == q.Limit {
			list.Next = fmt.Sprint(list.Jobs[len(list.Jobs)-1].ID)
			break
		}
		list.Jobs = append(list.Jobs, l.jobs[id])
	}
	return list, nil
}

func (l *fakeLeader) WaitJob(ctx context.Context, id uint64) error {
	return l.until(ctx, func() (bool, error) {
		job, ok := l.jobs[id]
		if !ok {
			return false, api.NotFound("there is no job %d", id)
		}
		return job.IsEnded(), nil
	})
}

func (l *fakeLeader) WaitIndex(ctx context.Context, index uint64) error {
	return l.until(ctx, func() (bool, error) { return l.index >= index, nil })
}

func (l *fakeLeader) Tasks(_ context.Context, id uint64, q api.TaskQuery) (api.TaskList, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks, ok := l.tasks[id]
	if !ok {
		return api.TaskList{}, api.NotFound("there is no job %d", id)
	}
	var list api.TaskList
	first, _ := strconv.Atoi(q.Cursor)
	for i, task := range tasks {
		if i < first || q.Status != "" && q.Status != task.Status || q.Stage != "" && q.Stage != task.Stage {
			continue
		}
		if len(list.Tasks) == q.Limit {
			list.Next = strconv.Itoa(i)
			break
		}
		list.Tasks = append(list.Tasks, task)
	}
	return list, nil
}

func (l *fakeLeader) Task(_ context.Context, id uint64, stage string, index uint64) (api.Task, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stage != "map" || index >= uint64(len(l.tasks[id])) {
		return api.Task{}, api.NotFound("there is no task %d/%s/%d", id, stage, index)
	}
	return l.tasks[id][index], nil
}

func (l *fakeLeader) Explain(_ context.Context, id uint64, stage string, index uint64) (api.Explanation, error) {
	subject := fmt.Sprint(id)
	if stage != "" {
		subject = fmt.Sprintf("%d/%s/%d", id, stage, index)
	}
	return api.Explanation{Subject: subject, Status: "waiting"}, nil
}

func (l *fakeLeader) Result(ctx context.Context, _ uint64, w io.Writer) error {
	return l.result(ctx, w)
}

func (l *fakeLeader) Logs(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error {
	return l.logs(ctx, q, emit)
}

func (l *fakeLeader) NotReady() string { return l.notReady }

func (l *fakeLeader) Cluster() api.Cluster     { return l.cluster }
func (l *fakeLeader) Consensus() api.Consensus { return l.consensus }

func (l *fakeLeader) Workers() []api.Worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	var workers []api.Worker
	for _, id := range slices.Sorted(maps.Keys(l.workers)) {
		workers = append(workers, l.workers[id])
	}
	return workers
}

func (l *fakeLeader) Worker(id uint64) (api.Worker, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, ok := l.workers[id]
	return w, ok
}

func (l *fakeLeader) DrainWorker(_ context.Context, id uint64) (api.Worker, error) {
	w, ok := l.Worker(id)
	if !ok {
		return api.Worker{}, api.NotFound("there is no worker %d", id)
	}
	w.Status = api.WorkerDraining
	l.change(func() { l.workers[id] = w })
	return w, nil
}

func (l *fakeLeader) RemoveWorker(_ context.Context, id uint64) error {
	if _, ok := l.Worker(id); !ok {
		return api.NotFound("there is no worker %d", id)
	}
	l.change(func() { delete(l.workers, id) })
	return nil
}

func (l *fakeLeader) Status() (index uint64, ageMillis int64, leader uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.index, l.age, 1
}

// follow makes it a node that follows the one at address; empty: nobody leads.
func (l *fakeLeader) follow(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.address, l.self = address, false
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *fakeLeader) LeaderAddress() (address string, self bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.address, l.self
}

func (l *fakeLeader) WaitLeader(ctx context.Context) error {
	return l.until(ctx, func() (bool, error) { return l.address != "", nil })
}

func (l *fakeLeader) ReadIndex(ctx context.Context) (uint64, error) {
	if l.readIndex != nil {
		return l.readIndex(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.index, nil
}

func (l *fakeLeader) Leaders() api.LeaderList {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.leaders
	list.Leaders = slices.Clone(list.Leaders)
	return list
}

func (l *fakeLeader) AddLeader(_ context.Context, address string) (api.LeaderNode, error) {
	var node api.LeaderNode
	l.change(func() {
		node = api.LeaderNode{ID: uint64(len(l.leaders.Leaders)) + 1, Address: address, Status: api.LeaderLearns}
		l.leaders.Leaders = append(l.leaders.Leaders, node)
	})
	return node, nil
}

func (l *fakeLeader) RemoveLeader(_ context.Context, id uint64, force bool) error {
	list := l.Leaders().Leaders
	at := slices.IndexFunc(list, func(n api.LeaderNode) bool { return n.ID == id })
	switch {
	case at < 0:
		return api.NotFound("there is no leader %d", id)
	case len(list) == 2 && !force:
		return api.Conflict("without leader %d there is no majority", id)
	}
	l.change(func() { l.leaders.Leaders = slices.Delete(list, at, at+1) })
	return nil
}

func (l *fakeLeader) InviteWorker(_ context.Context, address string) (api.Worker, error) {
	w, ok := l.idle[address]
	if !ok {
		return api.Worker{}, api.Conflict("no worker answers at %s", address)
	}
	l.change(func() { l.workers[w.ID] = w })
	return w, nil
}

// tell appends an event at the next log position.
func (l *fakeLeader) tell(e api.Event) {
	l.change(func() {
		e.Index = l.index + 1
		l.events = append(l.events, e)
	})
}

func (l *fakeLeader) Events(ctx context.Context, after api.Position, emit func(api.Event) error) error {
	for {
		var next []api.Event
		if err := l.until(ctx, func() (bool, error) {
			if after.Index < l.oldest {
				return false, api.Gone("events after %d-%d are not kept", after.Index, after.Seq)
			}
			next = nil
			for _, e := range l.events {
				if e.Index > after.Index || e.Index == after.Index && e.Seq > after.Seq {
					next = append(next, e)
				}
			}
			return len(next) > 0, nil
		}); err != nil {
			return err
		}
		for _, e := range next {
			if err := emit(e); err != nil {
				return err
			}
			after = api.Position{Index: e.Index, Seq: e.Seq}
		}
	}
}

// fullJob has every field that a status read encodes.
func fullJob(id uint64) api.Job {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return api.Job{
		ID: id, Name: "count", User: "ada", Program: api.Program{Builtin: "wordcount"}, Status: api.JobRunning, Output: "/data/out",
		Stages: []api.Stage{
			{Name: "map", Tasks: 1_000_000, Open: 1, Running: 2, Done: 999_997},
			{Name: "collect", Tasks: 1, Open: 1},
			{Name: "commit", Tasks: 1, Open: 1},
		},
		Inputs: []string{"/data/in"}, Set: map[string]string{"timeout": "2"}, Priority: 50, Retries: 3,
		InputBytes: 1 << 30, ReadBytes: 1 << 29, OutputBytes: 1 << 20, Records: 123456, Created: at, Started: &at,
	}
}
