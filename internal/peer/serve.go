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
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// service is the transport as others call it.
type service struct {
	peerpb.UnimplementedPeerServer
	t *Transport
}

var (
	errClosing   = status.Error(codes.Unavailable, "this leader is shutting down")
	errStarting  = status.Error(codes.Unavailable, "this leader is starting")
	errReplaced  = status.Error(codes.Aborted, "the member has connected anew")
	errNoMessage = status.Error(codes.DeadlineExceeded, "nothing was heard for "+guestsMax.String())
)

// incoming is a stream that another node has opened.
type incoming[Req any] = grpc.BidiStreamingServer[Req, peerpb.Reply]

// sessionKey names what a member has one of at a time.
type sessionKey struct {
	id   uint64
	lane peerpb.Lane
}

// session is a stream of a member that is welcome.
type session struct {
	address, directory, incarnation string
	end                             context.CancelCauseFunc
	over                            chan struct{} // closed when nothing of it goes on
	heard                           atomic.Int64  // Unix nanoseconds
}

// guest is a stream of which a handler's two goroutines take care: work reads, the handler itself writes.
type guest struct {
	welcomes chan *peerpb.Welcome
	cancel   context.CancelCauseFunc
	// silent ends the stream. It runs only while the guest is listened to.
	silent *time.Timer
}

// host serves a stream: work reads it, in a goroutine of its own, for a Recv ends only when the handler has returned.
func (t *Transport) host(stream interface {
	Context() context.Context
	Send(*peerpb.Reply) error
}, work func(context.Context, *guest) error,
) error {
	if err := t.enter(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	g := &guest{welcomes: make(chan *peerpb.Welcome), cancel: cancel}
	g.silent = time.AfterFunc(guestsMax, func() { cancel(errNoMessage) })
	done := make(chan error, 1)
	go func() {
		defer t.handlers.Done()
		defer g.silent.Stop()
		done <- work(ctx, g)
	}()
	var pulses <-chan time.Time
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
			ticker := time.NewTicker(pulseEvery)
			defer ticker.Stop()
			pulses = ticker.C
		case <-pulses:
		}
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
}

// enter counts a handler in, unless Run has ended or not begun to be possible. Who is in calls t.handlers.Done at the end.
func (t *Transport) enter() error {
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

// whileOpen gives a context that ends with the transport. The caller must call release.
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

// admit checks the handshake of a guest, and takes it in; the guest must be shown out by calling leave.
func (t *Transport) admit(ctx context.Context, g *guest, hs *peerpb.Handshake) (s *session, leave func(), err error) {
	key := sessionKey{hs.GetFrom(), hs.GetLane()}
	s = &session{
		address: hs.GetAddress(), directory: hs.GetDirectory(), incarnation: hs.GetIncarnation(), end: g.cancel, over: make(chan struct{}),
	}
	s.heard.Store(time.Now().UnixNano())
	for {
		before, refusal := t.tryAdmit(key, s, hs)
		if refusal != nil {
			t.logRefusal(hs.GetDirectory(), refusal)
			return nil, nil, refusalError(refusal)
		}
		if before == nil {
			break
		}
		// The member has noticed sooner than this node that its stream was cut.
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

// tryAdmit takes s in, or gives the session in whose place it would come, or the reason why it is refused.
func (t *Transport) tryAdmit(key sessionKey, s *session, hs *peerpb.Handshake) (before *session, refusal *peerpb.Refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.door()
	if r := d.check(hs); r != nil {
		return nil, r
	}
	if before := t.sessions[key]; before != nil {
		alive := time.Since(time.Unix(0, before.heard.Load())) < silenceMax
		if alive && before.incarnation != s.incarnation {
			return nil, refuse(peerpb.Refusal_TWIN, false, "another process is connected as leader %d, with the same data directory (%s): "+
				"if the directory was copied, remove the copy, and --join anew", key.id, s.directory)
		}
		return before, nil
	}
	t.sessions[key] = s
	delete(t.told, s.directory)
	t.met = true
	t.book.hear(key.id, s.address, s.directory)
	signal(t.news)
	t.link(key.id).redial()
	return nil, nil
}

// Raft implements peerpb.PeerServer.
func (s service) Raft(stream incoming[peerpb.Batch]) error {
	return s.t.host(stream, func(ctx context.Context, g *guest) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		session, leave, err := s.t.admit(ctx, g, first.GetHandshake())
		if err != nil {
			return err
		}
		defer leave()
		from := first.GetHandshake().GetFrom()
		for batch := first; ; {
			g.silent.Stop()
			msgs, err := s.t.decode(from, batch.GetMessages()...)
			if err != nil {
				return err
			}
			if len(msgs) > 0 {
				if err := s.t.replica.Receive(ctx, msgs...); err != nil {
					return s.t.notTaken(ctx, from, "messages", err)
				}
			}
			g.silent.Reset(guestsMax)
			if batch, err = stream.Recv(); err != nil {
				return ignoreEnd(err)
			}
			session.heard.Store(time.Now().UnixNano())
		}
	})
}

// decode reads messages that a member has sent.
func (t *Transport) decode(from uint64, raw ...[]byte) ([]*raftpb.Message, error) {
	msgs := make([]*raftpb.Message, len(raw))
	for i, r := range raw {
		m := &raftpb.Message{}
		if err := proto.Unmarshal(r, m); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "a message of leader %d: %v", from, err)
		}
		// Nobody speaks for others: a message that says so was mixed up on its way.
		if m.GetFrom() != from || m.GetTo() != t.replica.ID() {
			return nil, status.Errorf(codes.InvalidArgument, "leader %d sends leader %d a message from %d to %d", from, t.replica.ID(),
				m.GetFrom(), m.GetTo())
		}
		msgs[i] = m
	}
	return msgs, nil
}

// notTaken is what a member is told when what it has sent was not taken.
func (t *Transport) notTaken(ctx context.Context, from uint64, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, replica.ErrClosed):
		return errClosing
	}
	t.log.WarnContext(ctx, "what a leader has sent was not taken", "peer", from, "what", what, "error", err)
	return status.Errorf(codes.Aborted, "%s not taken: %v", what, err)
}

// ignoreEnd drops the error that only says that the other side has nothing more to say.
func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Snapshot implements peerpb.PeerServer.
func (s service) Snapshot(stream incoming[peerpb.Chunk]) error {
	return s.t.host(stream, func(ctx context.Context, g *guest) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		session, leave, err := s.t.admit(ctx, g, first.GetHandshake())
		if err != nil {
			return err
		}
		defer leave()
		from := first.GetHandshake().GetFrom()
		msgs, err := s.t.decode(from, first.GetMessage())
		if err != nil {
			return err
		}
		body := &snapshotBody{stream: stream, guest: g, session: session, rest: first.GetData()}
		g.silent.Stop() // it runs while the body is read
		if err := s.t.replica.ReceiveSnapshot(ctx, msgs[0], body); err != nil {
			return s.t.notTaken(ctx, from, "snapshot", err)
		}
		s.t.log.InfoContext(ctx, "the snapshot of a leader was taken", "peer", from, "bytes", body.bytes)
		return nil
	})
}

// snapshotBody reads a snapshot from its chunks.
type snapshotBody struct {
	stream  incoming[peerpb.Chunk]
	guest   *guest
	session *session
	rest    []byte // of the last chunk
	bytes   int64
}

// Read implements io.Reader.
func (b *snapshotBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		b.guest.silent.Reset(guestsMax)
		chunk, err := b.stream.Recv()
		b.guest.silent.Stop()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, fmt.Errorf("broken off after %d bytes: %w", b.bytes, err)
		}
		b.session.heard.Store(time.Now().UnixNano())
		b.rest = chunk.GetData()
	}
	n := copy(p, b.rest)
	b.rest, b.bytes = b.rest[n:], b.bytes+int64(n)
	return n, nil
}
