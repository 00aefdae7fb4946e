package node

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/wire/wiretest"
)

// TestContract runs the contract with workers, which the worker's fake leader keeps as well.
func TestContract(t *testing.T) {
	wiretest.Run(t, func(t *testing.T) *wiretest.Leader {
		t.Helper()
		r := newRig(t)
		conn, err := grpc.NewClient("passthrough:///leader", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.listener.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		return &wiretest.Leader{
			Conn:     conn,
			Submit:   func(tasks int) uint64 { return submit(t, r.node, request(int64(tasks)), "").ID },
			StepDown: r.log.depose,
			ReadLog: func(job uint64) (text string, err error) {
				err = r.node.Logs(t.Context(), api.LogQuery{Job: job}, func(rec api.LogRecord) error {
					text += string(rec.Text)
					return nil
				})
				return text, err
			},
		}
	})
}
