// Package wiretest is the contract of a leader towards its workers. Its tests run against the real leader and against the fake
// that the worker's tests use: what the fake does in those tests, the real leader does.
package wiretest

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// Cluster is the name of the cluster that a tested leader leads.
const Cluster = "test"

// timeout is how long a test waits for a message. It measures nothing.
const timeout = time.Minute

// Leader is a leader under test. It leads when it is started.
type Leader struct {
	Conn *grpc.ClientConn
	// Submit adds a job whose first stage has that many tasks.
	Submit func(tasks int) (job uint64)
	// ReadLog returns what is in a job's log.
	ReadLog func(job uint64) (text string, err error)
	// StepDown ends its leadership.
	StepDown func()
}

// Run runs the contract against leaders that start returns.
func Run(t *testing.T, start func(t *testing.T) *Leader) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, l *Leader)
	}{
		{"Welcome", testWelcome},
		{"Verdicts", testVerdicts},
		{"VerdictIsRepeated", testVerdictIsRepeated},
		{"ReturnedLease", testReturnedLease},
		{"HeldLeases", testHeldLeases},
		{"Refusal", testRefusal},
		{"Goodbye", testGoodbye},
		{"StepDown", testStepDown},
		{"Parts", testParts},
		{"Logs", testLogs},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, start(t)) })
	}
}

// session is a worker's session.
type session struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[wire.FromWorker, wire.ToWorker]
	sends  sync.Mutex
	in     chan *wire.ToWorker // without pings; closed at the end of the session
	err    error               // of the end

	jobs    map[uint64]bool
	last    uint64   // lease
	granted []uint64 // leases not yet returned by lease
	tasks   map[uint64]task
}

// task is the task of a lease.
type task struct {
	job   uint64
	stage uint32
	index uint64
}

func open(t *testing.T, l *Leader, hello *wire.Hello) *session {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := wire.NewLeaderClient(l.Conn).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, stream: stream, in: make(chan *wire.ToWorker), jobs: map[uint64]bool{}, tasks: map[uint64]task{}}
	go func() {
		defer close(s.in)
		for {
			var m *wire.ToWorker
			if m, s.err = stream.Recv(); s.err != nil {
				return
			}
			if m.GetPing() != nil { // a worker that is silent for two seconds is given up
				_ = s.trySend(&wire.FromWorker{Message: &wire.FromWorker_Report{Report: &wire.Report{Heartbeat: true}}}) // Recv has the error
				continue
			}
			select {
			case s.in <- m:
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		s.wait()
	})
	s.send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: hello}})
	return s
}

func hello(held ...*wire.Held) *wire.Hello {
	return &wire.Hello{
		Identity: "w", Incarnation: "1", Slots: 2, ClusterName: Cluster, UnixMs: time.Now().UnixMilli(),
		Protocol: wire.Protocol, ProtocolMin: wire.ProtocolMin, Held: held,
	}
}

func (s *session) trySend(m *wire.FromWorker) error {
	s.sends.Lock()
	defer s.sends.Unlock()
	return s.stream.Send(m)
}

func (s *session) send(m *wire.FromWorker) {
	s.t.Helper()
	if err := s.trySend(m); err != nil && !errors.Is(err, io.EOF) { // EOF: the session has ended, and next says why
		s.t.Fatalf("Send() = %v", err)
	}
}

func (s *session) report(r *wire.Report) {
	s.t.Helper()
	s.send(&wire.FromWorker{Message: &wire.FromWorker_Report{Report: r}})
}

func (s *session) finish(leases ...uint64) {
	s.t.Helper()
	r := &wire.Report{}
	for _, lease := range leases {
		k := s.tasks[lease]
		r.Finished = append(r.Finished, &wire.Finished{Job: k.job, Stage: k.stage, Index: []uint64{k.index}, Lease: []uint64{lease}})
	}
	s.report(r)
}

// next returns the next message; nil: the session has ended.
func (s *session) next() *wire.ToWorker {
	s.t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	select {
	case m := <-s.in:
		s.check(m.GetWork())
		return m
	case <-deadline.C:
		s.t.Fatal("no message of the leader")
		return nil
	}
}

// check checks the leases of a message.
func (s *session) check(w *wire.Work) {
	s.t.Helper()
	for _, job := range w.GetJobs() {
		s.jobs[job.GetId()] = true
	}
	for _, g := range w.GetLeases() {
		n := len(g.GetIndex())
		if n == 0 || !wire.ColumnFits(g.GetAttempt(), n) || !wire.ColumnFits(g.GetSplits(), n) {
			s.t.Errorf("leases = %v, want columns of one length", g)
		}
		if !s.jobs[g.GetJob()] {
			s.t.Errorf("leases of job %d, which was not described in this session", g.GetJob())
		}
		if g.GetFirstLease() <= s.last {
			s.t.Errorf("leases from %d on after lease %d, want increasing numbers", g.GetFirstLease(), s.last)
		}
		for i, index := range g.GetIndex() {
			s.last = g.GetFirstLease() + uint64(i)
			s.tasks[s.last] = task{g.GetJob(), g.GetStage(), index}
			s.granted = append(s.granted, s.last)
		}
	}
}

// wait waits for the end of the session and returns its status.
func (s *session) wait() codes.Code {
	s.t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		select {
		case _, ok := <-s.in:
			if !ok {
				return status.Code(s.err)
			}
		case <-deadline.C:
			s.t.Fatal("the session has no end")
		}
	}
}

// close ends the session from the worker's side.
func (s *session) close() {
	s.t.Helper()
	s.sends.Lock()
	err := s.stream.CloseSend()
	s.sends.Unlock()
	if err != nil {
		s.t.Error(err)
	}
	s.wait()
}

// welcomed opens a session and returns it with its Welcome.
func welcomed(t *testing.T, l *Leader, held ...*wire.Held) (*session, *wire.Welcome) {
	t.Helper()
	s := open(t, l, hello(held...))
	m := s.next()
	if m.GetWelcome() == nil {
		t.Fatalf("first message = %v (%v), want a Welcome", m, s.err)
	}
	return s, m.GetWelcome()
}

// lease waits for the next lease.
func (s *session) lease() uint64 {
	s.t.Helper()
	for len(s.granted) == 0 {
		if s.next() == nil {
			s.t.Fatalf("the session ended before a lease was granted: %v", s.err)
		}
	}
	lease := s.granted[0]
	s.granted = s.granted[1:]
	return lease
}

// verdict waits for the verdict on a lease, and returns whether it was committed.
func (s *session) verdict(lease uint64) bool {
	s.t.Helper()
	for {
		m := s.next()
		switch w := m.GetWork(); {
		case m == nil:
			s.t.Fatalf("the session ended without a verdict on lease %d: %v", lease, s.err)
		case slices.Contains(w.GetCommitted(), lease):
			return true
		case slices.Contains(w.GetStale(), lease):
			return false
		}
	}
}

func testWelcome(t *testing.T, l *Leader) {
	t.Helper()
	s, w := welcomed(t, l)
	if w.GetWorker() == 0 || w.GetTerm() == 0 || w.GetHeartbeatMs() == 0 || w.GetCluster() != Cluster || len(w.GetRevoked()) > 0 {
		t.Errorf("Welcome = %v, want a worker, a term, a heartbeat, cluster %s, and nothing revoked", w, Cluster)
	}
	s.close()
	if _, again := welcomed(t, l); again.GetWorker() != w.GetWorker() {
		t.Errorf("worker %d in the second session, want %d again", again.GetWorker(), w.GetWorker())
	}
}

// testVerdicts finishes every lease: each gets one verdict, and each task of the first stage one that is committed.
func testVerdicts(t *testing.T, l *Leader) {
	t.Helper()
	const tasks = 50
	s, _ := welcomed(t, l)
	job := l.Submit(tasks)
	verdicts := map[uint64]int{}
	committed := map[uint64]int{} // by index
	for granted := 0; len(committed) < tasks || granted < len(verdicts); {
		m := s.next()
		if m == nil {
			t.Fatalf("the session ended after %d tasks: %v", len(committed), s.err)
		}
		w := m.GetWork()
		for _, g := range w.GetLeases() {
			for i := range g.GetIndex() {
				granted++
				s.finish(g.GetFirstLease() + uint64(i))
			}
		}
		for _, lease := range slices.Concat(w.GetCommitted(), w.GetStale()) {
			if verdicts[lease]++; verdicts[lease] > 1 {
				t.Errorf("%d verdicts on lease %d, want one", verdicts[lease], lease)
			}
		}
		for _, lease := range w.GetCommitted() {
			if k := s.tasks[lease]; k.job == job && k.stage == 0 {
				committed[k.index]++
			}
		}
	}
	for index, n := range committed {
		if n != 1 || index >= tasks {
			t.Errorf("task %d committed %d times, want tasks below %d committed once", index, n, tasks)
		}
	}
}

// testVerdictIsRepeated reports a result again in a new session, as if its verdict had been lost.
func testVerdictIsRepeated(t *testing.T, l *Leader) {
	t.Helper()
	s, _ := welcomed(t, l)
	l.Submit(1)
	lease := s.lease()
	s.finish(lease)
	if !s.verdict(lease) {
		t.Fatalf("lease %d is stale, want it committed", lease)
	}
	s.close()
	again, _ := welcomed(t, l)
	again.tasks[lease] = s.tasks[lease]
	again.finish(lease)
	if !again.verdict(lease) {
		t.Errorf("lease %d is stale when it is reported again, want it committed", lease)
	}
}

func testReturnedLease(t *testing.T, l *Leader) {
	t.Helper()
	s, _ := welcomed(t, l)
	l.Submit(1)
	first := s.lease()
	s.report(&wire.Report{Returned: []uint64{first}})
	second := s.lease()
	if s.tasks[first] != s.tasks[second] {
		t.Errorf("lease %d is of %v, want the returned task %v", second, s.tasks[second], s.tasks[first])
	}
	s.finish(first)
	if s.verdict(first) {
		t.Errorf("lease %d is committed, want it stale: it was returned", first)
	}
	s.finish(second)
	if !s.verdict(second) {
		t.Errorf("lease %d is stale, want it committed", second)
	}
}

// testHeldLeases reconnects with a lease that runs and with one of an unknown job.
func testHeldLeases(t *testing.T, l *Leader) {
	t.Helper()
	s, _ := welcomed(t, l)
	l.Submit(1)
	lease := s.lease()
	k := s.tasks[lease]
	s.close()
	unknown := lease + 1000
	again, w := welcomed(
		t, l,
		&wire.Held{Job: k.job, Stage: k.stage, Index: k.index, Lease: lease, Attempt: 1, Started: true},
		&wire.Held{Job: k.job + 1000, Index: 7, Lease: unknown, Attempt: 1, Started: true},
	)
	if !slices.Equal(w.GetRevoked(), []uint64{unknown}) {
		t.Errorf("revoked = %v, want %d alone", w.GetRevoked(), unknown)
	}
	again.tasks[lease] = k
	again.finish(lease)
	if !again.verdict(lease) {
		t.Errorf("lease %d is stale, want it committed", lease)
	}
}

// testRefusal opens a session for another cluster.
func testRefusal(t *testing.T, l *Leader) {
	t.Helper()
	h := hello()
	h.ClusterName = "another"
	s := open(t, l, h)
	if m := s.next(); m != nil {
		t.Errorf("message = %v, want none", m)
	}
	if got := s.wait(); got != codes.FailedPrecondition || status.Convert(s.err).Message() == "" {
		t.Errorf("the session ended with %v, want FailedPrecondition and a reason", s.err)
	}
}

func testGoodbye(t *testing.T, l *Leader) {
	t.Helper()
	s, _ := welcomed(t, l)
	s.send(&wire.FromWorker{Message: &wire.FromWorker_Goodbye{Goodbye: &wire.Goodbye{}}})
	s.close()
}

func testStepDown(t *testing.T, l *Leader) {
	t.Helper()
	s, _ := welcomed(t, l)
	l.StepDown()
	if got := s.wait(); got != codes.Unavailable {
		t.Errorf("the session ended with %v, want Unavailable", s.err)
	}
	s = open(t, l, hello())
	for m := s.next(); m != nil; m = s.next() {
		if m.GetElsewhere() == nil {
			t.Errorf("message = %v, want at most an Elsewhere", m)
		}
	}
	if got := s.wait(); got != codes.Unavailable {
		t.Errorf("the session without a leader ended with %v, want Unavailable", s.err)
	}
}

func testParts(t *testing.T, l *Leader) {
	t.Helper()
	const tasks = 5
	s, _ := welcomed(t, l)
	job := l.Submit(tasks)
	winners := map[uint64]uint64{} // by index
	for len(winners) < tasks {
		lease := s.lease()
		s.finish(lease)
		if k := s.tasks[lease]; !s.verdict(lease) || k.job != job || k.stage != 0 {
			t.Fatalf("lease %d of %v is stale, or not of the first stage", lease, k)
		}
		winners[s.tasks[lease].index] = lease
	}
	client := wire.NewLeaderClient(l.Conn)
	pages, err := client.Parts(t.Context(), &wire.PartsRequest{Job: job})
	if err != nil {
		t.Fatal(err)
	}
	var next uint64
	for {
		page, err := pages.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n := len(page.GetIndex())
		if page.GetTasks() != tasks || !wire.ColumnFits(page.GetLease(), n) || !wire.ColumnFits(page.GetSize(), n) {
			t.Errorf("page = %v, want %d tasks, and columns of one length", page, tasks)
		}
		for i, index := range page.GetIndex() {
			if index != next || wire.Entry(page.GetLease(), i) != winners[index] {
				t.Errorf("part %d of lease %d, want part %d of lease %d", index, wire.Entry(page.GetLease(), i), next, winners[next])
			}
			next = index + 1
		}
	}
	if next != tasks {
		t.Errorf("%d parts, want %d", next, tasks)
	}
	pages, err = client.Parts(t.Context(), &wire.PartsRequest{Job: job, Stage: 99})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pages.Recv(); status.Code(err) != codes.NotFound {
		t.Errorf("Parts() of an unknown stage = %v, want NotFound", err)
	}
}

// testLogs answers a request for logs with one record.
func testLogs(t *testing.T, l *Leader) {
	t.Helper()
	s, w := welcomed(t, l)
	job := l.Submit(1)
	lease := s.lease()
	k := s.tasks[lease]
	type log struct {
		text string
		err  error
	}
	read := make(chan log, 1)
	go func() {
		text, err := l.ReadLog(job)
		read <- log{text, err}
	}()
	var request *wire.LogRequest
	for request == nil {
		m := s.next()
		if m == nil {
			t.Fatalf("the session ended without a request for logs: %v", s.err)
		}
		request = m.GetLog()
	}
	if request.GetJob() != job || request.GetFollow() {
		t.Errorf("request = %v, want one for job %d", request, job)
	}
	call, err := wire.NewLeaderClient(l.Conn).SendLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	record := &wire.LogRecord{Stage: k.stage, Index: k.index, Attempt: 1, Lease: lease, Text: []byte("line\n")}
	if err := call.Send(&wire.LogRecords{Request: request.GetRequest(), Worker: w.GetWorker(), Records: []*wire.LogRecord{record}}); err != nil {
		t.Fatal(err)
	}
	if _, err := call.CloseAndRecv(); err != nil {
		t.Errorf("SendLog() = %v", err)
	}
	if got := <-read; got.err != nil || got.text != "line\n" {
		t.Errorf("log = %q, %v; want the line", got.text, got.err)
	}
}
