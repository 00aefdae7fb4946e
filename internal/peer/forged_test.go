package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// forge sends a raw message to a member as another one and ends the stream, and returns the error that ends it before; nil: none.
func (m *member) forge(as replica.Member, raw ...[]byte) error {
	m.t.Helper()
	conn, err := Dialer(nil).Open(m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	stream, err := peerpb.NewPeerClient(conn).Raft(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	hs := &peerpb.Handshake{
		ClusterId: m.replica.Members().Cluster, ClusterName: "test", From: as.ID, Address: as.Address, Directory: as.Directory, To: m.replica.ID(),
		Version: "v1", Protocol: Protocol, ProtocolMin: ProtocolMin, Lane: peerpb.Lane_LANE_BULK, Committed: math.MaxUint64, Incarnation: "forged",
	}
	if err := stream.Send(&peerpb.Batch{Handshake: hs}); err != nil {
		m.t.Fatal(err)
	}
	if reply, err := stream.Recv(); err != nil || reply.GetWelcome() == nil {
		m.t.Fatalf("the handshake is answered with %v, %v", reply, err)
	}
	_ = stream.Send(&peerpb.Batch{Messages: raw}) // Recv has the reason
	if err := stream.CloseSend(); err != nil {
		m.t.Error(err)
	}
	for { // signs of life, and the end
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func encode(t *testing.T, m *raftpb.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestForgedMessages sends messages that no member sends to a cluster of one and to one of three: the stream ends with an error, the cluster goes
// on, and its logs can be read again.
func TestForgedMessages(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var ms []*member
			as := replica.Member{ID: 9, Address: "127.0.0.1:9", Directory: "d9"}
			restart := func(id int, address string) *member {
				l, err := transport.Listen(t.Context(), address)
				if err != nil {
					t.Fatal(err)
				}
				return startMember(t, l, replica.Config{Dir: filepath.Join(dir, fmt.Sprint(id))})
			}
			if size == 1 {
				ms = []*member{startMember(t, newListener(t), replica.Config{Dir: filepath.Join(dir, "1")})}
			} else {
				ms = formed(t, dir)
				eventually(t, "the names of all data directories in the log", func() bool {
					members := ms[0].replica.Members()
					as, _ = members.Get(3)
					return as.Directory != ""
				})
				ms[2].stop()
				ms = ms[:2]
			}
			propose(t, ms, 0, 20)
			for _, m := range ms {
				before := m.replica.Status()
				message := func(kind raftpb.MessageType, term, commit uint64) *raftpb.Message {
					return &raftpb.Message{
						Type: kind.Enum(), From: new(as.ID), To: new(m.replica.ID()), Term: new(term), Commit: new(commit), Index: new(uint64(0)),
					}
				}
				far := message(raftpb.MsgHeartbeat, before.Term, before.Last+1000)
				last := message(raftpb.MsgVote, math.MaxUint64, 0)
				last.Index, last.LogTerm = new(before.Last+5), new(before.Term)
				foreign := message(raftpb.MsgHeartbeat, before.Term, 0)
				foreign.From = new(uint64(7))
				many := protowire.AppendTag(nil, 1, protowire.VarintType)
				many = protowire.AppendVarint(many, uint64(raftpb.MsgApp))
				for range replica.MessageEntriesMax + 1 {
					many = protowire.AppendBytes(protowire.AppendTag(many, 7, protowire.BytesType), nil)
				}
				for what, raw := range map[string][]byte{
					"a commit index too high":   encode(t, far),
					"the last term":             encode(t, last),
					"of another":                encode(t, foreign),
					"an internal message":       encode(t, message(raftpb.MsgHup, before.Term, 0)),
					"a proposal":                encode(t, message(raftpb.MsgProp, 0, 0)),
					"without a term":            encode(t, message(raftpb.MsgHeartbeat, 0, 0)),
					"a snapshot without a body": encode(t, message(raftpb.MsgSnap, before.Term, 0)),
					"no message":                {0xff},
					"too many entries":          many,
				} {
					if err := m.forge(as, raw); err == nil && (size > 1 || what != "a commit index too high") {
						t.Errorf("leader %d of %d: the stream goes on after %s", m.replica.ID(), size, what)
					} else if err != nil && strings.Contains(err.Error(), "shutting down") {
						t.Fatalf("leader %d of %d ends after %s: %v", m.replica.ID(), size, what, err)
					}
				}
				if now := m.replica.Status(); now.Term > before.Term+100 || now.Committed < before.Committed {
					t.Errorf("leader %d of %d was %+v, is %+v", m.replica.ID(), size, before, now)
				}
			}
			propose(t, ms, 20, 30)
			for i, m := range ms {
				m.stop()
				ms[i] = restart(i+1, m.address)
			}
			if size == 3 {
				ms = append(ms, restart(3, as.Address))
			}
			propose(t, ms, 30, 40)
			agree(t, 40, ms...)
		})
	}
}
