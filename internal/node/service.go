package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Submit plans the job and adds it to the log. Planning reads the folders of the input, in the caller's goroutine.
func (n *Node) Submit(ctx context.Context, req *api.JobRequest, key string) (id uint64, warnings []string, err error) {
	return n.SubmitStream(ctx, key, func(func([]byte) error) (*api.JobRequest, error) { return req, nil })
}

// SubmitStream is Submit of the request that read returns. Read passes on the lines of the request as they arrive, so that they are not in
// memory as a whole.
func (n *Node) SubmitStream(ctx context.Context, key string, read func(line func([]byte) error) (*api.JobRequest, error)) (
	id uint64, warnings []string, err error,
) {
	if err := n.acceptsWrites(ctx); err != nil {
		return 0, nil, err
	}
	if err := n.checkRate(access.From(ctx), 1); err != nil {
		return 0, nil, err
	}
	turn := largeTurn{turns: n.large}
	defer turn.end()
	lines := plan.NewLines(0)
	req, err := read(func(line []byte) error {
		if err := lines.Add(line); err != nil {
			return PlanProblem(err, "invalid job", "body.")
		}
		return turn.wait(ctx, lines.Bytes())
	})
	if err != nil {
		return 0, nil, err
	}
	began := time.Now() // the time before was the client's
	again, err := n.submitted(ctx, key)
	if err != nil {
		return 0, nil, err
	}
	job, err := n.planJob(ctx, req, plan.Options{Again: again, Lines: lines}, &turn)
	if err != nil {
		return 0, nil, PlanProblem(err, "invalid job", "body.")
	}
	if key == "" {
		key = newID()
	}
	e, err := n.submit(ctx, jobKey(ctx, key), job.UID, req.User, job.Spec, again)
	if err != nil {
		return 0, nil, err
	}
	n.observer.submit(time.Since(began))
	return uint64(e.Job), append(job.warnings, n.warnUnable(ctx, e.Job)...), nil
}

// plannedJob is a job on its way into the log.
type plannedJob struct {
	state.Submission
	warnings []string
}

// planJob plans a job. Errors of the request are of type plan.Errors.
func (n *Node) planJob(ctx context.Context, req *api.JobRequest, opt plan.Options, turn *largeTurn) (job plannedJob, err error) {
	opt.Builtins, opt.Stores, opt.Reserved = n.cfg.Builtins, n.cfg.Stores, n.cfg.Reserved
	if len(req.Inputs) > 0 || req.Output == "" {
		older := n.awaitLevel(ctx, "the job", 2) != nil // its first start takes a moment
		opt.OneByOne = older && len(req.Inputs) > 0
		opt.Check = !older && n.speak(ctx, wire.Protocol)
	}
	if opt.Slots, err = n.slots(ctx); err != nil {
		return job, err
	}
	opt.Turn = func(bytes uint64) error { return turn.wait(ctx, bytes) }
	opt.Spool = blob.Location(n.cfg.Spool)
	opt.Writes = func(locations []state.LockName, after []state.Dependency) (written bool, err error) {
		err = n.do(ctx, func() {
			m := n.loop.controller.Machine()
			written = slices.ContainsFunc(locations, func(l state.LockName) bool { return m.Writes(l.Name, after) })
		})
		return written, err
	}
	planned, err := plan.Plan(ctx, req, opt)
	if err != nil {
		return job, err
	}
	if err := turn.wait(ctx, planned.Input.BlockBytes()); err != nil {
		return job, err
	}
	who := access.From(ctx)
	if err := checkPriority(who, planned.Priority); err != nil {
		return job, err
	}
	job.UID, job.warnings = newID(), planned.Warnings
	job.Spec = n.spec(req, &planned, job.UID)
	if job.Spec.Secrets, err = n.sealSecrets(job.UID, req.Secrets); err != nil {
		return job, err
	}
	job.Spec.User = who.Name // not req.User: anyone could claim any
	if err := n.awaitLevel(ctx, "the job", job.Spec.Level()); err != nil {
		return job, err
	}
	if opt.OneByOne {
		job.warnings = append(job.warnings, "the job does not notice if a file of its input changes: some leaders of the cluster have an older version")
	}
	return job, nil
}

// slots is the number of slots of the workers that tasks can be leased to, or will soon be; 0: unknown.
func (n *Node) slots(ctx context.Context) (slots uint64, err error) {
	err = n.do(ctx, func() {
		m := n.loop.controller.Machine()
		for _, id := range m.Workers() {
			if w := m.Worker(id); w.Status == state.WorkerAlive {
				slots += uint64(w.Slots)
			}
		}
	})
	return max(slots, uint64(n.cfg.Slots)), err //nolint:gosec // not negative
}

// speak reports whether all workers that are connected support a version of the workers' protocol.
func (n *Node) speak(ctx context.Context, protocol uint32) (all bool) {
	_ = n.do(ctx, func() {
		c := n.loop.controller.Core()
		all = c != nil && c.Speak(protocol)
	})
	return all
}

// warnUnable says that no worker has the resources that a task of a job needs, though there are workers; nil: one has, or it is not known.
func (n *Node) warnUnable(ctx context.Context, id state.JobID) (warnings []string) {
	_ = n.do(ctx, func() { // the job is submitted, whatever comes
		m, c := n.loop.controller.Machine(), n.loop.controller.Core()
		job := m.Job(id)
		if c == nil || job == nil || len(job.Spec.Resources) == 0 {
			return
		}
		alive := slices.DeleteFunc(m.Workers(), func(id state.WorkerID) bool { return m.Worker(id).Status != state.WorkerAlive })
		if len(alive) > 0 && !slices.ContainsFunc(alive, func(id state.WorkerID) bool { return c.Fits(id, job.Spec) }) {
			warnings = []string{fmt.Sprintf("none of the workers has what each task needs: the job waits until one has; 'bridgefour explain %d' says what is lacking", id)}
		}
	})
	return warnings
}

// PlanProblem converts the errors of a request, whose fields are below a location.
func PlanProblem(err error, detail, location string) error {
	bad, ok := errors.AsType[plan.Errors](err)
	if !ok {
		return err
	}
	p := api.Invalid("%s", detail)
	for _, e := range bad {
		at := ""
		if e.Field != "" {
			at = location + e.Field
		}
		p = p.With(at, e.Message, nil)
	}
	return p
}

// awaitLevel waits until the cluster has a feature level, which takes a moment after its first start, and refuses what needs it if leaders are
// behind. What names it.
func (n *Node) awaitLevel(ctx context.Context, what string, level uint32) error {
	reached := func() (bool, error) {
		c, _ := n.views.Cluster()
		return c.Level >= level, nil
	}
	for rises := true; rises; rises = n.levelRises(ctx, level) {
		waiting, cancel := context.WithTimeout(ctx, electionWait)
		err := n.views.Changed().Wait(waiting, reached)
		late := waiting.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return err
		}
	}
	c, _ := n.views.Cluster()
	return api.Unavailable("%s needs feature level %d, and the cluster is at %d until every leader is connected and runs version %s or "+
		"newer: start or upgrade the others (bridgefour leaders lists them), then try again", what, level, c.Level, n.cfg.Version)
}

// levelRises reports whether the cluster has the feature level as soon as this leader's log and views have caught up.
func (n *Node) levelRises(ctx context.Context, level uint32) (rises bool) {
	_ = n.do(ctx, func() { // fails only when the caller leaves or the node stops
		c := n.loop.controller
		rises = c.Machine().Level() >= level || c.Leading() && (n.cfg.Peers == nil || len(n.cfg.Peers.Behind(state.FeatureLevel)) == 0)
	})
	return rises && n.ready.refusal() == ""
}

// jobKey separates clients' keys from the leader's own, and those of the users of tokens from each other: a key answers with a job.
func jobKey(ctx context.Context, key string) string {
	if who := access.From(ctx); who.Token != "" {
		return "job/" + who.Name + "\x00" + key
	}
	return "job/" + key
}

// submitted reports whether a job was submitted with this key before.
func (n *Node) submitted(ctx context.Context, key string) (again bool, err error) {
	if key == "" {
		return false, nil
	}
	err = n.do(ctx, func() { again = n.loop.controller.Machine().Submitted(jobKey(ctx, key)) })
	return again, err
}

// newID returns 16 random bytes in hexadecimal digits.
func newID() string { return randomHex(16) }

// spec converts a planned request for the log.
func (n *Node) spec(req *api.JobRequest, p *plan.Result, uid string) *state.Spec {
	s := &state.Spec{
		Name: req.Name, Builtin: req.Program.Builtin, Input: p.Input, InputNames: req.Inputs, Output: p.Output,
		Overwrite: req.Overwrite, NameParts: p.NameParts, KeepPartial: req.KeepPartial, FirstSuccess: p.FirstSuccess, Collect: p.Collects, Stages: p.Stages,
		Settings: req.Set, Dir: req.Dir, Retries: p.Retries, Priority: p.Priority, SlotsPerTask: p.SlotsPerTask,
		TimeoutMS: uint64(p.Timeout.Milliseconds()), GraceMS: uint64(p.Grace.Milliseconds()), Memory: p.Memory, Labels: p.Labels,
		Records: p.Records, Header: p.Header, Env: req.Env, Sandbox: req.Sandbox, NoNetwork: req.NoNetwork,
		MaxFails: p.MaxFails, RetryDelayMS: uint64(p.RetryDelay.Milliseconds()), DelayMS: uint64(p.Delay.Milliseconds()), MaxRunning: p.MaxRunning,
		After: p.After, Deferred: p.Deferred, Resources: p.Resources, Locks: p.Locks, Data: p.Data, FailOnConflict: p.FailOnConflict,
	}
	s.NoSecond, s.SplitMax, s.Pack = req.NoSpeculation, p.SplitMax, p.Pack
	s.Class, s.Reduce, s.Combine, s.Partitions = req.Class, req.Program.Reduce, req.Program.Combine, uint32(req.Partitions) //nolint:gosec // checked by plan
	s.Input.Growing = n.cfg.Growing && s.Input.Kind == state.InputFiles
	s.Placeholders, s.Placeholder, s.Shell = uint8(p.Command.Placeholders), p.Command.Placeholder, p.Command.Shell
	for _, a := range p.Command.Argv {
		s.Argv = append(s.Argv, []byte(a))
	}
	if s.Output == "" {
		s.Spool, s.Output = true, filepath.Join(n.cfg.Spool, uid)
	}
	if s.Name == "" {
		s.Name = s.Builtin
		if words := strings.Fields(req.Program.Shell); len(words) > 0 {
			s.Name = filepath.Base(words[0])
		} else if len(req.Program.Command) > 0 {
			s.Name = filepath.Base(req.Program.Command[0])
		}
	}
	return s
}

// Stop stops a job.
func (n *Node) Stop(ctx context.Context, id uint64) error {
	return n.jobCommand(ctx, id, (*state.Entry).Stop)
}

// Forget removes an ended job and what is kept of it: its logs on the leaders, and its result, unless that was published.
func (n *Node) Forget(ctx context.Context, id uint64) error {
	return n.jobCommand(ctx, id, (*state.Entry).Forget)
}

// Retry runs the dead tasks of a job again. It examines the files of the input again, in the caller's goroutine: those that have changed
// are read in their new form, in an active job too. The problem is a 422 if a file is gone, or has changed and has several splits. It also looks at the
// outputs in the spool, which no commit does: tasks whose output is lost run again, of a job that is done too.
func (n *Node) Retry(ctx context.Context, id uint64) error {
	if err := n.acceptsWrites(ctx); err != nil {
		return err
	}
	lost, err := n.LostOutputs(ctx, id)
	if err != nil {
		return err
	}
	var input *state.Input
	if err := n.do(ctx, func() {
		if job := n.loop.controller.Machine().Job(state.JobID(id)); job != nil && (job.Status != state.JobDone || len(lost) > 0) {
			input = &job.Spec.Input // never changes
		}
	}); err != nil {
		return err
	}
	var changed []state.FileChange
	if input != nil {
		var err error
		if changed, err = plan.Again(ctx, input, n.cfg.Stores); err != nil {
			return PlanProblem(err, fmt.Sprintf("job %d cannot be run again", id), "")
		}
	}
	return n.jobCommand(ctx, id, func(e *state.Entry, key string, job state.JobID) { e.RetryLost(key, job, lost, changed...) })
}

func (n *Node) jobCommand(ctx context.Context, id uint64, add func(e *state.Entry, key string, job state.JobID)) error {
	key := newID()
	_, err := n.execute(ctx, key, func(entry *state.Entry) { add(entry, key, state.JobID(id)) })
	return err
}

// Cluster returns the health of the cluster.
func (n *Node) Cluster() api.Cluster {
	members, status := n.members.Load(), n.cfg.Log.Status()
	c, _ := n.views.Cluster()
	c.ID, c.Node, c.Leader, c.Leaders, c.Term, c.Index = members.Cluster, status.ID, status.LeaderID, len(members.List), status.Term, n.views.Index()
	if c.NotReady = n.clusterNotReady(&status); c.NotReady != "" && c.Status == api.ClusterHealthy {
		c.Status = api.ClusterDegraded
	}
	return c
}

// Workers returns the workers by number, and then those that wait for an invitation.
func (n *Node) Workers() []api.Worker {
	_, workers := n.views.Cluster()
	return append(slices.Clip(workers), n.idleWorkers()...)
}

// Worker returns one worker.
func (n *Node) Worker(id uint64) (api.Worker, bool) {
	_, workers := n.views.Cluster()
	for _, w := range workers {
		if w.ID == id {
			w.Token = n.joinToken(n.Access().Enrolment(w.Identity))
			return w, true
		}
	}
	return api.Worker{}, false
}

// DrainWorker makes a worker finish its running attempts and leave.
func (n *Node) DrainWorker(ctx context.Context, id uint64) (api.Worker, error) {
	before, known := n.Worker(id)
	if err := n.setWorker(ctx, id, state.WorkerDraining); err != nil {
		return api.Worker{}, err
	}
	w, ok := n.Worker(id)
	switch {
	case ok:
		return w, nil
	case known: // it had no attempt, and has left already
		before.Status = state.WorkerDraining.String()
		return before, nil
	}
	return w, api.NotFound("worker %d no longer exists", id)
}

// RemoveWorker removes a worker. Its tasks are leased to others.
func (n *Node) RemoveWorker(ctx context.Context, id uint64) error {
	if w, ok := n.Worker(id); ok {
		if machine := n.Access().Enrolment(w.Identity); machine != nil { // first: it must not connect again
			if err := n.RevokeMachine(ctx, machine.Fingerprint); err != nil {
				return err
			}
		}
	}
	return n.setWorker(ctx, id, state.WorkerRemoved)
}

func (n *Node) setWorker(ctx context.Context, id uint64, status state.WorkerStatus) error {
	key := newID()
	_, err := n.execute(ctx, key, func(e *state.Entry) { e.SetWorker(key, state.WorkerID(id), status) })
	return err
}

// Status returns the log position that reads reflect, their age, and the leader's id. While the disk hangs, a follower hears of entries that it
// does not apply.
func (n *Node) Status() (index uint64, ageMillis int64, leader uint64) {
	status := n.cfg.Log.Status()
	if !n.ready.leading() {
		heard := status.Heard
		if heard.IsZero() {
			heard = n.ready.born
		}
		if w := status.Writing; !w.IsZero() && w.Before(heard) {
			heard = w
		}
		ageMillis = max(0, time.Since(heard).Milliseconds())
	}
	return n.views.Index(), ageMillis, status.LeaderID
}
