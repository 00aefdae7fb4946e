package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// preface begins each HTTP/2 connection of a gRPC client. No HTTP/1 request begins with its first four bytes.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// prefaceTime bounds the time until a connection has sent its first bytes.
const prefaceTime = 10 * time.Second

// Delays after a temporary error of Accept, as in net/http.
const (
	acceptDelayMin = 5 * time.Millisecond
	acceptDelayMax = time.Second
)

// splitter distributes the connections of a node's listeners to two servers, by their first bytes: gRPC or HTTP/1. So gRPC can use its own
// transport, which is several times faster than its handler for net/http.
type splitter struct {
	listeners []net.Listener
	grpc      *branch
	http      *branch
	open      portConns
	refusals  transport.Refusals
	logger    *slog.Logger
	tls       *access.Encryption // nil: no connection is encrypted
	insecure  bool               // any client may be a worker or a leader
}

func newSplitter(listeners []net.Listener, limits transport.ConnLimits, logger *slog.Logger) *splitter {
	closed := make(chan struct{})
	shut := sync.OnceValue(func() error {
		close(closed)
		return closeAll(listeners)
	})
	fresh := func() *branch {
		return &branch{addr: listeners[0].Addr(), conns: make(chan net.Conn), closed: closed, shut: shut}
	}
	return &splitter{listeners: listeners, grpc: fresh(), http: fresh(), open: portConns{limits: limits, http: map[*startedConn]struct{}{}}, logger: logger}
}

func closeAll(listeners []net.Listener) error {
	var err error
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// run accepts connections until the listeners are closed, which closing either branch does.
func (s *splitter) run() error {
	var conns, parts sync.WaitGroup
	defer conns.Wait()
	open, end := context.WithCancel(context.Background())
	defer end() // a server that closes must not wait for a silent client
	errs := make([]error, len(s.listeners))
	for i, l := range s.listeners {
		parts.Go(func() { errs[i] = s.accept(open, l, &conns) })
	}
	parts.Wait()
	return errors.Join(errs...)
}

// accept accepts the connections of one listener. An error closes the others.
func (s *splitter) accept(open context.Context, l net.Listener, conns *sync.WaitGroup) error {
	var delay time.Duration
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Temporary errors include EMFILE and ENFILE: open connections will end.
			if temporary, ok := err.(interface{ Temporary() bool }); !ok || !temporary.Temporary() {
				return errors.Join(err, s.grpc.Close())
			}
			delay = min(max(2*delay, acceptDelayMin), acceptDelayMax)
			s.logger.WarnContext(open, "connection not accepted", "error", err, "retry_in", delay)
			if oldest := s.open.dropSilent(); oldest != nil {
				_ = oldest.Close() // its goroutine gets the error
			}
			retry := time.NewTimer(delay)
			select {
			case <-retry.C:
			case <-s.http.closed:
				retry.Stop()
				return nil
			}
			continue
		}
		delay = 0
		if dropped := s.open.enter(c); dropped != nil {
			s.refusals.Add(s.logger, "too many connections that send nothing", s.open.limits.Silent)
			_ = dropped.Close() // its goroutine gets the error
		}
		conns.Go(func() { s.route(open, c) })
	}
}

// route reads the start of a connection and passes it to its server, or closes it when ctx is done.
func (s *splitter) route(ctx context.Context, c net.Conn) {
	begun := &startedConn{Conn: c, accepted: c, peer: access.PeerOf(c)}
	// The servers set their own deadlines later.
	err := c.SetReadDeadline(time.Now().Add(prefaceTime))
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // the reader gets the error
		err = s.start(ctx, begun)
		stop()
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	begun.http = string(begun.start) != preface
	begun.machine = !begun.http && (s.insecure || begun.peer.Local || begun.peer.Certificate != nil && begun.peer.Invalid == nil)
	begun.end = sync.OnceFunc(func() { s.open.end(begun) })
	begun.heard.Store(time.Now().UnixNano())
	verdict, dropped := s.open.begin(begun, err == nil)
	if dropped != nil {
		s.refusals.Add(s.logger, "too many connections without a complete request", s.open.limits.HTTP)
		_ = dropped.Close() // its server gets the error
	}
	switch verdict {
	case connGone:
		_ = c.Close() // it sent nothing, or was dropped
	case connRefused:
		s.refusals.Add(s.logger, "too many connections", s.open.limits.HTTP)
		transport.Refuse(begun.Conn)
		s.open.begin(begun, false) // no longer counted as silent
	case connCounted:
		if begun.http {
			s.http.hand(begun)
		} else {
			s.grpc.hand(begun)
		}
	}
}

// start reads the first bytes of a connection, after the TLS handshake if it begins with one.
func (s *splitter) start(ctx context.Context, c *startedConn) error {
	start := make([]byte, len(preface))
	if _, err := io.ReadFull(c.Conn, start[:4]); err != nil {
		return err
	}
	switch {
	case !access.IsTLS(start[0]):
	case s.tls == nil: // the server's answer tells the client that this is no TLS
		s.refusals.Add(s.logger, "TLS, which this port does not speak: clients must use http://, and workers and leaders join by an address", 0)
	default:
		below := &startedConn{Conn: c.Conn, start: slices.Clone(start[:4]), end: func() {}}
		secure, peer, err := s.tls.Handshake(ctx, below, c.peer)
		if err != nil {
			s.refusals.Add(s.logger, err.Error(), 0)
			return err
		}
		c.Conn, c.peer = secure, peer
		if _, err := io.ReadFull(c.Conn, start[:4]); err != nil {
			return err
		}
	}
	n := 4
	if string(start[:n]) == preface[:n] {
		rest, err := io.ReadFull(c.Conn, start[n:])
		if n += rest; err != nil {
			return err
		}
	}
	c.start = start[:n]
	return nil
}

// portConns is the open connections of a port. Clients are refused before workers and leaders, and a connection that has sent nothing before
// all others: a flood of them must not block workers. Nor may one that never completes a request keep out others that do.
type portConns struct {
	limits transport.ConnLimits

	mu     sync.Mutex
	silent []net.Conn                // oldest first; with those that are being refused
	http   map[*startedConn]struct{} // also strangers' gRPC, which is refused
	grpc   int                       // of workers and leaders
}

// enter adds a new connection, and returns the one that must be closed for it: the one that was silent for longest.
func (p *portConns) enter(c net.Conn) (dropped net.Conn) {
	p.mu.Lock()
	p.silent = append(p.silent, c)
	full := len(p.silent) > p.limits.Silent || len(p.silent)+len(p.http)+p.grpc > p.limits.Total
	p.mu.Unlock()
	if !full {
		return nil
	}
	return p.dropSilent()
}

// dropSilent removes the connection that was silent for longest; nil: there is none.
func (p *portConns) dropSilent() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.silent) == 0 {
		return nil
	}
	c := p.silent[0]
	p.silent = slices.Delete(p.silent, 0, 1)
	return c
}

// connVerdict is what to do with a connection that is no longer silent.
type connVerdict int

const (
	connGone    connVerdict = iota // it has ended
	connRefused                    // to be refused, and then to leave
	connCounted                    // until its end
)

// begin counts a connection once its first bytes have come; sent is false if they never do. dropped is one that must be closed for it.
func (p *portConns) begin(c *startedConn, sent bool) (verdict connVerdict, dropped *startedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.Index(p.silent, c.accepted)
	if at < 0 {
		return connGone, nil // it was dropped
	}
	if sent && !c.machine && len(p.http) >= p.limits.HTTP {
		if dropped = p.unserved(); dropped == nil {
			return connRefused, nil
		}
		delete(p.http, dropped)
	}
	p.silent = slices.Delete(p.silent, at, at+1)
	switch {
	case !sent:
		return connGone, nil
	case c.machine:
		p.grpc++
	default:
		p.http[c] = struct{}{}
	}
	return connCounted, dropped
}

// unserved returns the client that has sent nothing for longest, of those without a complete request: first of those with a part of one.
func (p *portConns) unserved() (worst *startedConn) {
	for c := range p.http {
		state := c.state.Load()
		if state == serving {
			continue
		}
		if worst == nil || state < worst.state.Load() || state == worst.state.Load() && c.heard.Load() < worst.heard.Load() {
			worst = c
		}
	}
	return worst
}

// end uncounts a connection.
func (p *portConns) end(c *startedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.machine {
		p.grpc--
	} else {
		delete(p.http, c)
	}
}

// branch is a listener for some of the connections of another.
type branch struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	shut   func() error
}

func (b *branch) hand(c net.Conn) {
	select {
	case b.conns <- c:
	case <-b.closed:
		_ = c.Close() // the server has closed
	}
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the whole port.
func (b *branch) Close() error { return b.shut() }

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }

// States of a client's connection.
const (
	receiving int32 = iota // a request is not complete
	idle                   // between two requests
	serving                // a request is complete, and its answer is not
)

// startedConn is a counted connection of which the first bytes were read.
type startedConn struct {
	net.Conn
	accepted net.Conn // Conn, or below TLS
	peer     access.Peer
	start    []byte
	http     bool
	machine  bool // a worker or a leader, or may be one
	end      func()
	state    atomic.Int32
	heard    atomic.Int64 // when the last bytes came, Unix ns
}

// Peer implements access.Conn.
func (c *startedConn) Peer() access.Peer { return c.peer }

// Write implements net.Conn. gRPC detects clients that do not read by itself.
func (c *startedConn) Write(b []byte) (int, error) {
	if !c.http {
		return c.Conn.Write(b)
	}
	return transport.WriteWithin(c.Conn, b)
}

// Close implements net.Conn.
func (c *startedConn) Close() error {
	c.end()
	return c.Conn.Close()
}

func (c *startedConn) Read(b []byte) (int, error) {
	if len(c.start) == 0 {
		n, err := c.Conn.Read(b)
		if c.http && n > 0 {
			c.heard.Store(time.Now().UnixNano())
			c.state.CompareAndSwap(idle, receiving)
		}
		return n, err
	}
	n := copy(b, c.start)
	c.start = c.start[n:]
	return n, nil
}

// connKey is the key of the connection in the context of its requests.
type connKey struct{}

// watch lets the server serve with handler, and tell the connections of the splitter when a request is complete, and when it has been served.
func watch(server *http.Server, handler http.Handler) {
	connContext := server.ConnContext
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(connContext(ctx, c), connKey{}, c)
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*startedConn); ok {
			defer c.state.Store(idle)
			if r.Body == http.NoBody {
				c.state.Store(serving)
			} else {
				r.Body = watchedBody{r.Body, c}
			}
		}
		handler.ServeHTTP(w, r)
	})
}

// watchedBody completes the request at its end.
type watchedBody struct {
	io.ReadCloser
	conn *startedConn
}

func (b watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.conn.state.Store(serving)
	}
	return n, err
}
