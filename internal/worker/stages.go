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

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// leaderConn is the connection to the leader of the present session, for calls beside it.
type leaderConn struct {
	mu      sync.Mutex
	conn    grpc.ClientConnInterface // nil: there is none
	changed chan struct{}            // closed, and replaced, with conn
}

func newLeaderConn() *leaderConn { return &leaderConn{changed: make(chan struct{})} }

func (l *leaderConn) set(conn grpc.ClientConnInterface) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
	close(l.changed)
	l.changed = make(chan struct{})
}

// get gives the connection, and waits for one that is not failed.
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

// stages runs what belongs to the stages that read other stages' outputs.
type stages struct {
	leader *leaderConn
	stores blob.Stores
}

// stageParts is what the leader says about a stage's outputs.
type stageParts struct {
	tasks uint64
}

// wirePart is one done task of a stage.
type wirePart struct {
	index, lease, size, records, checksum uint64
}

// parts asks the leader for the winners of a stage, in task order. A leader that goes away in the middle is waited for, and
// the list gone on with: a stage whose outputs are read has ended, so that it never changes. about, if not nil, gets what
// the pages say about the stage as a whole.
func (s *stages) parts(ctx context.Context, job uint64, stage uint32, about *stageParts) iter.Seq2[wirePart, error] {
	return func(yield func(wirePart, error) bool) {
		var next uint64 // parts below it have been given
		var failed grpc.ClientConnInterface
		for {
			conn, err := s.leader.get(ctx, failed)
			if err != nil {
				yield(wirePart{}, err)
				return
			}
			err = eachPage(ctx, conn, job, stage, about, func(p wirePart) bool {
				if p.index < next {
					return true
				}
				next = p.index + 1
				return yield(p, nil)
			})
			switch {
			case err == nil, errors.Is(err, errReaderGone):
				return
			case ctx.Err() != nil:
				yield(wirePart{}, context.Cause(ctx))
				return
			case !passing(err):
				yield(wirePart{}, fmt.Errorf("ask the leader for the parts of job %d: %w", job, err))
				return
			}
			failed = conn
		}
	}
}

// errReaderGone ends the reading of pages when nobody wants more.
var errReaderGone = errors.New("nobody reads on")

// passing says whether another leader, or the same one later, may answer.
func passing(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.Canceled || code == codes.Aborted || code == codes.DeadlineExceeded
}

func eachPage(
	ctx context.Context, conn grpc.ClientConnInterface, job uint64, stage uint32, about *stageParts, f func(wirePart) bool,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a call that is not read to its end
	pages, err := wire.NewLeaderClient(conn).Parts(ctx, &wire.PartsRequest{Job: job, Stage: stage})
	if err != nil {
		return err
	}
	if about != nil {
		*about = stageParts{}
	}
	for {
		page, err := pages.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if about != nil {
			about.tasks = max(about.tasks, page.GetTasks())
		}
		n := len(page.GetIndex())
		for _, col := range [][]uint64{page.GetLease(), page.GetSize(), page.GetRecords(), page.GetChecksum()} {
			if !wire.ColumnFits(col, n) {
				return status.Error(codes.Internal, "a page of parts has columns of different lengths")
			}
		}
		for i := range n {
			p := wirePart{
				index: page.GetIndex()[i], lease: wire.Entry(page.GetLease(), i), size: wire.Entry(page.GetSize(), i),
				records: wire.Entry(page.GetRecords(), i), checksum: wire.Entry(page.GetChecksum(), i),
			}
			if !f(p) {
				return errReaderGone
			}
		}
	}
}

// inputs is what a collect stage reads: the outputs of the stages that it comes from.
func (s *stages) inputs(ctx context.Context, job *wire.Job, stage *wire.Stage) iter.Seq2[runner.Part, error] {
	return func(yield func(runner.Part, error) bool) {
		for _, from := range stage.GetFrom() {
			name := wire.StageOf(job, from).GetName()
			for p, err := range s.parts(ctx, job.GetId(), from, nil) {
				part := runner.Part{
					Index: p.index, Size: p.size, Records: p.records,
					Path: attemptFolder(job).Join(layout.Attempt(name, p.index, p.lease)),
				}
				if !yield(part, err) {
					return
				}
			}
		}
	}
}

// attemptFolder is the folder that attempts of a job write to.
func attemptFolder(job *wire.Job) blob.Location {
	return blob.Location(job.GetOutput()).Join(layout.Private(job.GetUid()))
}
