package wire

import (
	"context"
	"net"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
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

// The detail by which the error of a call says that the key of the caller was revoked.
const (
	revokedReason = "KEY_REVOKED"
	revokedDomain = "bridgefour"
)

// RevokedError is the error of a call of a machine whose key was revoked: it must not call again.
func RevokedError(reason string) error {
	s := status.New(codes.Unauthenticated, reason)
	if detailed, err := s.WithDetails(&errdetails.ErrorInfo{Reason: revokedReason, Domain: revokedDomain}); err == nil {
		s = detailed
	}
	return s.Err()
}

// IsRevoked reports whether a call has ended with a RevokedError.
func IsRevoked(err error) bool {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.Unauthenticated {
		return false
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == revokedReason && info.GetDomain() == revokedDomain {
			return true
		}
	}
	return false
}
