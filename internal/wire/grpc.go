package wire

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// MessageBytesMax is the largest message between leaders and workers.
	MessageBytesMax = 64 << 20

	// Limits of one connection: of the time until it is set up, of the headers of a call, and of the calls at once (a worker has a session, a
	// call for each log that is read and one for each slot that reads outputs).
	setupTime      = 10 * time.Second
	headerBytesMax = 16 << 10
	callsMax       = 1024
)

// Connect returns a connection to the server at address, dialed on first use. Name resolution and encryption are up to dial.
func Connect(address string, dial func(ctx context.Context, address string) (net.Conn, error), options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///server", append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Only the dialer sees the address: with a zone, as in [fe80::1%eth0]:6550, it is no URL.
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, address) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MessageBytesMax), grpc.MaxCallSendMsgSize(MessageBytesMax)),
		grpc.WithDisableServiceConfig(),
	}, options...)...)
}

// NewServer returns a server for connections of Connect.
func NewServer(options ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(MessageBytesMax), grpc.MaxSendMsgSize(MessageBytesMax),
		grpc.ConnectionTimeout(setupTime), grpc.MaxHeaderListSize(headerBytesMax), grpc.MaxConcurrentStreams(callsMax),
	}, options...)...)
}

// FirstMessage receives the first message of a call with recv, which must come within 10 s. After an error the call must be ended.
func FirstMessage[M any](recv func() (*M, error)) (*M, error) {
	type result struct {
		m   *M
		err error
	}
	received := make(chan result, 1)
	go func() { // ends with the call
		m, err := recv()
		received <- result{m, err}
	}()
	timer := time.NewTimer(setupTime)
	defer timer.Stop()
	select {
	case r := <-received:
		return r.m, r.err
	case <-timer.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no message within %v", setupTime)
	}
}
