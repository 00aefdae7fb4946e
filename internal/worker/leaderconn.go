package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// leaderConn is the connection of the current session, for other calls to the leader.
type leaderConn struct {
	mu      sync.Mutex
	conn    grpc.ClientConnInterface // nil: no session
	changed chan struct{}            // closed and replaced when conn changes
}

func newLeaderConn() *leaderConn { return &leaderConn{changed: make(chan struct{})} }

func (l *leaderConn) set(conn grpc.ClientConnInterface) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
	close(l.changed)
	l.changed = make(chan struct{})
}

// get returns the connection. It waits for one other than failed.
func (l *leaderConn) get(ctx context.Context, failed grpc.ClientConnInterface) (grpc.ClientConnInterface, error) {
	for {
		l.mu.Lock()
		conn, changed := l.conn, l.changed
		l.mu.Unlock()
		if conn != nil && conn != failed {
			return conn, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ErrNoLeader means that the worker has no session with a leader.
var ErrNoLeader = errors.New("the worker has no leader now")

// FindToken asks the leader for the holder of the token of a request.
func (w *Worker) FindToken(ctx context.Context, req *wire.TokenRequest) (*wire.TokenHolder, error) {
	w.leader.mu.Lock()
	conn := w.leader.conn
	w.leader.mu.Unlock()
	if conn == nil {
		return nil, ErrNoLeader
	}
	return wire.NewLeaderClient(conn).FindToken(ctx, req)
}

// wirePart is the output of one done task.
type wirePart struct {
	index, lease, size, records, checksum uint64

	maker          layout.Maker
	name           string           // empty: part-NNNNN, or not asked for
	input          string           // what the task reads; empty: not known, not asked for, or several files or items
	inputs         *wire.InputNames // those
	offset, length uint64           // in the file
}

// parts requests the outputs of a stage from the leader, in task order. If the leader is lost, the list continues with the next
// one: a stage whose outputs are read has ended, so the list does not change. tasks, if not nil, is set to the number of tasks
// of the stage.
func (l *leaderConn) parts(ctx context.Context, req *wire.PartsRequest, tasks *uint64) iter.Seq2[wirePart, error] {
	return func(yield func(wirePart, error) bool) {
		var next uint64 // parts below it were yielded
		var failed grpc.ClientConnInterface
		for {
			conn, err := l.get(ctx, failed)
			if err != nil {
				yield(wirePart{}, err)
				return
			}
			err = eachPart(ctx, conn, req, tasks, func(p wirePart) bool {
				if p.index < next {
					return true
				}
				next = p.index + 1
				return yield(p, nil)
			})
			switch {
			case err == nil, errors.Is(err, errEnough):
				return
			case ctx.Err() != nil:
				yield(wirePart{}, context.Cause(ctx))
				return
			case !temporary(err):
				yield(wirePart{}, fmt.Errorf("list parts of job %d: %w", req.GetJob(), err))
				return
			}
			failed = conn
		}
	}
}

// errEnough ends eachPart when its caller has stopped.
var errEnough = errors.New("ended by the caller")

// temporary reports whether another leader, or the same one later, may answer.
func temporary(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.Canceled || code == codes.Aborted || code == codes.DeadlineExceeded
}

func eachPart(
	ctx context.Context, conn grpc.ClientConnInterface, req *wire.PartsRequest, tasks *uint64, f func(wirePart) bool,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a call that was not read to its end
	pages, err := wire.NewLeaderClient(conn).Parts(ctx, req)
	if err != nil {
		return err
	}
	for {
		page, err := pages.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if tasks != nil {
			*tasks = max(*tasks, page.GetTasks())
		}
		if !columnsFit(page) {
			return status.Error(codes.Internal, "a page of parts has columns of different lengths")
		}
		for i := range page.GetIndex() {
			p := wirePart{
				index: page.GetIndex()[i], lease: wire.Entry(page.GetLease(), i), size: wire.Entry(page.GetSize(), i),
				records: wire.Entry(page.GetRecords(), i), checksum: wire.Entry(page.GetChecksum(), i), maker: layout.Maker(wire.Entry(page.GetMaker(), i)),
				name: wire.Entry(page.GetName(), i), input: wire.Entry(page.GetInput(), i), inputs: wire.Entry(page.GetInputs(), i),
				offset: wire.Entry(page.GetInputOffset(), i), length: wire.Entry(page.GetInputLength(), i),
			}
			if !f(p) {
				return errEnough
			}
		}
	}
}

func columnsFit(page *wire.PartsPage) bool {
	n := len(page.GetIndex())
	for _, col := range [][]uint64{
		page.GetLease(), page.GetSize(), page.GetRecords(), page.GetChecksum(), page.GetInputOffset(), page.GetInputLength(),
	} {
		if !wire.ColumnFits(col, n) {
			return false
		}
	}
	return wire.ColumnFits(page.GetMaker(), n) && wire.ColumnFits(page.GetName(), n) && wire.ColumnFits(page.GetInput(), n) &&
		len(page.GetInputs()) <= n // it ends with the last task that reads several
}
