package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// leads waits until this node leads.
func (r *rig) leads() {
	r.t.Helper()
	r.until("leading", func() bool { _, self := r.node.LeaderAddress(); return self })
}

// caughtUp waits until this node's views reflect the whole log.
func (r *rig) caughtUp() {
	r.t.Helper()
	index, err := r.node.ReadIndex(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.node.WaitIndex(r.t.Context(), index); err != nil {
		r.t.Fatal(err)
	}
}

func TestFollowerServesReads(t *testing.T) {
	rigs := newRigs(t, 3)
	leader, follower := rigs[0].node, rigs[1].node
	rigs[0].worker("alice", finishAll)
	submit(t, leader, request(3), "")
	finished(t, leader, 1)
	rigs[1].caughtUp()
	<-follower.Begun()
	job, ok := follower.Job(1)
	if !ok || job.Status != api.JobDone || job.Stages[0].Done != 3 || job.OutputBytes != 18 {
		t.Errorf("Job(1) on a follower = %+v, %v, want it done", job, ok)
	}
	if list, err := follower.Jobs(api.JobQuery{Limit: 5}); err != nil || len(list.Jobs) != 1 {
		t.Errorf("Jobs() on a follower = %+v, %v", list, err)
	}
	var b bytes.Buffer
	if err := follower.Result(t.Context(), 1, &b); err != nil || b.String() != "map 0\nmap 1\nmap 2\n" {
		t.Errorf("Result() on a follower = %q, %v", b.String(), err)
	}
	c := follower.Cluster()
	if c.ID != "c1" || c.Name != "test" || c.Node != 2 || c.Leader != 1 || c.Leaders != 3 || c.Workers != 1 || c.Slots != 2 || c.NotReady != "" {
		t.Errorf("Cluster() on a follower = %+v", c)
	}
	if w, ok := follower.Worker(1); !ok || w.Identity != "alice" {
		t.Errorf("Worker(1) on a follower = %+v, %v", w, ok)
	}
	if address, self := follower.LeaderAddress(); address != "leader-1:1" || self {
		t.Errorf("LeaderAddress() on a follower = %q, %v", address, self)
	}
	if _, age, id := follower.Status(); age > 1000 || id != 1 {
		t.Errorf("Status() on a follower = age %d, leader %d", age, id)
	}
	log := follower.cfg.Log.(*fakeLog) //nolint:forcetypeassert // of this test
	log.mu.Lock()
	log.writing = time.Now().Add(-time.Hour)
	log.mu.Unlock()
	if _, age, _ := follower.Status(); age < time.Hour.Milliseconds() {
		t.Errorf("Status() on a follower whose disk hangs for an hour = age %d", age)
	}
	_, _, err := follower.Submit(t.Context(), request(1), "")
	problemOf(t, err, http.StatusServiceUnavailable, "the leader is at leader-1:1")
	notLeaderOf(t, err)
	for what, f := range map[string]func() error{
		"Tasks":   func() error { _, err := follower.Tasks(t.Context(), 1, api.TaskQuery{Limit: 1}); return err },
		"Task":    func() error { _, err := follower.Task(t.Context(), 1, "map", 0); return err },
		"Explain": func() error { _, err := follower.Explain(t.Context(), 1, "", 0); return err },
		"Logs":    func() error { return follower.Logs(t.Context(), api.LogQuery{Job: 1}, nil) },
		"Stop":    func() error { err := follower.Stop(t.Context(), 1); return err },
		"Drain":   func() error { _, err := follower.DrainWorker(t.Context(), 1); return err },
		"Add":     func() error { _, err := follower.AddLeader(t.Context(), "h:1"); return err },
		"Remove":  func() error { return follower.RemoveLeader(t.Context(), 3, true) },
		"Invite":  func() error { _, err := follower.InviteWorker(t.Context(), "h:1", nil); return err },
	} {
		t.Run(what, func(t *testing.T) { notLeaderOf(t, f()) })
	}
}

// The volatile state reaches the followers, also after a change of leader.
func TestVolatileState(t *testing.T) {
	rigs := newRigs(t, 3)
	rigs[0].worker("alice", nil)
	submit(t, rigs[0].node, request(5), "")
	shows := func(r *rig) {
		t.Helper()
		r.until("what runs", func() bool {
			job, _ := r.node.Job(1)
			w, _ := r.node.Worker(1)
			return job.Status == api.JobRunning && len(job.Stages) > 0 && job.Stages[0].Running >= 2 && w.Busy == 2 && !w.Seen.IsZero()
		})
		if c := r.node.Cluster(); c.Free != 0 {
			t.Errorf("Cluster() = %+v, want no slot free", c)
		}
	}
	shows(rigs[1])
	shows(rigs[2])
	// No worker can run this job. Followers show that as well.
	req := request(1)
	req.SlotsPerTask = 50
	submit(t, rigs[0].node, req, "")
	rigs[1].until("the job halts", func() bool { job, _ := rigs[1].node.Job(2); return job.Status == api.JobHalted })
	// All nodes know why the leader refuses writes.
	rigs[0].log.fill(true)
	rigs[2].until("the reason", func() bool { return strings.Contains(rigs[2].node.Cluster().NotReady, "disk of the test") })
	if c := rigs[2].node.Cluster(); c.Status == api.ClusterHealthy {
		t.Errorf("Cluster() = %+v, want that it is not healthy", c)
	}
	rigs[0].log.fill(false)

	rigs[1].log.elect()
	rigs[1].leads()
	rigs[1].worker("alice", nil)
	rigs[0].until("the deposed leader follows", func() bool { c := rigs[0].node.Cluster(); return c.Leader == 2 && c.NotReady == "" })
	shows(rigs[0])
	shows(rigs[2])
}

func TestVolatileStateOfAnotherCluster(t *testing.T) {
	rigs := newRigs(t, 2)
	w := rigs[0].worker("alice", nil) // a connection
	follower := rigs[1].worker("bob", nil)
	for _, test := range []struct {
		client  wire.LeaderClient
		cluster string
		want    codes.Code
	}{
		{w.client, "c1", codes.OK},
		{w.client, "other", codes.FailedPrecondition},
		{follower.client, "c1", codes.Unavailable},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		rpc, err := test.client.Shadow(ctx, &wire.ShadowRequest{Id: 9, ClusterId: test.cluster})
		if err != nil {
			t.Fatal(err)
		}
		_, err = rpc.Recv()
		if status.Code(err) != test.want {
			t.Errorf("Shadow(%s) = %v, want %v", test.cluster, err, test.want)
		}
		cancel()
	}
}

// A wait for the end of a job at a node that follows, leads, is deposed, and leads again.
func TestWaitSurvivesChangesOfLeader(t *testing.T) {
	rigs := newRigs(t, 3)
	submit(t, rigs[0].node, request(2), "")
	rigs[1].caughtUp()
	waited := make(chan error, len(rigs))
	for _, r := range rigs[:2] {
		go func() { waited <- r.node.WaitJob(t.Context(), 1) }()
	}
	for _, next := range []int{1, 0, 2, 1, 0} {
		rigs[next].log.elect()
		rigs[next].leads()
		w := rigs[next].worker("alice", nil)
		<-w.welcomed
	}
	rigs[2].log.elect()
	rigs[2].leads()
	rigs[2].worker("alice", finishAll)
	rigs[2].worker("bob", finishAll)
	for range 2 {
		if err := <-waited; err != nil {
			t.Errorf("WaitJob() = %v", err)
		}
	}
	for _, r := range rigs {
		r.caughtUp()
		if job, _ := r.node.Job(1); job.Status != api.JobDone {
			t.Errorf("Job(1) at leader %d = %+v, want it done", r.log.id, job)
		}
	}
}

func TestWorkerIsRedirected(t *testing.T) {
	rigs := newRigs(t, 3)
	rigs[2].until("it knows the leader", func() bool { address, _ := rigs[2].node.LeaderAddress(); return address != "" })
	w := rigs[2].worker("alice", nil)
	if err := <-w.ended; status.Code(err) != codes.Unavailable {
		t.Errorf("the session at a follower ended with %v, want Unavailable", err)
	}
	e := <-w.redirect
	if want := []string{"leader-1:1", "leader-2:1", "leader-3:1"}; e.GetLeader() != "leader-1:1" || !slices.Equal(e.GetLeaders(), want) {
		t.Errorf("a follower sends a worker to %q, of %q", e.GetLeader(), e.GetLeaders())
	}
}

func TestStrongReads(t *testing.T) {
	t.Parallel()
	rigs := newRigs(t, 3)
	submit(t, rigs[0].node, request(1), "")
	far := rigs[2]
	far.caughtUp()
	far.log.setCut(true)
	if err := rigs[0].node.Stop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	index, err := rigs[1].node.ReadIndex(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if job, _ := far.node.Job(1); job.Status == api.JobStopped {
		t.Errorf("Job(1) at a node that is cut off = %+v", job)
	}
	// It waits for a majority, and then for the log.
	read := make(chan error, 1)
	go func() {
		index, err := far.node.ReadIndex(t.Context())
		if err == nil {
			err = far.node.WaitIndex(t.Context(), index)
		}
		read <- err
	}()
	waited := make(chan error, 1)
	go func() { waited <- far.node.WaitIndex(t.Context(), index) }()
	far.log.setCut(false)
	for _, ch := range []chan error{read, waited} {
		if err := <-ch; err != nil {
			t.Errorf("strong read = %v", err)
		}
	}
	if job, _ := far.node.Job(1); job.Status != api.JobStopped {
		t.Errorf("Job(1) by a strong read = %+v, want it stopped", job)
	}
	// The last entry may be one of raft's own, which is not delivered.
	rigs[1].log.elect()
	far.caughtUp()
	if index, _, _ := far.node.Status(); index != uint64(len(far.log.entries)) {
		t.Errorf("Status() = index %d, want %d", index, len(far.log.entries))
	}
	// A client may leave.
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := far.node.WaitIndex(gone, index+1000); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitIndex() of a client that has left = %v", err)
	}
	if _, err := func() (uint64, error) { far.log.setSilent(true); return far.node.ReadIndex(gone) }(); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadIndex() of a client that has left = %v", err)
	}
	_, err = far.node.ReadIndex(t.Context())
	problemOf(t, err, http.StatusServiceUnavailable, "no majority of the 3 leaders")
}

// A leader that was deposed, and does not know it, does not say that a job of its successor, or a leader that has joined since, is unknown.
func TestDeposedLeaderRefusesNothing(t *testing.T) {
	t.Parallel()
	rigs := newRigs(t, 3)
	deposed := Owned{rigs[0].node}
	rigs[0].log.setCut(true)
	rigs[1].log.elect()
	rigs[1].leads()
	submit(t, rigs[1].node, request(1), "")
	changes := map[string]func() error{
		"Stop":         func() error { return deposed.Stop(t.Context(), 1) },
		"Retry":        func() error { return deposed.Retry(t.Context(), 1) },
		"Pin":          func() error { return deposed.Pin(t.Context(), 1, true) },
		"Forget":       func() error { return deposed.Forget(t.Context(), 1) },
		"RemoveLeader": func() error { return deposed.RemoveLeader(t.Context(), 5, true) },
	}
	for what, change := range changes {
		t.Run(what, func(t *testing.T) { notLeaderOf(t, change()) })
	}
	rigs[0].log.setCut(false)
	if err := (Owned{rigs[1].node}).Stop(t.Context(), 2); !api.IsStatus(err, http.StatusNotFound) {
		t.Errorf("Stop() of a job that there is not = %v, want not found", err)
	}
}

// A node that was cut off gets a snapshot instead of entries: some of its jobs are gone, others are new.
func TestFollowerInstallsSnapshot(t *testing.T) {
	rigs := newRigs(t, 2)
	away := rigs[1]
	submit(t, rigs[0].node, request(1), "")
	away.caughtUp()
	away.log.setCut(true)
	other := state.New()
	e := state.NewEntry(1, 0)
	spec := &state.Spec{Output: "/out", Spool: true}
	spec.Input, _ = state.RangeInput(1, 7)
	e.Submit("a", "u1", "", spec)
	e.Stop("b", 1)
	e.Forget("c", 1)
	e.Submit("d", "u2", "", spec)
	var result state.Result
	if err := other.Apply(100, e.Data(), &result); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := other.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	away.log.install(io.NopCloser(&b), 100)
	if err := away.node.WaitIndex(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	var got []uint64
	list, err := away.node.Jobs(api.JobQuery{Limit: 10})
	for _, job := range list.Jobs {
		got = append(got, job.ID)
	}
	if err != nil || !slices.Equal(got, []uint64{2}) {
		t.Errorf("Jobs() after a snapshot = %v, %v, want job 2 alone", got, err)
	}
}

// A new member knows no committed entry yet. It does not serve its views until they have caught up with the leader.
func TestBegunAfterJoin(t *testing.T) {
	logs := newFakeGroup(2)
	logs[1].setLagging(true)
	leader := startRig(t, logs[0])
	logs[0].elect()
	leader.leads()
	submit(t, leader.node, request(1), "")
	joined := startRig(t, logs[1], func(c *Config) {
		c.Dial = func(ctx context.Context, _ string) (net.Conn, error) { return leader.listener.DialContext(ctx) }
	})
	joined.until("volatile state", func() bool { return joined.node.received.Load() != nil })
	joined.until("publication", func() bool { return joined.node.Cluster().Leader == 1 })
	if joined.node.ready.hasBegun() {
		t.Error("Begun() is closed before the new member has an entry")
	}
	logs[1].setLagging(false)
	<-joined.node.Begun()
	if _, ok := joined.node.Job(1); !ok {
		t.Error("Job(1) is unknown after Begun()")
	}
}

// A node without a leader serves its views after a while.
func TestBegunWithoutLeader(t *testing.T) {
	t.Parallel()
	r := startRig(t, newFakeLog())
	<-r.node.Begun()
	if c := r.node.Cluster(); !strings.Contains(c.NotReady, "no leader is known") {
		t.Errorf("Cluster() = %+v, want it to say that no leader is known", c)
	}
	if r.node.ready.current.Load() {
		t.Error("a node that has never heard of a leader counts as current")
	}
	if address, self := r.node.LeaderAddress(); address != "" || self {
		t.Errorf("LeaderAddress() = %q, %v, want none", address, self)
	}
	if _, age, _ := r.node.Status(); age < beginAlone.Milliseconds() {
		t.Errorf("Status() = age %d ms of a node that has never heard of a leader for %v", age, beginAlone)
	}
	waited := make(chan error, 1)
	go func() { waited <- r.node.WaitLeader(t.Context(), "") }()
	r.log.elect()
	if err := <-waited; err != nil {
		t.Errorf("WaitLeader() = %v", err)
	}
	r.until("current", r.node.ready.current.Load)
}

func TestResultOnAnotherSpool(t *testing.T) {
	rigs := newRigs(t, 2)
	rigs[0].worker("alice", finishAll)
	job := submit(t, rigs[0].node, request(1), "")
	finished(t, rigs[0].node, 1)
	if err := os.RemoveAll(job.Output); err != nil {
		t.Fatal(err)
	}
	rigs[1].caughtUp()
	err := rigs[1].node.Result(t.Context(), 1, io.Discard)
	for _, want := range []string{job.Output, "leader 2 (leader-2:1)", "leader 1 at leader-1:1", "--spool"} {
		problemOf(t, err, http.StatusGone, want)
	}
	problemOf(t, rigs[0].node.Retry(t.Context(), 1), http.StatusGone, "another spool")
	lone := newRig(t)
	lone.worker("alice", finishAll)
	job = submit(t, lone.node, request(1), "")
	finished(t, lone.node, 1)
	if err := os.RemoveAll(filepath.Join(job.Output, "_temporary")); err != nil {
		t.Fatal(err)
	}
	problemOf(t, lone.node.Result(t.Context(), 1, io.Discard), http.StatusGone, "is missing, or not reachable")
	if err := lone.node.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	finished(t, lone.node, 1)
	if task, err := lone.node.Task(t.Context(), 1, "map", 0); err != nil || task.Attempts != 2 {
		t.Errorf("Task() of an output that was lost = %+v, %v, want 2 attempts", task, err)
	}
}

// A follower serves the parts of a stage that is final. It may be behind with another one.
func TestPartsOfAFollower(t *testing.T) {
	rigs := newRigs(t, 2)
	var attempts holding
	w := rigs[0].worker("alice", attempts.answer)
	<-w.welcomed
	req := request(1)
	req.Output = filepath.Join(t.TempDir(), "out")
	submit(t, rigs[0].node, req, "")
	rigs[1].caughtUp()
	at := rigs[1].worker("bob", nil)
	parts := func() error {
		call, err := at.client.Parts(t.Context(), &wire.PartsRequest{Job: 1})
		if err != nil {
			t.Fatal(err)
		}
		page, err := call.Recv()
		if err == nil && len(page.GetIndex()) != 1 {
			t.Errorf("Parts() = %v", page)
		}
		return err
	}
	if err := parts(); status.Code(err) != codes.Unavailable {
		t.Errorf("Parts() of a stage that is not over = %v, want Unavailable", err)
	}
	attempts.release(w)
	rigs[1].until("the map stage is over", func() bool { job, _ := rigs[1].node.Job(1); return job.Stages[0].Done == 1 })
	if err := parts(); err != nil {
		t.Errorf("Parts() of a stage that is over = %v", err)
	}
}

// A reader that follows logs is redirected to the next leader, which includes workers that connect after the request.
func TestLogsOverAChangeOfLeader(t *testing.T) {
	rigs := newRigs(t, 2)
	w := rigs[0].worker("alice", nil)
	<-w.welcomed
	submit(t, rigs[0].node, request(2), "")
	follow := func(r *rig) (chan string, chan error) {
		records, ended := make(chan string, 10), make(chan error, 1)
		go func() {
			ended <- r.node.Logs(t.Context(), api.LogQuery{Job: 1, Follow: true}, func(rec api.LogRecord) error {
				records <- string(rec.Text)
				return nil
			})
		}()
		return records, ended
	}
	records, ended := follow(rigs[0])
	<-records
	<-records
	rigs[1].log.elect()
	notLeaderOf(t, <-ended)
	rigs[1].leads()
	records, ended = follow(rigs[1])
	rigs[1].until("the reader", func() bool {
		rigs[1].node.fetches.mu.Lock()
		defer rigs[1].node.fetches.mu.Unlock()
		return len(rigs[1].node.fetches.byRequest) == 1
	})
	rigs[1].worker("alice", nil)
	if got := []string{<-records, <-records}; !slices.Equal(got, []string{"zero\n", "one\n"}) {
		t.Errorf("Logs(follow) at the next leader gave %q", got)
	}
	if err := rigs[1].node.Stop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || len(records) != 0 {
		t.Errorf("Logs(follow) = %v, and %d records twice", err, len(records))
	}
}

func TestMembersChange(t *testing.T) {
	rigs := newRigs(t, 2)
	w := rigs[0].worker("alice", nil)
	if got := (<-w.welcomed).GetLeaders(); !slices.Equal(got, []string{"leader-1:1", "leader-2:1"}) {
		t.Errorf("a worker is sent leaders %q", got)
	}
	rigs[0].log.setMembers(func(m *replica.Members) {
		m.List = append(slices.Clone(m.List), replica.Member{ID: 3, Address: "leader-3:1"})
	})
	if got := (<-w.leaders).GetAddresses(); !slices.Equal(got, []string{"leader-1:1", "leader-2:1", "leader-3:1"}) {
		t.Errorf("when the members change, a worker is sent leaders %q", got)
	}
	rigs[1].until("the follower knows", func() bool { return rigs[1].node.Cluster().Leaders == 3 })
}

func TestOldVolatileStateIsDropped(t *testing.T) {
	rigs := newRigs(t, 2)
	rigs[0].worker("alice", nil)
	submit(t, rigs[0].node, request(5), "")
	follower := rigs[1].node
	rigs[1].until("what runs", func() bool { job, _ := follower.Job(1); return len(job.Stages) > 0 && job.Stages[0].Running == 2 })
	if err := follower.do(t.Context(), func() {
		follower.dropOldVolatile(time.Now())
		if follower.received.Load() == nil {
			t.Error("what was told just now is dropped")
		}
		follower.dropOldVolatile(time.Now().Add(volatileAgeMax))
		follower.loop.publisher.Publish(time.Now().Add(volatileAgeMax), follower.index(), follower.loop.controller.Machine(), follower.volatile())
	}); err != nil {
		t.Fatal(err)
	}
	if n := follower.Leaders().Leaders[0]; n.Status != api.LeaderLeads {
		t.Errorf("Leaders() = %+v, want it to lead", n)
	}
	if job, _ := follower.Job(1); job.Stages[0].Running != 0 && job.Status != api.JobRunning {
		t.Errorf("Job(1) of a follower that was told nothing = %+v", job)
	}
}
