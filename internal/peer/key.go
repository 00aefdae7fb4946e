package peer

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// GiveKey gives a member the next key of the cluster. When it returns nil, the member has stored it.
func (t *Transport) GiveKey(ctx context.Context, to replica.Member, dial Dialer, key []byte) error {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	t.mu.Lock()
	req := &peerpb.KeyRequest{ClusterId: t.members.logged.Cluster, To: to.ID, Key: key}
	t.mu.Unlock()
	_, err := call(ctx, dial, to.Address, func(ctx context.Context, c peerpb.PeerClient) (*peerpb.KeyReply, error) { return c.Key(ctx, req) })
	return err
}

// Key implements peerpb.PeerServer.
func (s service) Key(ctx context.Context, req *peerpb.KeyRequest) (*peerpb.KeyReply, error) {
	t := s.t
	if err := t.startHandler(); err != nil {
		return nil, err
	}
	defer t.handlers.Done()
	t.mu.Lock()
	cluster, self := t.members.logged.Cluster, t.self.ID
	t.mu.Unlock()
	switch {
	case t.cfg.OnKey == nil:
		return nil, status.Error(codes.Unimplemented, "this leader has no cluster key")
	case req.GetClusterId() != cluster || req.GetTo() != self:
		return nil, status.Errorf(codes.FailedPrecondition, "this is leader %d of cluster %s", self, cluster)
	}
	if err := t.cfg.OnKey(ctx, req.GetKey()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &peerpb.KeyReply{}, nil
}
