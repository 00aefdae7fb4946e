package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	// joinTime bounds one join request: the log must commit it.
	joinTime = 10 * time.Second
	// dialTime bounds a dial, after which the next leader is asked.
	dialTime = silenceMax
	// hintsMax bounds the redirects that are followed without a pause.
	hintsMax = 3
)

// JoinConfig configures Join.
type JoinConfig struct {
	// Addresses are of some of the cluster's leaders, host:port.
	Addresses []string
	// Self is the new member: its address, and the name of its data directory. ID 0 requests one that was never used.
	Self replica.Member
	// Name is the cluster's, Cluster its id. Empty: any.
	Name, Cluster string
	// Version is the program's, for messages to people. Level is the highest feature level that it reads.
	Version string
	Level   uint32
	// Logger defaults to one that drops everything.
	Logger *slog.Logger
	// Dial connects to host:port. Defaults to plain TCP.
	Dial Dialer
}

// JoinReply is the membership that was granted.
type JoinReply struct {
	Cluster, Name string
	ID            uint64
	Members       replica.Members
}

// Join requests membership from the leaders until it succeeds. Addresses that do not answer, and nodes that do not lead, are retried
// with back-off until ctx is done; the error then has each one's last answer. A final refusal is returned as a *RefusedError at
// once. Joining again with the same data directory returns the same membership.
func Join(ctx context.Context, cfg JoinConfig) (JoinReply, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Addresses) == 0 {
		return JoinReply{}, errors.New("join: no address of a leader is given")
	}
	a := applicant{cfg: cfg, known: slices.Clone(cfg.Addresses), answers: map[string]string{}}
	var wait backOff
	var hint string
	for next, hints := 0, 0; ; {
		address := hint
		if hint == "" {
			address = a.known[next%len(a.known)]
			next++
		}
		reply, err := a.request(ctx, address)
		if _, ok := errors.AsType[*RefusedError](err); ok {
			return JoinReply{}, fmt.Errorf("join: %w", err)
		}
		if err == nil && reply.GetId() != 0 {
			var place JoinReply
			if place, err = placeOf(reply); err == nil {
				return place, nil
			}
		}
		if hint = ""; ctx.Err() == nil || a.answers[address] == "" { // an end of ctx must not hide what the leader has answered before
			hint = a.learn(address, reply, err)
		}
		if hint != "" && hints < hintsMax {
			hints++
			continue
		}
		hints = 0
		wait.wait(ctx, backOffMax, nil)
		if ctx.Err() != nil {
			return JoinReply{}, fmt.Errorf("join: no leader has accepted this node: %s: %w", a.summary(), context.Cause(ctx))
		}
	}
}

// applicant is a node that requests to join.
type applicant struct {
	cfg     JoinConfig
	known   []string          // addresses to ask in turn: those given, then those learned
	answers map[string]string // last, by address
}

// knownMax bounds applicant.known.
const knownMax = 32

func (a *applicant) request(ctx context.Context, address string) (*peerpb.JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	return call(ctx, a.cfg.Dial, address, func(ctx context.Context, c peerpb.PeerClient) (*peerpb.JoinReply, error) {
		return c.Join(ctx, &peerpb.JoinRequest{
			ClusterName: a.cfg.Name, ClusterId: a.cfg.Cluster, Id: a.cfg.Self.ID, Address: a.cfg.Self.Address, Directory: a.cfg.Self.Directory,
			Version: a.cfg.Version, Protocol: Protocol, ProtocolMin: ProtocolMin, FeatureLevel: a.cfg.Level,
		})
	})
}

// learn adds the addresses of an answer, and logs the answer if it is new. It returns the leader's address, if it was named.
func (a *applicant) learn(address string, reply *peerpb.JoinReply, err error) (hint string) {
	var answer string
	switch {
	case err != nil:
		answer = err.Error()
	case transport.CheckAddress(reply.GetLeader()) != nil || reply.GetLeader() == address:
		answer = "no leader is elected"
	default:
		hint = reply.GetLeader()
		answer = fmt.Sprintf("it does not lead; %s does", hint)
	}
	if a.answers[address] != answer {
		a.answers[address] = answer
		a.cfg.Logger.Info("asked a leader to join", "address", address, "answer", answer)
	}
	for _, other := range reply.GetLeaders() {
		if len(a.known) < knownMax && transport.CheckAddress(other) == nil && !slices.Contains(a.known, other) {
			a.known = append(a.known, other)
		}
	}
	return hint
}

// summary lists each leader's last answer.
func (a *applicant) summary() string {
	var all []string
	for _, address := range slices.Compact(a.known) {
		if answer := a.answers[address]; answer != "" {
			all = append(all, address+": "+answer)
		}
	}
	return strings.Join(all, "; ")
}

// call makes one call to the leader at address. A refusal is returned as a *RefusedError, other errors without gRPC's wrapping.
func call[Reply any](ctx context.Context, dial Dialer, address string,
	do func(context.Context, peerpb.PeerClient) (*Reply, error),
) (*Reply, error) {
	conn, err := Dialer(func(ctx context.Context, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		return dial.dial(ctx, address)
	}).Open(address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // the only error is that it is closed already
	reply, err := do(ctx, peerpb.NewPeerClient(conn))
	if err == nil {
		return reply, nil
	}
	if refusal := refusalOf(err); refusal != nil {
		return nil, &RefusedError{Address: address, Reason: refusal.GetReason()}
	}
	switch status.Code(err) { //nolint:exhaustive // the rest is shown as it is
	case codes.Unimplemented:
		return nil, errors.New("no leader of this version listens there")
	case codes.DeadlineExceeded:
		return nil, errors.New("no answer before the timeout")
	case codes.Canceled:
		return nil, context.Cause(ctx)
	}
	return nil, errors.New(plain(err))
}

// plain returns the text of a call's error, without gRPC's wrapping of dial errors.
func plain(err error) string {
	text := status.Convert(err).Message()
	if _, dialing, ok := strings.Cut(text, "Error while dialing: "); ok {
		return strings.TrimSuffix(dialing, `"`)
	}
	return text
}

func placeOf(reply *peerpb.JoinReply) (JoinReply, error) {
	place := JoinReply{
		Cluster: reply.GetClusterId(), Name: reply.GetClusterName(), ID: reply.GetId(),
		Members: replica.Members{Cluster: reply.GetClusterId(), Former: reply.GetFormer(), Removed: reply.GetRemoved()},
	}
	for _, m := range reply.GetMembers() {
		place.Members.List = append(place.Members.List, replica.Member{
			ID: m.GetId(), Address: m.GetAddress(), Directory: m.GetDirectory(), Voter: m.GetVoter(),
		})
	}
	if err := cmp.Or(replica.Member{ID: place.ID}.Check(), place.Members.Check(), wire.Text("cluster_name", place.Name)); err != nil {
		return JoinReply{}, fmt.Errorf("invalid answer: %w", err)
	}
	return place, nil
}

// Join implements peerpb.PeerServer.
func (s service) Join(ctx context.Context, req *peerpb.JoinRequest) (*peerpb.JoinReply, error) {
	t := s.t
	if err := t.startHandler(); err != nil {
		return nil, err
	}
	defer t.handlers.Done()
	leads := t.replica.Status().Leader
	uncertified := t.uncertified(ctx, req.GetDirectory(), "the node at "+req.GetAddress())
	t.mu.Lock()
	refusal := cmp.Or(uncertified, t.policy().checkApplicant(req))
	if refusal == nil && leads {
		refusal = t.policy().checkPlace(req)
	}
	t.mu.Unlock()
	switch {
	case refusal != nil:
		t.logRefusal(req.GetDirectory(), refusal)
		return nil, refusalError(refusal)
	case !leads:
		return t.redirect(), nil
	}
	ctx, release := t.whileOpen(ctx)
	defer release()
	m, err := t.replica.AddMember(ctx, replica.Member{ID: req.GetId(), Address: req.GetAddress(), Directory: req.GetDirectory()})
	switch {
	case errors.Is(err, replica.ErrNotLeader):
		return t.redirect(), nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		t.log.WarnContext(ctx, "node not added to the leaders", "address", req.GetAddress(), "error", err)
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	t.log.InfoContext(ctx, "node added to the leaders", "peer", m.ID, "address", m.Address)
	members := t.replica.Members()
	reply := &peerpb.JoinReply{
		ClusterId: members.Cluster, ClusterName: t.cfg.Name, Id: m.ID, Removed: members.Removed, Former: members.Former,
	}
	for _, m := range members.List {
		reply.Members = append(reply.Members, &peerpb.Member{Id: m.ID, Address: m.Address, Directory: m.Directory, Voter: m.Voter})
	}
	return reply, nil
}

// redirect answers with the leader's address.
func (t *Transport) redirect() *peerpb.JoinReply {
	leader := t.replica.Status().LeaderID
	t.mu.Lock()
	defer t.mu.Unlock()
	reply := &peerpb.JoinReply{ClusterId: t.members.logged.Cluster, ClusterName: t.cfg.Name, Leaders: t.addresses()}
	if leader != t.self.ID {
		if known := t.members.addresses(leader); len(known) > 0 {
			reply.Leader = known[0]
		}
	}
	return reply
}

// addresses returns those of all leaders, this one first. t.mu must be held.
func (t *Transport) addresses() []string {
	all := []string{t.self.Address}
	for _, m := range t.members.logged.List {
		if m.ID != t.self.ID {
			all = append(all, t.members.addresses(m.ID)...)
		}
	}
	return all
}
