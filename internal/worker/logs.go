package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/tasklog"
)

const (
	logPageBytes    = 256 << 10
	logReadersMax   = 256
	logRecordsExtra = 64 // bytes that a record costs beside its text
)

// logSender answers the leader's requests for logs, each with a call of its own.
type logSender struct {
	log    *tasklog.Log
	leader *leaderConn
	worker func() uint64 // its number
	logger *slog.Logger
	active chan struct{} // one entry per request being answered
	group  sync.WaitGroup
}

func newLogSender(log *tasklog.Log, leader *leaderConn, worker func() uint64, logger *slog.Logger) *logSender {
	return &logSender{log: log, leader: leader, worker: worker, logger: logger, active: make(chan struct{}, logReadersMax)}
}

// answer starts to answer a request. One beyond logReadersMax is refused.
func (s *logSender) answer(ctx context.Context, req *wire.LogRequest) {
	var full bool
	select {
	case s.active <- struct{}{}:
	default:
		full = true
	}
	s.group.Go(func() {
		if !full {
			defer func() { <-s.active }()
		}
		if err := s.send(ctx, req, full); err != nil && ctx.Err() == nil && !temporary(err) {
			s.logger.WarnContext(ctx, "task log not sent", "job", req.GetJob(), "error", err)
		}
	})
}

func (s *logSender) send(ctx context.Context, req *wire.LogRequest, full bool) error {
	conn, err := s.leader.get(ctx, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := wire.NewLeaderClient(conn).SendLog(ctx)
	if err != nil {
		cancel()
		return err
	}
	// The leader ends the call when its reader leaves; only receiving notices that while there is nothing to send.
	answered := make(chan error, 1)
	go func() {
		answered <- stream.RecvMsg(&wire.SendLogDone{})
		cancel()
	}()
	page := logPage{stream: stream, out: &wire.LogRecords{Request: req.GetRequest(), Worker: s.worker()}, first: true}
	if full {
		page.out.Incomplete = fmt.Sprintf("%d readers read its logs already: try again later", logReadersMax)
		err = page.flush()
	} else {
		err = s.log.Read(ctx, tasklog.Query{
			Job: req.GetJob(), OneTask: req.GetOneTask(), Stage: req.GetStage(), Index: req.GetIndex(), Follow: req.GetFollow(),
		}, page.add, page.flush)
	}
	var unread error
	if err != nil && !errors.Is(err, errLogReaderGone) {
		unread = err
		page.out.Incomplete = wire.FailureMessage(err.Error())
		err = page.send()
	}
	if err == nil {
		err = stream.CloseSend()
	} else {
		cancel()
	}
	answer := <-answered
	if ctx.Err() != nil && errors.Is(err, errLogReaderGone) {
		return nil
	}
	return errors.Join(unread, err, answer)
}

// errLogReaderGone reports that the leader has ended the call; its answer has the reason.
var errLogReaderGone = errors.New("the leader accepts no more records")

// logPage collects records into messages.
type logPage struct {
	stream grpc.ClientStreamingClient[wire.LogRecords, wire.SendLogDone]
	out    *wire.LogRecords
	bytes  int
	first  bool // the first message is sent even if it is empty: it names the request
}

func (p *logPage) add(r *tasklog.Record) error {
	p.out.Records = append(p.out.Records, &wire.LogRecord{
		Stage: r.Stage, Index: r.Index, Attempt: r.Number, Lease: r.Lease, Text: slices.Clone(r.Text), TimeMs: r.Time,
	})
	p.bytes += len(r.Text) + logRecordsExtra
	if p.bytes < logPageBytes {
		return nil
	}
	return p.flush()
}

func (p *logPage) flush() error {
	if len(p.out.GetRecords()) == 0 && !p.first {
		return nil
	}
	return p.send()
}

func (p *logPage) send() error {
	err := p.stream.Send(p.out)
	p.out, p.bytes, p.first = &wire.LogRecords{}, 0, false
	if err != nil {
		return errLogReaderGone
	}
	return nil
}
