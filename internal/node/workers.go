package node

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// ExpectedWorker is where a worker with an id of its own listens.
type ExpectedWorker struct {
	ID      uint64
	Address string
}

// errNotReached marks the error of an invitation that has reached no worker.
var errNotReached = errors.New("no worker reached")

// InviteWorker invites the idle worker at address, and returns when it has registered. With an id, one that does not come is in the log, as dead, and
// is invited again until it has come or is removed.
func (n *Node) InviteWorker(ctx context.Context, address string, id *uint64) (api.Worker, error) {
	if !n.awaitLeading(ctx, electionWait) {
		return api.Worker{}, n.notLeader()
	}
	if n.cfg.InviteWorker == nil {
		return api.Worker{}, api.Conflict("this leader cannot invite workers")
	}
	var found api.Worker
	is := n.workerAt(ctx, address, id)
	joined := func() (bool, error) {
		_, workers := n.views.Cluster()
		for _, w := range workers {
			if is(&w) && w.Status != api.WorkerDead {
				found = w
				return true, nil
			}
		}
		return false, nil
	}
	if ok, _ := joined(); ok {
		return found, nil
	}
	var number uint64
	if id != nil {
		var err error
		if number, err = n.expect(ctx, ExpectedWorker{*id, address}); err != nil {
			return api.Worker{}, err
		}
	}
	err := n.cfg.InviteWorker(ctx, address, id)
	reached := !errors.Is(err, errNotReached)
	if err == nil {
		err = n.awaitJoin(ctx, "worker", address, n.views.Changed(), joined)
	} else {
		err = inviteProblem(ctx, "worker", address, err)
	}
	expected, ok := n.Worker(number)
	switch {
	case err == nil || !ok || ctx.Err() != nil:
		return found, err
	case reached && api.IsStatus(err, http.StatusConflict) && expected.Identity == "": // it is another worker
		return api.Worker{}, errors.Join(err, n.setWorker(ctx, number, state.WorkerRemoved))
	case reached && api.IsStatus(err, http.StatusConflict):
		return api.Worker{}, err
	}
	return expected, nil
}

// workerAt returns a function that recognizes the worker with an id, or else the one at an address.
func (n *Node) workerAt(ctx context.Context, address string, id *uint64) func(w *api.Worker) bool {
	if id != nil {
		return func(w *api.Worker) bool { return w.Claim != nil && *w.Claim == *id }
	}
	same := addressMatcher(ctx, address)
	identity := "" // of the idle worker at address: it may register with another of its addresses
	if n.cfg.IdleWorkers != nil {
		for _, w := range n.cfg.IdleWorkers() {
			if same(w.Address) {
				identity = w.Identity
			}
		}
	}
	return func(w *api.Worker) bool { return w.Identity == identity && identity != "" || same(w.Address) }
}

// expect registers workers before they come, and returns the number of the last.
func (n *Node) expect(ctx context.Context, list ...ExpectedWorker) (number uint64, err error) {
	if err := n.awaitLevel(ctx, "the id of a worker", 2); err != nil {
		return 0, err
	}
	for _, w := range list {
		key := newID()
		e, err := n.execute(ctx, key, func(e *state.Entry) {
			e.Register(key, &state.WorkerInfo{Address: w.Address, Claim: w.ID + 1})
		})
		if err != nil {
			return 0, err
		}
		number = uint64(e.Worker)
	}
	return number, nil
}

// How often absent workers are invited. It grows while they are the same ones.
const (
	inviteEvery    = 500 * time.Millisecond
	inviteEveryMax = 10 * time.Second
	invitesMax     = 16 // at a time
)

// keepInviting invites the workers that have an id of their own and are absent, while this node leads: those that were expected before they could
// be reached, and those that were started again without their data directory.
func (n *Node) keepInviting(ctx context.Context) {
	every := inviteEvery
	timer := time.NewTimer(every)
	defer timer.Stop()
	var last []uint64
	said := map[uint64]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		absent := n.absentWorkers(ctx)
		numbers := make([]uint64, len(absent))
		for i := range absent {
			numbers[i] = absent[i].ID
		}
		if every = min(2*every, inviteEveryMax); !slices.Equal(numbers, last) || len(numbers) == 0 {
			every, last = inviteEvery, numbers
		}
		n.inviteAll(ctx, absent, said)
		timer.Reset(every)
	}
}

// absentWorkers returns the workers to invite. Those of the configuration are expected once in the life of a cluster: a user may remove them.
func (n *Node) absentWorkers(ctx context.Context) (absent []api.Worker) {
	if !n.ready.leading() {
		return nil
	}
	cluster, workers := n.views.Cluster()
	if !n.seeded && len(n.cfg.Workers) > 0 && cluster.Level >= 2 {
		if err := n.do(ctx, func() { n.seeded = n.loop.controller.Machine().Expects() }); err == nil && !n.seeded {
			_, err = n.expect(ctx, n.cfg.Workers...)
			n.seeded = err == nil
			_, workers = n.views.Cluster()
		}
	}
	for _, w := range workers {
		if w.Status == api.WorkerDead && w.Claim != nil && w.Address != "" {
			absent = append(absent, w)
		}
	}
	return absent
}

// inviteAll invites workers, and says why one cannot be invited when that has changed.
func (n *Node) inviteAll(ctx context.Context, absent []api.Worker, said map[uint64]string) {
	failures := make([]error, len(absent))
	var invites sync.WaitGroup
	turns := make(chan struct{}, invitesMax)
	for i := range absent {
		turns <- struct{}{}
		invites.Go(func() {
			if err := n.cfg.InviteWorker(ctx, absent[i].Address, absent[i].Claim); err != nil {
				failures[i] = inviteProblem(ctx, "worker", absent[i].Address, err)
			}
			<-turns
		})
	}
	invites.Wait()
	for i, err := range failures {
		if w := &absent[i]; err != nil && ctx.Err() == nil && said[w.ID] != err.Error() {
			said[w.ID] = err.Error()
			n.log.WarnContext(ctx, "absent worker not invited; trying again", "worker", w.ID, "id", *w.Claim, "address", w.Address, "error", err)
		}
	}
}
