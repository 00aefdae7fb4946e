package peer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
)

// slowStream receives a welcome after some time, and another reply after some more.
type slowStream struct {
	grpc.ClientStream
	ctx      context.Context //nolint:containedctx // of the stream
	received int
}

func (s *slowStream) Send(*peerpb.Batch) error { return nil }

func (s *slowStream) Recv() (*peerpb.Reply, error) {
	s.received++
	wait := time.Hour
	if s.received <= 2 {
		wait = silenceMax - time.Millisecond
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
	return &peerpb.Reply{Welcome: &peerpb.Welcome{}}, nil
}

// A link that was slow to connect is as good as any other: what its silence is measured from is the welcome.
func TestSilenceBeginsWithTheWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		open := func(ctx context.Context, _ peerpb.PeerClient) (outgoing[peerpb.Batch], error) {
			return &slowStream{ctx: ctx}, nil
		}
		send := func(ctx context.Context, _ outgoing[peerpb.Batch]) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		err := openStream(t.Context(), &Transport{}, 2, "10.0.0.2:6550", silenceMax, silenceMax, open, &peerpb.Batch{}, send)
		if want := 3*silenceMax - 2*time.Millisecond; time.Since(begun) != want || errors.Is(err, context.Canceled) {
			t.Errorf("the stream ended after %v with %v, want %v", time.Since(begun), err, want)
		}
	})
}
