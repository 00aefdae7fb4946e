// Package httpapitest holds a leader in memory, and helpers, for tests of HTTP routes.
package httpapitest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// Fake is a node in memory, as the HTTP routes use one. Its state is changed within Change, or before it is used.
type Fake struct {
	mu      sync.Mutex
	changed chan struct{}     // closed and replaced at each change
	keys    map[string]uint64 // jobs by Idempotency-Key
	locks   []*lockEntry      // in their order
	fence   uint64            // of the last grant

	Index      uint64
	JobByID    map[uint64]api.Job
	TasksOf    map[uint64][]api.Task // by job
	WorkerByID map[uint64]api.Worker
	Got        api.JobRequest // the last submission

	Address    string // of the node that leads; empty: none is known
	Self       bool   // it is this one
	Age        int64
	LeaderList api.LeaderList
	Idle       map[string]api.Worker // by address: workers that wait to be invited
	EventLog   []api.Event
	PartList   []api.Part // the outputs of each job
	TokenList  []api.Token
	QuotaList  []api.Quota
	Retained   []api.Retention // but that of all jobs together
	RetainAll  api.RetentionRequest
	Oldest     uint64 // events before this log position are not kept

	ClusterState   api.Cluster
	ConsensusState api.Consensus
	Unready        string // what NotReady returns

	// Hooks replace or, OnSubmit, precede single methods.
	OnReadIndex func(ctx context.Context) (uint64, error)
	OnSubmit    func(*api.JobRequest) error
	OnResult    func(ctx context.Context, w io.Writer) error
	OnLogs      func(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error
}

// NewFake is a leader of a healthy cluster without jobs and workers, at log position 7.
func NewFake() *Fake {
	return &Fake{
		Index: 7, JobByID: map[uint64]api.Job{}, TasksOf: map[uint64][]api.Task{}, WorkerByID: map[uint64]api.Worker{}, keys: map[string]uint64{},
		changed: make(chan struct{}), Address: "10.0.0.1:6550", Self: true, Idle: map[string]api.Worker{},
		ClusterState: api.Cluster{Name: "test", Status: api.ClusterHealthy},
	}
}

// Change changes the state and moves the log on.
func (l *Fake) Change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.Index++
	close(l.changed)
	l.changed = make(chan struct{})
}

// Set adds or replaces a job.
func (l *Fake) Set(job api.Job) { l.Change(func() { l.JobByID[job.ID] = job }) }

// until waits until ok.
func (l *Fake) until(ctx context.Context, ok func() (bool, error)) error {
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

// SubmitStream implements httpapi.Leader.
func (l *Fake) SubmitStream(ctx context.Context, key string, read func(line func([]byte) error) (*api.JobRequest, error)) (
	id uint64, warnings []string, err error,
) {
	var raw []byte
	var items []string
	cut := false // a line holds a newline
	req, err := read(func(line []byte) error {
		raw, items, cut = append(append(raw, line...), '\n'), append(items, string(line)), cut || bytes.IndexByte(line, '\n') >= 0
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	if req.Lines != nil && cut {
		req.Lines.Items = items
	} else if req.Lines != nil {
		req.Lines.Raw = raw
	}
	return l.Submit(ctx, req, key)
}

// Submit implements httpapi.Leader.
func (l *Fake) Submit(_ context.Context, req *api.JobRequest, key string) (id uint64, warnings []string, err error) {
	if l.OnSubmit != nil {
		if err := l.OnSubmit(req); err != nil {
			return 0, nil, err
		}
	}
	l.Change(func() {
		l.Got = *req
		if first, known := l.keys[key]; known && key != "" {
			id = first
			return
		}
		id = uint64(len(l.JobByID)) + 1
		l.keys[key] = id
		l.TasksOf[id] = []api.Task{}
		for _, input := range inputs(req) {
			l.TasksOf[id] = append(l.TasksOf[id], api.Task{Index: uint64(len(l.TasksOf[id])), Stage: "map", Status: api.TaskOpen, Input: input})
		}
		tasks := uint64(len(l.TasksOf[id]))
		l.JobByID[id] = api.Job{
			ID: id, Name: req.Name, Program: req.Program, Status: api.JobWaiting, Output: req.Output, Inputs: req.Inputs, Set: req.Set, Class: req.Class,
			Stages: []api.Stage{{Name: "map", Tasks: tasks, Open: tasks}},
		}
		l.emit(api.Event{Type: api.EventJobSubmitted, Job: id, Status: api.JobWaiting})
	})
	return id, nil, nil
}

// SubmitFlow implements httpapi.Leader.
func (l *Fake) SubmitFlow(ctx context.Context, req *api.FlowRequest, key string) (ids []uint64, warnings [][]string, err error) {
	for i := range req.Jobs {
		of := key
		if key != "" {
			of += "/" + strconv.Itoa(i)
		}
		id, some, err := l.Submit(ctx, &req.Jobs[i], of)
		if err != nil {
			return nil, nil, err
		}
		ids, warnings = append(ids, id), append(warnings, some)
	}
	return ids, warnings, nil
}

// inputs are the inputs of the tasks of a request.
func inputs(req *api.JobRequest) []string {
	list := slices.Clone(req.Inputs)
	for n := int64(0); req.Range != nil && n <= req.Range.To-req.Range.From; n++ {
		list = append(list, fmt.Sprint(req.Range.From+n))
	}
	return list
}

// Turn gives a job another status.
func (l *Fake) Turn(id uint64, status string) error {
	job, ok := l.job(id)
	if !ok {
		return api.NoJob(id)
	}
	job.Status = status
	l.Set(job)
	return nil
}

// Stop implements httpapi.Leader.
func (l *Fake) Stop(_ context.Context, id uint64) error {
	if job, ok := l.job(id); ok && job.Status == api.JobDone {
		return api.Conflict("job %d is %s", id, job.Status)
	}
	err := l.Turn(id, api.JobStopped)
	if err == nil {
		l.Emit(api.Event{Type: api.EventJobEnded, Job: id, Status: api.JobStopped})
	}
	return err
}

// Retry implements httpapi.Leader.
func (l *Fake) Retry(_ context.Context, id uint64) error {
	if job, ok := l.job(id); ok && job.Status != api.JobFailed && job.Status != api.JobStopped {
		return api.Conflict("job %d is %s", id, job.Status)
	}
	return l.Turn(id, api.JobRunning)
}

// Forget implements httpapi.Leader.
func (l *Fake) Forget(_ context.Context, id uint64) error {
	job, ok := l.job(id)
	switch {
	case !ok:
		return api.NoJob(id)
	case !job.IsEnded():
		return api.Conflict("job %d has not ended", id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.JobByID, id)
	return nil
}

// Job implements httpapi.Leader. All jobs are shown to everyone.
func (l *Fake) Job(_ context.Context, id uint64) (api.Job, bool) { return l.job(id) }

func (l *Fake) job(id uint64) (api.Job, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	job, ok := l.JobByID[id]
	return job, ok
}

// Jobs implements httpapi.Leader.
func (l *Fake) Jobs(_ context.Context, q api.JobQuery) (api.JobList, error) {
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
	ids := slices.Sorted(maps.Keys(l.JobByID))
	slices.Reverse(ids)
	for _, id := range ids {
		if job := l.JobByID[id]; id >= before || len(q.Status) > 0 && !slices.Contains(q.Status, job.Status) || q.User != "" && q.User != job.User {
			continue
		}
		if len(list.Jobs) == q.Limit {
			list.Next = fmt.Sprint(list.Jobs[len(list.Jobs)-1].ID)
			break
		}
		list.Jobs = append(list.Jobs, l.JobByID[id])
	}
	return list, nil
}

// WaitJob implements httpapi.Leader.
func (l *Fake) WaitJob(ctx context.Context, id uint64) error {
	return l.until(ctx, func() (bool, error) {
		job, ok := l.JobByID[id]
		if !ok {
			return false, api.NoJob(id)
		}
		return job.IsEnded(), nil
	})
}

// WaitIndex implements httpapi.Leader.
func (l *Fake) WaitIndex(ctx context.Context, index uint64) error {
	return l.until(ctx, func() (bool, error) { return l.Index >= index, nil })
}

// Tasks implements httpapi.Leader.
func (l *Fake) Tasks(_ context.Context, id uint64, q api.TaskQuery) (api.TaskList, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks, ok := l.TasksOf[id]
	if !ok {
		return api.TaskList{}, api.NoJob(id)
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

// Task implements httpapi.Leader.
func (l *Fake) Task(_ context.Context, id uint64, stage string, index uint64) (api.Task, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stage != "map" || index >= uint64(len(l.TasksOf[id])) {
		return api.Task{}, api.NotFound("there is no task %d/%s/%d", id, stage, index)
	}
	return l.TasksOf[id][index], nil
}

// Explain implements httpapi.Leader.
func (l *Fake) Explain(_ context.Context, id uint64, stage string, index uint64) (api.Explanation, error) {
	if _, ok := l.job(id); !ok {
		return api.Explanation{}, api.NoJob(id)
	}
	subject := fmt.Sprint(id)
	if stage != "" {
		subject = fmt.Sprintf("%d/%s/%d", id, stage, index)
	}
	return api.Explanation{Subject: subject, Status: "waiting"}, nil
}

// Result implements httpapi.Leader.
func (l *Fake) Result(ctx context.Context, id uint64, w io.Writer) error {
	job, ok := l.job(id)
	switch {
	case !ok:
		return api.NoJob(id)
	case !job.IsEnded():
		return api.Conflict("job %d is %s", id, job.Status)
	}
	return l.OnResult(ctx, w)
}

// StreamParts implements httpapi.Leader.
func (l *Fake) StreamParts(_ context.Context, q api.PartQuery, emit func(api.Part) error) error {
	if _, ok := l.job(q.Job); !ok {
		return api.NoJob(q.Job)
	}
	for _, part := range l.PartList {
		if err := emit(part); err != nil {
			return err
		}
	}
	return nil
}

// Joblog implements httpapi.Leader.
func (l *Fake) Joblog(_ context.Context, id uint64, w io.Writer) error {
	if _, ok := l.job(id); !ok {
		return api.NoJob(id)
	}
	_, err := io.WriteString(w, "Seq\tHost\n")
	return err
}

// Times implements httpapi.Leader.
func (l *Fake) Times(_ context.Context, id uint64, slowest int) (api.Times, error) {
	if _, ok := l.job(id); !ok {
		return api.Times{}, api.NoJob(id)
	}
	return api.Times{Tasks: uint64(len(l.TasksOf[id])), Slowest: l.TasksOf[id][:min(slowest, len(l.TasksOf[id]))]}, nil
}

// Logs implements httpapi.Leader.
func (l *Fake) Logs(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error {
	if _, ok := l.job(q.Job); !ok {
		return api.NoJob(q.Job)
	}
	return l.OnLogs(ctx, q, emit)
}

// NotReady implements httpapi.Leader.
func (l *Fake) NotReady() string { return l.Unready }

// Cluster implements httpapi.Leader.
func (l *Fake) Cluster() api.Cluster { return l.ClusterState }

// Consensus implements httpapi.Leader.
func (l *Fake) Consensus() api.Consensus { return l.ConsensusState }

// Workers implements httpapi.Leader.
func (l *Fake) Workers() []api.Worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	var workers []api.Worker
	for _, id := range slices.Sorted(maps.Keys(l.WorkerByID)) {
		workers = append(workers, l.WorkerByID[id])
	}
	return workers
}

// Worker implements httpapi.Leader.
func (l *Fake) Worker(id uint64) (api.Worker, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, ok := l.WorkerByID[id]
	return w, ok
}

// DrainWorker implements httpapi.Leader.
func (l *Fake) DrainWorker(_ context.Context, id uint64) (api.Worker, error) {
	w, ok := l.Worker(id)
	if !ok {
		return api.Worker{}, api.NotFound("no worker %d", id)
	}
	w.Status = api.WorkerDraining
	l.Change(func() { l.WorkerByID[id] = w })
	return w, nil
}

// RemoveWorker implements httpapi.Leader.
func (l *Fake) RemoveWorker(_ context.Context, id uint64) error {
	if _, ok := l.Worker(id); !ok {
		return api.NotFound("no worker %d", id)
	}
	l.Change(func() { delete(l.WorkerByID, id) })
	return nil
}

// Status implements httpapi.Leader.
func (l *Fake) Status() (index uint64, ageMillis int64, leader uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Index, l.Age, 1
}

// Follow makes it a node that follows the one at address; empty: none leads.
func (l *Fake) Follow(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Address, l.Self = address, false
	close(l.changed)
	l.changed = make(chan struct{})
}

// LeaderAddress implements httpapi.Leader.
func (l *Fake) LeaderAddress() (address string, self bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Address, l.Self
}

// WaitLeader implements httpapi.Leader.
func (l *Fake) WaitLeader(ctx context.Context, gone string) error {
	return l.until(ctx, func() (bool, error) { return l.Address != "" && l.Address != gone, nil })
}

// ReadIndex implements httpapi.Leader.
func (l *Fake) ReadIndex(ctx context.Context) (uint64, error) {
	if l.OnReadIndex != nil {
		return l.OnReadIndex(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Index, nil
}

// Leaders implements httpapi.Leader.
func (l *Fake) Leaders() api.LeaderList {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.LeaderList
	list.Leaders = slices.Clone(list.Leaders)
	return list
}

// AddLeader implements httpapi.Leader.
func (l *Fake) AddLeader(_ context.Context, address string) (api.LeaderNode, error) {
	var node api.LeaderNode
	l.Change(func() {
		node = api.LeaderNode{ID: uint64(len(l.LeaderList.Leaders)) + 1, Address: address, Status: api.LeaderLearns}
		l.LeaderList.Leaders = append(l.LeaderList.Leaders, node)
	})
	return node, nil
}

// RemoveLeader implements httpapi.Leader.
func (l *Fake) RemoveLeader(_ context.Context, id uint64, force bool) error {
	list := l.Leaders().Leaders
	at := slices.IndexFunc(list, func(n api.LeaderNode) bool { return n.ID == id })
	switch {
	case at < 0:
		return api.NotFound("no leader %d", id)
	case len(list) == 2 && !force:
		return api.Conflict("without leader %d there is no majority", id)
	}
	l.Change(func() { l.LeaderList.Leaders = slices.Delete(list, at, at+1) })
	return nil
}

// InviteWorker implements httpapi.Leader.
func (l *Fake) InviteWorker(_ context.Context, address string, id *uint64) (api.Worker, error) {
	w, ok := l.Idle[address]
	if !ok && id != nil {
		w, ok = api.Worker{ID: uint64(len(l.WorkerByID)) + 1, Status: api.WorkerDead, Address: address}, true
	}
	w.Claim = id
	if !ok {
		return api.Worker{}, api.Conflict("no worker answers at %s", address)
	}
	l.Change(func() { l.WorkerByID[w.ID] = w })
	return w, nil
}

// Emit appends an event at the next log position.
func (l *Fake) Emit(e api.Event) { l.Change(func() { l.emit(e) }) }

// emit is Emit within Change.
func (l *Fake) emit(e api.Event) {
	e.Index = l.Index + 1
	l.EventLog = append(l.EventLog, e)
}

// Events implements httpapi.Leader.
func (l *Fake) Events(ctx context.Context, after api.Position, emit func(api.Event) error) error {
	for {
		var next []api.Event
		if err := l.until(ctx, func() (bool, error) {
			if after.Index < l.Oldest {
				return false, api.Gone("events after %d-%d are not kept", after.Index, after.Seq)
			}
			next = nil
			for _, e := range l.EventLog {
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

// Tokens implements httpapi.Leader.
func (l *Fake) Tokens() []api.Token {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]api.Token{}, l.TokenList...)
}

// Quotas implements httpapi.Leader.
func (l *Fake) Quotas() []api.Quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]api.Quota{}, l.QuotaList...)
}

// SetQuota implements httpapi.Leader.
func (l *Fake) SetQuota(ctx context.Context, q api.Quota) error {
	_ = l.RemoveQuota(ctx, q.User) // it may be new
	l.Change(func() {
		l.QuotaList = append(l.QuotaList, q)
		slices.SortFunc(l.QuotaList, func(a, b api.Quota) int { return strings.Compare(a.User, b.User) })
	})
	return nil
}

// RemoveQuota implements httpapi.Leader.
func (l *Fake) RemoveQuota(_ context.Context, user string) (err error) {
	l.Change(func() {
		n := len(l.QuotaList)
		if l.QuotaList = slices.DeleteFunc(l.QuotaList, func(q api.Quota) bool { return q.User == user }); len(l.QuotaList) == n {
			err = api.NotFound("user %q has no quota", user)
		}
	})
	return err
}

// Retentions implements httpapi.Leader.
func (l *Fake) Retentions() []api.Retention {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := api.Retention{User: "*", RetentionRequest: l.RetainAll}
	all.Jobs = cmp.Or(all.Jobs, 1000)
	return append([]api.Retention{all}, l.Retained...)
}

// SetRetention implements httpapi.Leader.
func (l *Fake) SetRetention(_ context.Context, r api.Retention) error {
	l.Change(func() {
		if r.User == "*" {
			l.RetainAll = r.RetentionRequest
			return
		}
		l.Retained = slices.DeleteFunc(l.Retained, func(old api.Retention) bool { return old.User == r.User })
		if r.RetentionRequest != (api.RetentionRequest{}) {
			l.Retained = append(l.Retained, r)
			slices.SortFunc(l.Retained, func(a, b api.Retention) int { return strings.Compare(a.User, b.User) })
		}
	})
	return nil
}

// Pin implements httpapi.Leader.
func (l *Fake) Pin(_ context.Context, id uint64, pinned bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	job, ok := l.JobByID[id]
	if !ok {
		return api.NoJob(id)
	}
	job.Pinned = pinned
	l.JobByID[id] = job
	return nil
}

// CreateToken implements httpapi.Leader.
func (l *Fake) CreateToken(_ context.Context, role, user string, ttl time.Duration) (t api.NewToken, err error) {
	l.Change(func() {
		t.Token = api.Token{ID: fmt.Sprintf("token%d", l.Index), Role: role, User: user, Created: time.Unix(1, 0).UTC()}
		if ttl > 0 {
			expires := t.Created.Add(ttl)
			t.Expires = &expires
		}
		t.Join = "b4:" + l.Address + "//" + t.ID + "_SECRET"
		l.TokenList = append(l.TokenList, t.Token)
	})
	return t, nil
}

// Certify implements httpapi.Leader.
func (*Fake) Certify(context.Context, api.CertificateRequest) (api.Certificate, error) {
	return api.Certificate{Certificate: []byte{1}, Authorities: [][]byte{{2}}}, nil
}

// RotateAuthority implements httpapi.Leader.
func (*Fake) RotateAuthority(context.Context, bool, bool) (api.Authority, error) {
	return api.Authority{Number: 2}, nil
}

// RevokeToken implements httpapi.Leader.
func (l *Fake) RevokeToken(_ context.Context, id string) (err error) {
	l.Change(func() {
		n := len(l.TokenList)
		if l.TokenList = slices.DeleteFunc(l.TokenList, func(t api.Token) bool { return t.ID == id }); len(l.TokenList) == n {
			err = api.NotFound("there is no token %q", id)
		}
	})
	return err
}

// Refused implements httpapi.Leader.
func (*Fake) Refused(context.Context, error) {}
