package node

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Access returns the access tables as this node knows them. A follower that is cut off from the leader may not know the latest changes.
func (n *Node) Access() *state.Access { return n.access.Load() }

// publishAccess publishes the access tables if they have changed.
func (n *Node) publishAccess() {
	if now := n.loop.controller.Machine().Access(); now != n.access.Load() {
		n.access.Store(now)
		if n.cfg.OnAccess != nil {
			n.cfg.OnAccess(now)
		}
	}
}

// Tokens returns all tokens, oldest first.
func (n *Node) Tokens() []api.Token {
	list := []api.Token{}
	for _, t := range n.Access().Tokens() {
		list = append(list, publicToken(t))
	}
	return list
}

func publicToken(t *state.Token) api.Token {
	p := api.Token{ID: t.ID, Role: t.Role, User: t.User, Created: time.UnixMilli(t.Created).UTC()}
	if t.Expires != 0 {
		at := time.UnixMilli(t.Expires).UTC()
		p.Expires, p.Expired = &at, !time.Now().Before(at)
	}
	return p
}

// CreateToken creates a token. A ttl of 0 has no end. Machines have no use for one without encryption: it is sent to no plain connection.
func (n *Node) CreateToken(ctx context.Context, role, user string, ttl time.Duration) (api.NewToken, error) {
	authority, addresses := n.pin(), n.members.Load().Addresses()
	if authority == nil && access.IsMachine(role) {
		return api.NewToken{}, errPlain(role, addresses)
	}
	t, text := access.NewToken(role, user)
	now := time.Now()
	if t.Created = now.UnixMilli(); ttl > 0 {
		t.Expires = now.Add(ttl).UnixMilli()
	}
	if err := n.PutToken(ctx, t); err != nil {
		return api.NewToken{}, err
	}
	return api.NewToken{Token: publicToken(t), Join: transport.Join{Addresses: addresses, Authority: authority, Token: text}.String()}, nil
}

// errPlain is the refusal of a string that no machine could join by.
func errPlain(role string, addresses []string) error {
	flag := "--leader"
	if role == access.RoleLeader {
		flag = "--join"
	}
	return api.Conflict("the connections of this cluster are not encrypted, so a %s joins it by an address and not by a string: start it with '%s %s', on this "+
		"machine as the user of the leader, or on any with --insecure if the leader was started with it. To let in other machines by strings, restart the leader with "+
		"--listen 0.0.0.0:%s and without --insecure", role, flag, strings.Join(addresses, ","), transport.DefaultPort)
}

// pin returns the pin of the newest authority of the cluster; nil: its connections are not encrypted.
func (n *Node) pin() *transport.Pin {
	if n.cfg.Pin == nil {
		return nil
	}
	return n.cfg.Pin()
}

// PutToken adds a token. Its id must be new. This node, and all others as far as they follow, accept it when PutToken returns.
func (n *Node) PutToken(ctx context.Context, t *state.Token) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.PutToken(key, t) })
}

// RevokeToken removes a token or, given the fingerprint of its key, revokes an outside certificate.
func (n *Node) RevokeToken(ctx context.Context, id string) error {
	if access.IsFingerprint(id) {
		known := n.Access().Enrolment(id)
		if known != nil && access.IsMachine(known.Role) {
			return api.Conflict("this is the key of a %s of the cluster: 'bridgefour %[1]ss remove' revokes it", known.Role)
		}
		return n.changeAccess(ctx, func(e *state.Entry, key string) {
			if by := e.By; known == nil {
				e.By = nil // one audit record
				e.Enroll("", &state.Enrolment{Fingerprint: id, Role: access.RoleOutside})
				e.By = by
			}
			e.RevokeMachine(key, id)
		})
	}
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.RevokeToken(key, id) })
}

// Enroll adds a machine by its key, or records that it has renewed its certificate. It is refused for a revoked key, and for one of
// another role.
func (n *Node) Enroll(ctx context.Context, machine *state.Enrolment) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.Enroll(key, machine) })
}

// joinToken returns the id of the token by which a machine joined, if others can join by it, too.
func (n *Node) joinToken(machine *state.Enrolment) string {
	if machine == nil {
		return ""
	}
	t := n.Access().Token(machine.Token)
	if t == nil || publicToken(t).Expired {
		return ""
	}
	return t.ID
}

// RevokeMachine revokes the key of a machine for good.
func (n *Node) RevokeMachine(ctx context.Context, fingerprint string) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.RevokeMachine(key, fingerprint) })
}

// PutAuthority adds the next certificate authority, whose number is that after the newest one's.
func (n *Node) PutAuthority(ctx context.Context, a *state.Authority) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.PutAuthority(key, a) })
}

// DropAuthority removes a certificate authority that is not the newest.
func (n *Node) DropAuthority(ctx context.Context, number uint64) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.DropAuthority(key, number) })
}

func (n *Node) changeAccess(ctx context.Context, add func(e *state.Entry, key string)) error {
	return n.change(ctx, "a change of who may use the cluster", add)
}

// change adds a command that needs feature level 2; what names it in errors.
func (n *Node) change(ctx context.Context, what string, add func(e *state.Entry, key string)) error {
	if err := n.acceptsWrites(ctx); err != nil {
		return err
	}
	if err := n.awaitLevel(ctx, what, 2); err != nil {
		return err
	}
	key := newID()
	_, err := n.execute(ctx, key, func(e *state.Entry) { add(e, key) })
	return err
}

// FindToken tells a worker who has sent it a request.
func (n *Node) FindToken(ctx context.Context, req *wire.TokenRequest) (*wire.TokenHolder, error) {
	if !n.awaitLeading(ctx, workerElectionWait) {
		return nil, status.Error(codes.Unavailable, n.notLeader().Error())
	}
	t, err := access.FindToken(n.Access(), req.GetToken(), time.Now())
	if t == nil {
		if err := n.catchUp(ctx); err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		t, err = access.FindToken(n.Access(), req.GetToken(), time.Now())
	}
	if err != nil {
		who := access.From(ctx) // the worker, for which the client's address and action are reported
		who.Address, who.Action = wire.FailureMessage(req.GetAddress()), wire.FailureMessage(req.GetAction())
		n.Refused(access.WithPrincipal(ctx, who), err)
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return &wire.TokenHolder{Id: t.ID, Role: t.Role, User: t.User}, nil
}
