package peer

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
)

// InviteRequest is a cluster's invitation to a node that was never used.
type InviteRequest struct {
	Cluster, Name string
	Leaders       []string // addresses to ask for a place
}

// Invite asks the node that listens at address to become a leader of this cluster. It must be alone and have nothing in its state.
// When Invite returns nil, the node is about to ask for a place.
func (t *Transport) Invite(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	t.mu.Lock()
	req := &peerpb.InviteRequest{
		ClusterId: t.book.members.Cluster, ClusterName: t.cfg.Name, Leaders: t.addresses(),
		Version: t.cfg.Version, Protocol: Protocol, ProtocolMin: ProtocolMin,
	}
	t.mu.Unlock()
	_, err := call(ctx, t.dial, address, func(ctx context.Context, c peerpb.PeerClient) (*peerpb.InviteReply, error) {
		return c.Invite(ctx, req)
	})
	if err != nil {
		return fmt.Errorf("invite the node at %s: %w", address, err)
	}
	return nil
}

// Invite implements peerpb.PeerServer.
func (s service) Invite(ctx context.Context, req *peerpb.InviteRequest) (*peerpb.InviteReply, error) {
	t := s.t
	if err := t.enter(); err != nil {
		return nil, err
	}
	defer t.handlers.Done()
	fresh := t.cfg.Fresh != nil && t.cfg.OnInvite != nil && t.cfg.Fresh()
	t.mu.Lock()
	refusal, here := t.door().checkInvite(req, fresh)
	t.mu.Unlock()
	switch {
	case refusal != nil:
		t.logRefusal(req.GetClusterId(), refusal)
		return nil, refusalError(refusal)
	case here:
		return &peerpb.InviteReply{}, nil
	}
	invitation := InviteRequest{Cluster: req.GetClusterId(), Name: req.GetClusterName(), Leaders: req.GetLeaders()}
	if err := t.cfg.OnInvite(invitation); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	t.log.InfoContext(ctx, "invited to a cluster", "cluster", invitation.Cluster, "cluster_name", invitation.Name, "leaders", invitation.Leaders)
	return &peerpb.InviteReply{}, nil
}

// checkInvite says why an invitation is not followed, or that this node is in that cluster already.
func (d door) checkInvite(req *peerpb.InviteRequest, fresh bool) (_ *peerpb.Refusal, here bool) {
	m := d.book.members
	switch {
	case req.GetProtocol() < ProtocolMin || Protocol < req.GetProtocolMin():
		return d.otherProtocol(fmt.Sprintf("cluster %q (%s)", req.GetClusterName(), req.GetClusterId()), req.GetVersion(),
			req.GetProtocolMin(), req.GetProtocol()), false
	case len(req.GetLeaders()) == 0 || req.GetClusterId() == "":
		return refuse(peerpb.Refusal_MALFORMED, true, "the invitation names no cluster or no leaders"), false
	case req.GetClusterId() == m.Cluster:
		return nil, true
	case d.name != "" && req.GetClusterName() != "" && d.name != req.GetClusterName():
		return refuse(peerpb.Refusal_OTHER_NAME, true, "cluster %q (%s) invites %s, which was started for a cluster named %q: start it with "+
			"the other name, or with none", req.GetClusterName(), req.GetClusterId(), d.me(), d.name), false
	case len(m.List) > 1 || !fresh:
		return refuse(peerpb.Refusal_NOT_FRESH, true, "%s was used already (its cluster: %s), and would lose what it holds: invite one "+
			"with an empty data directory", d.me(), d.cluster()), false
	}
	return nil, false
}
