package wire

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// MessageBytesMax is the largest message between leaders and workers.
const MessageBytesMax = 64 << 20

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
	}, options...)...)
}
