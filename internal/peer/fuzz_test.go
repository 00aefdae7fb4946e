package peer

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// FuzzService checks any handshake, request to join and invitation, and decodes any messages. Refusals are short enough for a call's status, and
// what is accepted is within the limits of a member.
func FuzzService(f *testing.F) {
	seed := func(m proto.Message) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	hs := &peerpb.Handshake{
		ClusterId: "c2", ClusterName: "prod", From: 4, Address: "four:6550", Directory: "d4", To: 1, Version: "v1", Protocol: Protocol,
		ProtocolMin: ProtocolMin, Committed: 1 << 63, Incarnation: "i", FeatureLevel: 2,
	}
	seed(hs)
	seed(&peerpb.JoinRequest{ClusterName: "prod", Id: 1<<64 - 1, Address: "a:1", Directory: "d", Protocol: 1, ProtocolMin: 1, FeatureLevel: 2})
	seed(&peerpb.InviteRequest{ClusterId: "c9", ClusterName: "x", Leaders: []string{"a:1", "b"}, Protocol: 1, ProtocolMin: 1})
	seed(&peerpb.Batch{Handshake: hs, Messages: [][]byte{{8, 3, 16, 1, 24, 4}, {0x3a, 0}}})
	seed(&peerpb.JoinReply{ClusterId: "c", Id: 3, Members: []*peerpb.Member{{Id: 3, Voter: true}, {Id: 1}}, Leader: "a"})
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := policyOf(nil)
		check := func(r *peerpb.Refusal, m replica.Member) {
			if len(r.GetReason()) > 8<<10 {
				t.Errorf("a reason of %d bytes: %.200s", len(r.GetReason()), r.GetReason())
			}
			if err := m.Check(); r == nil && err != nil {
				t.Errorf("accepted: %v", err)
			}
		}
		var h peerpb.Handshake
		if proto.Unmarshal(raw, &h) == nil {
			check(p.check(&h), replica.Member{ID: h.GetFrom(), Address: h.GetAddress(), Directory: h.GetDirectory()})
		}
		var join peerpb.JoinRequest
		if proto.Unmarshal(raw, &join) == nil {
			r := p.checkApplicant(&join)
			if r == nil {
				r = p.checkPlace(&join)
			}
			check(r, replica.Member{ID: max(1, join.GetId()), Address: join.GetAddress(), Directory: join.GetDirectory()})
		}
		var invite peerpb.InviteRequest
		if proto.Unmarshal(raw, &invite) == nil {
			r, _ := p.checkInvite(&invite, true)
			check(r, replica.Member{ID: 1})
		}
		var reply peerpb.JoinReply
		if proto.Unmarshal(raw, &reply) == nil {
			if place, err := placeOf(&reply); err == nil && len(place.Name) > wire.TextBytesMax {
				t.Errorf("a name of %d bytes", len(place.Name))
			}
		}
		tr := &Transport{replica: newFakeReplica(1, replica.Members{})}
		var batch peerpb.Batch
		if proto.Unmarshal(raw, &batch) == nil {
			msgs, err := tr.decode(batch.GetHandshake().GetFrom(), batch.GetMessages()...)
			if err == nil && len(msgs) != len(batch.GetMessages()) {
				t.Errorf("%d of %d messages", len(msgs), len(batch.GetMessages()))
			}
		}
	})
}
