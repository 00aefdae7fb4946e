package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// prefaceStart begins each HTTP/2 connection of a gRPC client ("PRI * HTTP/2.0"), and no HTTP/1 request.
const prefaceStart = "PRI "

// prefaceTime bounds the time until a connection has sent its first bytes.
const prefaceTime = 10 * time.Second

// Delays after a temporary error of Accept, as in net/http.
const (
	acceptDelayMin = 5 * time.Millisecond
	acceptDelayMax = time.Second
)

// splitter distributes the connections of one listener to two servers, by their first bytes: gRPC or HTTP/1. So gRPC can use its own
// transport, which is several times faster than its handler for net/http.
type splitter struct {
	listener net.Listener
	grpc     *branch
	http     *branch
	logger   *slog.Logger
}

func newSplitter(l net.Listener, logger *slog.Logger) *splitter {
	closed := make(chan struct{})
	shut := sync.OnceValue(func() error {
		close(closed)
		return l.Close()
	})
	fresh := func() *branch {
		return &branch{addr: l.Addr(), conns: make(chan net.Conn), closed: closed, shut: shut}
	}
	return &splitter{listener: l, grpc: fresh(), http: fresh(), logger: logger}
}

// run accepts connections until the listener is closed, which closing either branch does.
func (s *splitter) run() error {
	var conns sync.WaitGroup
	defer conns.Wait()
	open, end := context.WithCancel(context.Background())
	defer end() // a server that closes must not wait for a silent client
	var delay time.Duration
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Temporary errors include EMFILE and ENFILE: open connections will end.
			if temporary, ok := err.(interface{ Temporary() bool }); !ok || !temporary.Temporary() {
				return errors.Join(err, s.grpc.Close())
			}
			delay = min(max(2*delay, acceptDelayMin), acceptDelayMax)
			s.logger.Warn("connection not accepted", "error", err, "retry_in", delay)
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
		conns.Go(func() { s.route(open, c) })
	}
}

// route reads the start of a connection and passes it to its server, or closes it when ctx is done.
func (s *splitter) route(ctx context.Context, c net.Conn) {
	start := make([]byte, len(prefaceStart))
	// The servers set their own deadlines later.
	n, err := 0, c.SetReadDeadline(time.Now().Add(prefaceTime))
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // the reader gets the error
		n, err = io.ReadFull(c, start)
		stop()
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if err != nil && n == 0 {
		_ = c.Close() // it sent nothing
		return
	}
	to := s.http
	if string(start[:n]) == prefaceStart {
		to = s.grpc
	}
	to.hand(&startedConn{Conn: c, start: start[:n]})
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

// startedConn is a connection of which the first bytes were read.
type startedConn struct {
	net.Conn
	start []byte
}

func (c *startedConn) Read(b []byte) (int, error) {
	if len(c.start) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.start)
	c.start = c.start[n:]
	return n, nil
}
