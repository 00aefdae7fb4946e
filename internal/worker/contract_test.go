package worker

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/wire/wiretest"
)

// TestContract runs the contract of the real leader against the fake one, which is directed as tests direct it.
func TestContract(t *testing.T) {
	wiretest.Run(t, func(t *testing.T) *wiretest.Leader {
		t.Helper()
		l := newFakeLeader(t, "127.0.0.1:0")
		conn, err := grpc.NewClient(l.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		d := &director{fake: l, jobs: map[uint64][]uint64{}, leases: map[uint64]lease{}, winners: map[[2]uint64]uint64{}}
		ctx, cancel := context.WithCancel(context.Background())
		var group sync.WaitGroup
		group.Go(func() {
			for {
				select {
				case s := <-l.sessions:
					group.Go(func() { d.direct(ctx, s) })
				case <-ctx.Done():
					return
				}
			}
		})
		t.Cleanup(func() {
			cancel()
			group.Wait()
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		return &wiretest.Leader{Conn: conn, Submit: d.submit, ReadLog: d.readLog, StepDown: d.stepDown}
	})
}

// director makes a fake leader grant the tasks of jobs with one stage, one worker at a time, and give verdicts.
type director struct {
	fake *fakeLeader

	mu      sync.Mutex
	session *fakeSession        // nil: none
	jobs    map[uint64][]uint64 // indexes of open tasks that are not leased
	leases  map[uint64]lease
	winners map[[2]uint64]uint64 // leases, by job and index
	deposed bool
}

// lease is a granted task.
type lease struct{ job, index uint64 }

func (d *director) submit(tasks int) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	job := uint64(len(d.jobs)) + 1
	for i := range tasks {
		d.jobs[job] = append(d.jobs[job], uint64(i))
	}
	d.grant(&wire.Work{Jobs: []*wire.Job{jobMessage(job)}})
	return job
}

// grant sends w with leases of all tasks that have none.
func (d *director) grant(w *wire.Work) {
	for job, open := range d.jobs {
		if len(open) == 0 {
			continue
		}
		first := uint64(len(d.leases)) + 1
		w.Leases = append(w.Leases, &wire.Leases{Job: job, FirstLease: first, Index: open})
		for i, index := range open {
			d.leases[first+uint64(i)] = lease{job, index}
		}
		d.jobs[job] = nil
	}
	d.session.work(w)
}

func (d *director) direct(ctx context.Context, s *fakeSession) {
	h := s.hello
	if h.GetClusterName() != wiretest.Cluster {
		s.end <- status.Error(codes.FailedPrecondition, "another cluster")
		return
	}
	d.mu.Lock()
	if d.deposed {
		d.mu.Unlock()
		return
	}
	w := &wire.Welcome{Worker: 7, Term: 1, HeartbeatMs: 1000, Cluster: wiretest.Cluster}
	for _, held := range h.GetHeld() {
		if _, known := d.leases[held.GetLease()]; !known {
			w.Revoked = append(w.Revoked, held.GetLease())
		}
	}
	d.session = s
	s.send(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: w}})
	d.mu.Unlock()
	for {
		select {
		case m, ok := <-s.in:
			if !ok || m.GetReport() == nil { // closed, or drained
				return
			}
			d.mu.Lock()
			d.report(m.GetReport())
			d.mu.Unlock()
		case <-s.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// report gives the verdicts on a report.
func (d *director) report(r *wire.Report) {
	w := &wire.Work{}
	for _, number := range r.GetReturned() {
		l := d.leases[number]
		d.jobs[l.job] = append(d.jobs[l.job], l.index)
	}
	for _, f := range r.GetFinished() {
		for i, number := range f.GetLease() {
			k := [2]uint64{f.GetJob(), f.GetIndex()[i]}
			if _, done := d.winners[k]; !done && d.current(number) {
				d.winners[k] = number
			}
			if d.winners[k] == number {
				w.Committed = append(w.Committed, number)
			} else {
				w.Stale = append(w.Stale, number)
			}
		}
	}
	d.setParts()
	d.grant(w)
}

// current reports whether a lease is the latest of its task.
func (d *director) current(number uint64) bool {
	for other, l := range d.leases {
		if other > number && l == d.leases[number] {
			return false
		}
	}
	return true
}

// setParts makes the winners the parts of the first stage.
func (d *director) setParts() {
	page := &wire.PartsPage{Tasks: uint64(len(d.winners))}
	for index := range uint64(len(d.winners)) {
		page.Index, page.Lease = append(page.Index, index), append(page.Lease, d.winners[[2]uint64{1, index}])
	}
	d.fake.mu.Lock()
	defer d.fake.mu.Unlock()
	d.fake.parts[0] = []*wire.PartsPage{page}
}

func (d *director) readLog(job uint64) (string, error) {
	d.mu.Lock()
	d.session.send(&wire.ToWorker{Message: &wire.ToWorker_Log{Log: &wire.LogRequest{Request: 5, Job: job}}})
	d.mu.Unlock()
	text := ""
	for _, r := range (<-d.fake.logs).GetRecords() {
		text += string(r.GetText())
	}
	return text, nil
}

func (d *director) stepDown() {
	d.fake.mu.Lock()
	d.fake.refuse = errNotLeader
	d.fake.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deposed = true
	d.session.hangUp()
}
