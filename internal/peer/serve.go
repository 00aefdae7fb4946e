package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// service is the gRPC side of a transport.
type service struct {
	peerpb.UnimplementedPeerServer
	t *Transport
}

var (
	errClosing   = status.Error(codes.Unavailable, "this leader is shutting down")
	errStarting  = status.Error(codes.Unavailable, "this leader is starting")
	errReplaced  = status.Error(codes.Aborted, "the member has reconnected")
	errNoMessage = status.Error(codes.DeadlineExceeded, "nothing was heard for "+inboundSilenceMax.String())
)

// incoming is a stream opened by another node.
type incoming[Req any] = grpc.BidiStreamingServer[Req, peerpb.Reply]

// sessionKey identifies a session: a member has one per lane at a time.
type sessionKey struct {
	id   uint64
	lane peerpb.Lane
}

// session is an accepted stream of a member.
type session struct {
	address, directory, incarnation, version string
	level                                    uint32 // the highest feature level that the member reads
	end                                      context.CancelCauseFunc
	over                                     chan struct{} // closed when its handler has finished
	heard                                    atomic.Int64  // Unix nanoseconds
}

// inbound is a stream that a handler's two goroutines serve: work reads, the handler itself writes.
type inbound struct {
	welcomes chan *peerpb.Welcome
	cancel   context.CancelCauseFunc
	// idle ends the stream. It runs only while the stream is read.
	idle *time.Timer
}

// serve serves a stream: work reads it in a goroutine of its own, because a Recv ends only when the handler has returned.
func (t *Transport) serve(stream interface {
	Context() context.Context
	Send(*peerpb.Reply) error
}, work func(context.Context, *inbound) error,
) error {
	if err := t.startHandler(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	g := &inbound{welcomes: make(chan *peerpb.Welcome), cancel: cancel}
	g.idle = time.AfterFunc(inboundSilenceMax, func() { cancel(errNoMessage) })
	done := make(chan error, 1)
	go func() {
		defer t.handlers.Done()
		defer g.idle.Stop()
		done <- work(ctx, g)
	}()
	var keepalive <-chan time.Time
	for {
		reply := &peerpb.Reply{}
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.closed:
			return errClosing
		case reply.Welcome = <-g.welcomes:
			ticker := time.NewTicker(keepaliveEvery)
			defer ticker.Stop()
			keepalive = ticker.C
		case <-keepalive:
		}
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
}

// startHandler registers a handler, unless Run has ended or no replica is attached. The handler must call t.handlers.Done.
func (t *Transport) startHandler() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.closed:
		return errClosing
	default:
	}
	if t.replica == nil {
		return errStarting
	}
	t.handlers.Add(1)
	return nil
}

// whileOpen returns a context that ends with the transport. The caller must call release.
func (t *Transport) whileOpen(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-t.closed:
			cancel(errClosing)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-over
	}
}

// accept checks the handshake of an inbound stream and registers its session; leave must be called at its end.
func (t *Transport) accept(ctx context.Context, g *inbound, hs *peerpb.Handshake) (s *session, leave func(), err error) {
	key := sessionKey{hs.GetFrom(), hs.GetLane()}
	if r := t.uncertified(ctx, hs.GetDirectory(), who(hs.GetFrom(), hs.GetAddress())); r != nil {
		t.logRefusal(hs.GetDirectory(), r)
		return nil, nil, refusalError(r)
	}
	s = &session{
		address: hs.GetAddress(), directory: hs.GetDirectory(), incarnation: hs.GetIncarnation(), version: hs.GetVersion(),
		level: hs.GetFeatureLevel(), end: g.cancel, over: make(chan struct{}),
	}
	s.heard.Store(time.Now().UnixNano())
	for {
		before, refusal := t.tryAccept(key, s, hs)
		if refusal != nil {
			t.logRefusal(hs.GetDirectory(), refusal)
			return nil, nil, refusalError(refusal)
		}
		if before == nil {
			break
		}
		// The member has detected the loss of its stream earlier than this node.
		before.end(errReplaced)
		select {
		case <-before.over:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	leave = func() {
		t.mu.Lock()
		delete(t.sessions, key)
		t.mu.Unlock()
		close(s.over)
	}
	t.mu.Lock()
	welcome := &peerpb.Welcome{Directory: t.self.Directory, Version: t.cfg.Version, Protocol: Protocol}
	t.mu.Unlock()
	select {
	case g.welcomes <- welcome:
		return s, leave, nil
	case <-ctx.Done():
		leave()
		return nil, nil, context.Cause(ctx)
	}
}

// uncertified returns why a caller may not use a data directory's name; nil: it may.
func (t *Transport) uncertified(ctx context.Context, directory, from string) *peerpb.Refusal {
	if t.cfg.Certified == nil {
		return nil
	}
	if name := t.cfg.Certified(ctx); name != "" && name != directory {
		return refuse(peerpb.Refusal_OTHER_DIRECTORY, false, "%s names the data directory %q, and its certificate is for %q: its key and its log are of two "+
			"leaders; restore them from one backup, or start with an empty data directory and --join", from, directory, name)
	}
	return nil
}

// tryAccept registers s, or returns the session that it would replace, or the refusal.
func (t *Transport) tryAccept(key sessionKey, s *session, hs *peerpb.Handshake) (before *session, refusal *peerpb.Refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.policy()
	if r := p.check(hs); r != nil {
		return nil, r
	}
	if before := t.sessions[key]; before != nil {
		alive := time.Since(time.Unix(0, before.heard.Load())) < silenceMax
		if alive && before.incarnation != s.incarnation {
			return nil, refuse(peerpb.Refusal_TWIN, false, "another process is connected as leader %d, with the same data directory (%s): "+
				"if the directory was copied, remove the copy, and --join again", key.id, s.directory)
		}
		return before, nil
	}
	t.sessions[key] = s
	delete(t.refusals, s.directory)
	t.answered = true
	t.members.announce(key.id, s.address, s.directory)
	signal(t.updates)
	t.link(key.id).redial()
	return nil, nil
}

// Raft implements peerpb.PeerServer.
func (s service) Raft(stream incoming[peerpb.Batch]) error {
	return s.t.serve(stream, func(ctx context.Context, g *inbound) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		session, leave, err := s.t.accept(ctx, g, first.GetHandshake())
		if err != nil {
			return err
		}
		defer leave()
		from := first.GetHandshake().GetFrom()
		for batch := first; ; {
			g.idle.Stop()
			msgs, err := s.t.decode(from, batch.GetMessages()...)
			if err != nil {
				return err
			}
			if len(msgs) > 0 {
				if err := s.t.replica.Receive(ctx, msgs...); err != nil {
					return s.t.notAccepted(ctx, from, "messages", err)
				}
			}
			g.idle.Reset(inboundSilenceMax)
			if batch, err = stream.Recv(); err != nil {
				return ignoreEnd(err)
			}
			session.heard.Store(time.Now().UnixNano())
		}
	})
}

// batchMessagesMax bounds the messages of a batch. A sender's has about a megabyte.
const batchMessagesMax = 64 << 10

// countEntries counts the entries of an encoded message: decoded, each takes much more memory than its two bytes.
func countEntries(raw []byte) (n int) {
	const entries = 7 // field of raftpb.Message
	for len(raw) > 0 {
		field, _, size := protowire.ConsumeField(raw)
		if size < 0 {
			return n // decoding fails as well
		}
		if field == entries {
			n++
		}
		raw = raw[size:]
	}
	return n
}

// decode decodes messages of a member.
func (t *Transport) decode(from uint64, raw ...[]byte) ([]*raftpb.Message, error) {
	if len(raw) > batchMessagesMax {
		return nil, status.Errorf(codes.InvalidArgument, "leader %d sends %d messages at once, the limit is %d", from, len(raw), batchMessagesMax)
	}
	msgs := make([]*raftpb.Message, len(raw))
	for i, r := range raw {
		if n := countEntries(r); n > replica.MessageEntriesMax {
			return nil, status.Errorf(codes.InvalidArgument, "a message of leader %d has %d entries, the limit is %d", from, n, replica.MessageEntriesMax)
		}
		m := &raftpb.Message{}
		if err := proto.Unmarshal(r, m); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "a message of leader %d: %v", from, err)
		}
		// A message of or for another member was misdelivered.
		if m.GetFrom() != from || m.GetTo() != t.replica.ID() {
			return nil, status.Errorf(codes.InvalidArgument, "leader %d sends leader %d a message from %d to %d", from, t.replica.ID(),
				m.GetFrom(), m.GetTo())
		}
		msgs[i] = m
	}
	return msgs, nil
}

// notAccepted returns the status for messages that the replica has refused.
func (t *Transport) notAccepted(ctx context.Context, from uint64, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, replica.ErrClosed):
		return errClosing
	}
	t.log.WarnContext(ctx, "messages of a leader refused", "peer", from, "what", what, "error", err)
	return status.Errorf(codes.Aborted, "%s refused: %v", what, err)
}

// ignoreEnd drops the error that means the orderly end of a stream.
func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Snapshot implements peerpb.PeerServer.
func (s service) Snapshot(stream incoming[peerpb.Chunk]) error {
	return s.t.serve(stream, func(ctx context.Context, g *inbound) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		session, leave, err := s.t.accept(ctx, g, first.GetHandshake())
		if err != nil {
			return err
		}
		defer leave()
		from := first.GetHandshake().GetFrom()
		msgs, err := s.t.decode(from, first.GetMessage())
		if err != nil {
			return err
		}
		body := &snapshotBody{stream: stream, inbound: g, session: session, rest: first.GetData()}
		g.idle.Stop() // snapshotBody resets it
		if err := s.t.replica.ReceiveSnapshot(ctx, msgs[0], body); err != nil {
			return s.t.notAccepted(ctx, from, "snapshot", err)
		}
		s.t.log.InfoContext(ctx, "snapshot received from a leader", "peer", from, "bytes", body.bytes)
		return nil
	})
}

// snapshotBody reads a snapshot from its chunks.
type snapshotBody struct {
	stream  incoming[peerpb.Chunk]
	inbound *inbound
	session *session
	rest    []byte // of the last chunk
	bytes   int64
}

// Read implements io.Reader.
func (b *snapshotBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		b.inbound.idle.Reset(inboundSilenceMax)
		chunk, err := b.stream.Recv()
		b.inbound.idle.Stop()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, fmt.Errorf("interrupted after %d bytes: %w", b.bytes, err)
		}
		b.session.heard.Store(time.Now().UnixNano())
		b.rest = chunk.GetData()
	}
	n := copy(p, b.rest)
	b.rest, b.bytes = b.rest[n:], b.bytes+int64(n)
	return n, nil
}
