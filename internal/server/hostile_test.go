package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestHostileNode makes every call of workers and leaders, with what a node of the cluster would send, from nodes that have no right to it.
// All are refused, and neither the cluster nor the attempt that runs changes.
func TestHostileNode(t *testing.T) {
	c := newSecureCluster(t)
	victim := c.enroll(access.RoleWorker, "")
	holder := c.session(victim)
	job, err := c.admin.Submit(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "AlwaysOk"}, Range: &api.Range{From: 1, To: 1}}, "")
	if err != nil {
		t.Fatal(err)
	}
	lease := holder.await(func(m *wire.ToWorker) bool { return len(m.GetWork().GetLeases()) > 0 }).GetWork().GetLeases()[0]
	nodes, calls := c.hostileNodes(victim), c.calls(victim.Identity())
	own := c.enroll(access.RoleWorker, "")
	before := c.picture(job.ID)

	for name, dial := range nodes {
		conn, err := wire.Connect(c.first.address(), dial)
		if err != nil {
			t.Fatal(err)
		}
		for method := range methods(wire.Leader_ServiceDesc, peerpb.Peer_ServiceDesc) {
			want := []codes.Code{codes.Unauthenticated, codes.PermissionDenied}
			switch {
			case name == "the key of another":
				want = []codes.Code{codes.Unavailable} // it gets no connection
			case name == "a worker" && method == wire.Leader_Session_FullMethodName:
				want = []codes.Code{codes.FailedPrecondition} // not with that identity
			case name == "a worker" && access.Rules[method] == access.Work:
				continue
			}
			message := calls[method]
			if message == nil {
				t.Fatalf("no message for %s: add what a node of the cluster would send", method)
			}
			if err := call(t, conn, method, message); !slices.Contains(want, status.Code(err)) {
				t.Errorf("%s by %s = %v, want %v", method, name, err, want)
			}
		}
		_ = conn.Close()
	}

	// A worker reports on the lease of another, over a session of its own.
	done := &wire.Report{Finished: []*wire.Finished{{Job: job.ID, Stage: lease.GetStage(), Index: lease.GetIndex(), Lease: []uint64{lease.GetFirstLease()}}}}
	rogue := c.session(own)
	rogue.reports <- done
	rogue.await(func(m *wire.ToWorker) bool { return slices.Contains(m.GetWork().GetStale(), lease.GetFirstLease()) })
	if after := c.picture(job.ID); before != after {
		t.Errorf("the cluster was %s, and is %s", before, after)
	}
	holder.reports <- done
	holder.await(func(m *wire.ToWorker) bool { return slices.Contains(m.GetWork().GetCommitted(), lease.GetFirstLease()) })
}

// picture describes what a stranger must not change: the leaders, their term, the tokens, the worker that runs a task, and that task.
func (c secureCluster) picture(id uint64) string {
	c.t.Helper()
	leaders, err := c.admin.Leaders(c.t.Context())
	workers, err2 := c.admin.Workers(c.t.Context())
	tokens, err3 := c.admin.Tokens(c.t.Context())
	job, err4 := c.admin.Job(c.t.Context(), id)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		c.t.Fatal(err)
	}
	text := fmt.Sprintf("in term %d, with %d tokens", leaders.Term, len(tokens.Tokens))
	for _, s := range job.Stages {
		text += fmt.Sprintf(", in %s %d of %d done, %d dead, %d retried", s.Name, s.Done, s.Tasks, s.Dead, s.Retried)
	}
	for _, l := range leaders.Leaders {
		text += fmt.Sprintf(", leader %d at %s", l.ID, l.Address)
	}
	return text + fmt.Sprintf(", worker 1 %s with %d attempts", workers[0].Status, workers[0].Busy+workers[0].Queued)
}

// hostileNodes are connections that prove no membership, by what they present.
func (c secureCluster) hostileNodes(victim *access.Credentials) map[string]func(context.Context, string) (net.Conn, error) {
	t := c.t
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leader, err := access.OpenCredentials(c.first.dir)
	if err != nil {
		t.Fatal(err)
	}
	as := access.Holder{Role: access.RoleLeader, Name: leader.Certificate().Leaf.Subject.CommonName}
	foreign, err := access.NewAuthority(access.Key{9}, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := foreign.Issue(as, key.Public(), time.Now(), access.CertificateLife)
	if err != nil {
		t.Fatal(err)
	}
	expired, revoked := c.enroll(access.RoleWorker, ""), c.enroll(access.RoleWorker, "")
	reissue(t, expired, filepath.Join(c.first.dir, "cluster.key"), as)
	if err := c.first.RevokeMachine(t.Context(), revoked.Identity()); err != nil {
		t.Fatal(err)
	}
	with := func(chain ...[]byte) func(context.Context, string) (net.Conn, error) {
		own := &tls.Certificate{PrivateKey: key, Certificate: chain}
		return func(ctx context.Context, address string) (net.Conn, error) {
			return transport.DialTLS(ctx, address, transport.ClientTLS(access.RoleLeader, victim.Pins, func() *tls.Certificate { return own }))
		}
	}
	ours := victim.Authorities()[0].Raw
	return map[string]func(context.Context, string) (net.Conn, error){
		"no encryption":                transport.Dial,
		"no certificate":               with(),
		"another authority":            with(forged, foreign.Certificate().Raw),
		"another authority, with ours": with(forged, foreign.Certificate().Raw, ours),
		"the key of another":           with(victim.Certificate().Certificate[0], ours),
		"an expired certificate":       expired.Dial,
		"a revoked worker":             revoked.Dial,
		"a worker":                     c.enroll(access.RoleWorker, "").Dial,
	}
}

// calls are the first messages of a node of the cluster, by method.
func (c secureCluster) calls(worker string) map[string]proto.Message {
	list, err := c.admin.Leaders(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	raw := func(kind raftpb.MessageType) []byte {
		m := &raftpb.Message{Type: kind.Enum(), From: new(uint64(2)), To: new(c.first.ID()), Term: new(list.Term + 1), Index: new(uint64(1 << 30)), LogTerm: new(list.Term)}
		out, err := proto.Marshal(m)
		if err != nil {
			c.t.Fatal(err)
		}
		return out
	}
	handshake := &peerpb.Handshake{
		ClusterId: list.Cluster, ClusterName: list.Name, From: 2, Address: "192.0.2.99:6550", Directory: "d2", To: c.first.ID(), Protocol: peer.Protocol,
		ProtocolMin: peer.ProtocolMin, Committed: math.MaxUint64, Incarnation: "x", FeatureLevel: state.FeatureLevel,
	}
	return map[string]proto.Message{
		wire.Leader_Session_FullMethodName:       &wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: hello(worker)}},
		wire.Leader_SendLog_FullMethodName:       &wire.LogRecords{Request: 1, Worker: 1},
		wire.Leader_Parts_FullMethodName:         &wire.PartsRequest{Job: 1},
		wire.Leader_FindToken_FullMethodName:     &wire.TokenRequest{Token: "id_secret"},
		wire.Leader_RecordRefused_FullMethodName: &wire.RefusedRequest{Address: "192.0.2.99:1", Action: "GET /v1/jobs", Verdict: "403"},
		wire.Leader_Shadow_FullMethodName:        &wire.ShadowRequest{Id: 2, ClusterId: list.Cluster},
		peerpb.Peer_Raft_FullMethodName:          &peerpb.Batch{Handshake: handshake, Messages: [][]byte{raw(raftpb.MsgVote)}},
		peerpb.Peer_Snapshot_FullMethodName:      &peerpb.Chunk{Handshake: handshake, Message: raw(raftpb.MsgSnap)},
		peerpb.Peer_Join_FullMethodName: &peerpb.JoinRequest{
			ClusterId: list.Cluster, Address: handshake.GetAddress(), Directory: "d2", Protocol: peer.Protocol, ProtocolMin: peer.ProtocolMin,
			FeatureLevel: state.FeatureLevel,
		},
		peerpb.Peer_Key_FullMethodName: &peerpb.KeyRequest{ClusterId: list.Cluster, To: c.first.ID(), Key: make([]byte, len(access.Key{}))},
		peerpb.Peer_Invite_FullMethodName: &peerpb.InviteRequest{
			ClusterId: "other-1", ClusterName: "other", Leaders: []string{handshake.GetAddress()}, Protocol: peer.Protocol, ProtocolMin: peer.ProtocolMin,
		},
	}
}

func methods(services ...grpc.ServiceDesc) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, s := range services {
			for _, m := range s.Methods {
				if !yield("/" + s.ServiceName + "/" + m.MethodName) {
					return
				}
			}
			for _, m := range s.Streams {
				if !yield("/" + s.ServiceName + "/" + m.StreamName) {
					return
				}
			}
		}
	}
}

// call sends the first message of a call, and returns its error; nil: it is answered.
func call(t *testing.T, conn *grpc.ClientConn, method string, first proto.Message) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if stream.SendMsg(first) == nil { // else RecvMsg has the reason
		_ = stream.CloseSend()
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

func hello(identity string) *wire.Hello {
	return &wire.Hello{Identity: identity, Incarnation: "test", Slots: 1, Protocol: wire.Protocol, ProtocolMin: wire.ProtocolMin}
}

// scriptedWorker is a session of a worker that reports what its test says.
type scriptedWorker struct {
	t       *testing.T
	reports chan *wire.Report
	leader  chan *wire.ToWorker
}

// session connects a worker until the test ends.
func (c secureCluster) session(worker *access.Credentials) scriptedWorker {
	t := c.t
	conn, err := wire.Connect(c.first.address(), worker.Dial)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := wire.NewLeaderClient(conn).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: hello(worker.Identity())}}); err != nil {
		t.Fatal(err)
	}
	s := scriptedWorker{t: t, reports: make(chan *wire.Report), leader: make(chan *wire.ToWorker, 64)}
	var parts sync.WaitGroup
	parts.Go(func() {
		heartbeat := time.NewTicker(200 * time.Millisecond)
		defer heartbeat.Stop()
		for {
			r := &wire.Report{Heartbeat: true}
			select {
			case <-ctx.Done():
				return
			case <-heartbeat.C:
			case r = <-s.reports:
			}
			_ = stream.Send(&wire.FromWorker{Message: &wire.FromWorker_Report{Report: r}}) // Recv has the error
		}
	})
	parts.Go(func() {
		defer close(s.leader)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case s.leader <- m:
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		parts.Wait()
		_ = conn.Close()
	})
	s.await(func(m *wire.ToWorker) bool { return m.GetWelcome() != nil })
	return s
}

// await returns the next message of the leader that is wanted.
func (s scriptedWorker) await(wanted func(*wire.ToWorker) bool) *wire.ToWorker {
	s.t.Helper()
	for m := range s.leader {
		if wanted(m) {
			return m
		}
	}
	s.t.Fatal("the session has ended")
	return nil
}
