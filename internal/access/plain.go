package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/bridgefour/bridgefour/internal/transport"
)

// PlainDial returns a function that connects to servers without encryption: unless insecure, only to those of this user, or of root, on this
// machine. Another user's process that listens there could answer as a leader, and let a worker run its programs.
func PlainDial(insecure bool) func(ctx context.Context, address string) (net.Conn, error) {
	if insecure {
		return transport.Dial
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := transport.Dial(ctx, address)
		if err != nil {
			return nil, err
		}
		err = CheckServer(ctx, c, address)
		if errors.Is(err, errClosed) { // by a server that has just ended, for example
			_ = c.Close()
			return nil, &net.OpError{Op: "dial", Net: c.RemoteAddr().Network(), Addr: c.RemoteAddr(), Err: errClosed}
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: join its cluster with --join STRING, which 'bridgefour token create' prints there; or add --insecure "+
				"(BRIDGEFOUR_INSECURE=1), if you trust it and all machines between", err), c.Close())
		}
		return c, nil
	}
}

const (
	// acceptTime bounds the time until a server has accepted a connection: before, the kernel does not know whose it is.
	acceptTime = 2 * time.Second
	// acceptCheck is the longest time between two looks.
	acceptCheck = 100 * time.Millisecond
)

// ErrOtherUser means that a server on this machine is of another user than this one or root.
var ErrOtherUser = errors.New("belongs to another user")

// CheckServer returns an error unless the server at the other end of c is of this user, or of root, on this machine. It does not wait for one that has ended.
func CheckServer(ctx context.Context, c net.Conn, address string) error {
	if _, isUnix := c.RemoteAddr().(*net.UnixAddr); !isUnix && !transport.IsLoopback(c.RemoteAddr().String()) {
		return fmt.Errorf("the server at %s is on another machine, and the connection would not be encrypted", address)
	}
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	uid, err := peerUser(c)
	for wait := time.Millisecond; errors.Is(err, errNoSocket) && ctx.Err() == nil; wait = min(2*wait, acceptCheck) {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		uid, err = peerUser(c)
	}
	switch {
	case err != nil:
		return fmt.Errorf("the user of the server at %s is not known (%w)", address, err)
	case uid != os.Geteuid() && uid != 0:
		return fmt.Errorf("the server at %s %w (uid %d)", address, ErrOtherUser, uid)
	}
	return nil
}
