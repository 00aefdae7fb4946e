package peer

import (
	"cmp"
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// InviteRequest is a cluster's invitation to an unused node.
type InviteRequest struct {
	Cluster, Name string
	Leaders       []string // addresses to join at
}

// Invite invites the node that listens at address to become a leader of this cluster. It must be alone and unused.
// When Invite returns nil, the node is about to join.
func (t *Transport) Invite(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	t.mu.Lock()
	req := &peerpb.InviteRequest{
		ClusterId: t.members.logged.Cluster, ClusterName: t.cfg.Name, Leaders: t.addresses(),
		Version: t.cfg.Version, Protocol: Protocol, ProtocolMin: ProtocolMin,
	}
	t.mu.Unlock()
	_, err := call(ctx, t.cfg.Dial, address, func(ctx context.Context, c peerpb.PeerClient) (*peerpb.InviteReply, error) {
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
	if err := t.startHandler(); err != nil {
		return nil, err
	}
	defer t.handlers.Done()
	fresh := t.cfg.Fresh != nil && t.cfg.OnInvite != nil && t.cfg.Fresh()
	t.mu.Lock()
	refusal, here := t.policy().checkInvite(req, fresh)
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

// invitingMax bounds the addresses of an invitation: members have two at most.
const invitingMax = 2 * replica.MembersMax

// checkInvite returns why an invitation is refused, or that this node is in that cluster already.
func (p policy) checkInvite(req *peerpb.InviteRequest, fresh bool) (_ *peerpb.Refusal, here bool) {
	m := p.members.logged
	err := cmp.Or(wire.Text("cluster_id", req.GetClusterId()), wire.Text("cluster_name", req.GetClusterName()), wire.Text("version", req.GetVersion()),
		wire.Limit("the number of leaders", uint64(len(req.GetLeaders())), invitingMax))
	for _, address := range req.GetLeaders() {
		err = cmp.Or(err, transport.CheckAddress(address))
	}
	switch {
	case err != nil:
		return refuse(peerpb.Refusal_MALFORMED, true, "invalid invitation: %v", err), false
	case req.GetProtocol() < ProtocolMin || Protocol < req.GetProtocolMin():
		return p.otherProtocol(fmt.Sprintf("cluster %q (%s)", req.GetClusterName(), req.GetClusterId()), req.GetVersion(),
			req.GetProtocolMin(), req.GetProtocol()), false
	case len(req.GetLeaders()) == 0 || req.GetClusterId() == "":
		return refuse(peerpb.Refusal_MALFORMED, true, "the invitation names no cluster or no leaders"), false
	case req.GetClusterId() == m.Cluster:
		return nil, true
	case p.name != "" && req.GetClusterName() != "" && p.name != req.GetClusterName():
		return refuse(peerpb.Refusal_OTHER_NAME, true, "cluster %q (%s) invites %s, which was started for a cluster named %q: start it with "+
			"the other name, or with none", req.GetClusterName(), req.GetClusterId(), p.me(), p.name), false
	case len(m.List) > 1 || !fresh:
		return refuse(peerpb.Refusal_NOT_FRESH, true, "%s was used already (its cluster: %s), and would lose what it holds: invite one "+
			"with an empty data directory", p.me(), p.cluster()), false
	}
	return nil, false
}
