package transport

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ConnLimits bound the connections to a leader's port.
type ConnLimits struct {
	Total  int
	HTTP   int // of them; the rest is for workers and leaders
	Silent int // that have sent nothing yet
}

// NewConnLimits derives limits from that of open files. A quarter of the files is left for the log, the spool and outgoing connections.
func NewConnLimits() ConnLimits {
	total := openFiles() / 4 * 3
	return ConnLimits{Total: total, HTTP: min(total/2, 8192), Silent: min(total/8, 1024)}
}

// openFiles returns the limit of open files of the process.
func openFiles() int {
	const unknown, enough = 1024, 1 << 20
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return unknown
	}
	return int(min(limit.Cur, enough))
}

// HeaderBytesMax bounds the header of a request.
const HeaderBytesMax = 64 << 10

// Answers that no handler gives: to a connection above a limit, and to a request with a header above HeaderBytesMax.
const (
	refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nConnection: close\r\n" +
		"Content-Length: 125\r\n\r\n" +
		`{"title":"Service Unavailable","status":503,"detail":"too many connections: retry later, or raise the limit of open files"}` + "\r\n"
	headerTooLarge = "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n" +
		`{"title":"Request Header Fields Too Large","status":431,"detail":"the address and the header of a request may have 64 KiB"}` + "\r\n"
)

// refusalTime bounds the time in which a client that is refused must send its request: if it were not read, the end of the connection could
// overtake the answer.
const refusalTime = 250 * time.Millisecond

// Refuse answers 503 to the HTTP request that c begins with, and closes c.
func Refuse(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(refusalTime)) // all errors mean that the client is gone
	if _, err := io.WriteString(c, refusal); err == nil {
		if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(c, 64<<10))
		}
	}
	_ = c.Close()
}

// Refusals logs refused connections, at most once a minute.
type Refusals struct {
	mu     sync.Mutex
	logged time.Time
	count  int
}

// Add counts a refusal.
func (r *Refusals) Add(logger *slog.Logger, reason string, limit int) {
	r.mu.Lock()
	r.count++
	n := r.count
	now := time.Now()
	quiet := now.Sub(r.logged) < time.Minute
	if !quiet {
		r.count, r.logged = 0, now
	}
	r.mu.Unlock()
	if !quiet {
		logger.Warn("connections refused", "reason", reason, "limit", limit, "refused", n)
	}
}

// refusingMax bounds the connections that are being refused. Those beyond it are closed without an answer.
const refusingMax = 8

// ListenHTTP listens on address for HTTP requests. A quarter of the open files is for connections, of which the newest are refused; the rest
// is for what the process works on.
func ListenHTTP(ctx context.Context, address string, logger *slog.Logger) (net.Listener, error) {
	l, err := Listen(ctx, address)
	if err != nil {
		return nil, err
	}
	return &limitedListener{Listener: l, max: int64(min(openFiles()/4, 256)), refusing: make(chan struct{}, refusingMax), logger: logger}, nil
}

type limitedListener struct {
	net.Listener
	max      int64
	open     atomic.Int64
	refusing chan struct{}
	refusals Refusals
	logger   *slog.Logger
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.max {
			return &limitedConn{Conn: c, end: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		l.refusals.Add(l.logger, "too many connections", int(l.max))
		select {
		case l.refusing <- struct{}{}:
			go func() {
				Refuse(c)
				<-l.refusing
			}()
		default:
			_ = c.Close() // nothing was read or written
		}
	}
}

// limitedConn is a counted connection.
type limitedConn struct {
	net.Conn
	end func()
}

func (c *limitedConn) Write(b []byte) (int, error) { return WriteWithin(c.Conn, b) }

// NetConn returns the connection that is counted.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

func (c *limitedConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// writeTime bounds one write to a client that does not read.
const writeTime = 30 * time.Second

// WriteWithin writes b, of an HTTP server, to c within 30 s: a client that does not read its answer must not hold a connection forever. The
// server's own answer to a header above the limit names none, and is replaced.
func WriteWithin(c net.Conn, b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return 0, err
	}
	if bytes.HasPrefix(b, []byte(headerTooLarge[:len("HTTP/1.1 431")])) {
		_, err := io.WriteString(c, headerTooLarge)
		return len(b), err
	}
	return c.Write(b)
}
