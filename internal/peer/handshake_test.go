package peer

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// policyOf is leader 1 of three; 9 was removed, 3 has not announced its directory.
func policyOf(heard map[uint64]announcement) policy {
	b := newMembers()
	b.setMembers(replica.Members{
		Cluster: "c2", Former: []string{"c1"}, Removed: []uint64{9},
		List: []replica.Member{
			{ID: 1, Address: "one:6550", Directory: "d1", Voter: true},
			{ID: 2, Address: "two:6550", Directory: "d2", Voter: true},
			{ID: 3, Address: "three:6550", Voter: true},
		},
	})
	for id, h := range heard {
		b.announce(id, h.address, h.directory)
	}
	return policy{
		members: &b, self: replica.Member{ID: 1, Address: "one:6550", Directory: "d1"}, name: "prod", version: "v1", applied: 100,
		level: 2, needs: "v0.9.0",
	}
}

func TestHandshake(t *testing.T) {
	good := &peerpb.Handshake{
		ClusterId: "c2", ClusterName: "prod", From: 2, Address: "two:6550", Directory: "d2", To: 1, Version: "v1",
		Protocol: Protocol, ProtocolMin: ProtocolMin, Lane: peerpb.Lane_LANE_BULK, Committed: 50, Incarnation: "i",
		FeatureLevel: 2,
	}
	tests := []struct {
		name   string
		change func(*peerpb.Handshake)
		kind   peerpb.Refusal_Kind
		final  bool
		says   []string
	}{
		{"as expected", func(*peerpb.Handshake) {}, 0, false, nil},
		{"moved", func(hs *peerpb.Handshake) { hs.Address = "redirect:1" }, 0, false, nil},
		{"without a name", func(hs *peerpb.Handshake) { hs.ClusterName = "" }, 0, false, nil},
		{"newer, but can do with ours", func(hs *peerpb.Handshake) { hs.Protocol = Protocol + 1 }, 0, false, nil},
		{"first directory", func(hs *peerpb.Handshake) { hs.From, hs.Directory = 3, "d3" }, 0, false, nil},
		{"unknown, and ahead of us", func(hs *peerpb.Handshake) { hs.From, hs.Directory, hs.Committed = 4, "d4", 101 }, 0, false, nil},
		{
			"unknown", func(hs *peerpb.Handshake) { hs.From, hs.Directory, hs.Committed = 4, "d4", 100 },
			peerpb.Refusal_UNKNOWN, false,
			[]string{"no leader 4", "1, 2, 3", "--join one:6550"},
		},
		{
			"removed", func(hs *peerpb.Handshake) { hs.From, hs.Committed = 9, 1000 },
			peerpb.Refusal_REMOVED, true,
			[]string{"leader 9 was removed", `"prod" (c2)`, "--join one:6550"},
		},
		{
			"other directory", func(hs *peerpb.Handshake) { hs.Directory = "new" },
			peerpb.Refusal_OTHER_DIRECTORY, true,
			[]string{"leader 2 was here before", "d2", "new", "leaders remove 2"},
		},
		{
			"our own id", func(hs *peerpb.Handshake) { hs.From = 1 },
			peerpb.Refusal_OTHER_DIRECTORY, false,
			[]string{"leader 1", "one:6550", "two:6550", "another id"},
		},
		{
			"other cluster", func(hs *peerpb.Handshake) { hs.ClusterId, hs.ClusterName = "x", "test" },
			peerpb.Refusal_OTHER_CLUSTER, false,
			[]string{`"test" (x)`, `"prod" (c2)`, "two:6550", "one:6550"},
		},
		{
			"recovered", func(hs *peerpb.Handshake) { hs.ClusterId = "c1" },
			peerpb.Refusal_RECOVERED, true,
			[]string{"c1", "recovered", "c2", "empty data directory"},
		},
		{
			"other name", func(hs *peerpb.Handshake) { hs.ClusterName = "test" },
			peerpb.Refusal_OTHER_NAME, false,
			[]string{`"test"`, `"prod"`},
		},
		{
			"for another member", func(hs *peerpb.Handshake) { hs.To = 3 },
			peerpb.Refusal_OTHER_MEMBER, false,
			[]string{"looked for leader 3", "leader 1 at one:6550"},
		},
		{
			"too old", func(hs *peerpb.Handshake) { hs.Protocol, hs.ProtocolMin = ProtocolMin-1, ProtocolMin-1 },
			peerpb.Refusal_OTHER_PROTOCOL, false,
			[]string{"v1", "upgrade"},
		},
		{
			"too new", func(hs *peerpb.Handshake) { hs.Protocol, hs.ProtocolMin = Protocol+2, Protocol+1 },
			peerpb.Refusal_OTHER_PROTOCOL, false,
			[]string{"upgrade"},
		},
		{
			"older than the feature level", func(hs *peerpb.Handshake) { hs.FeatureLevel = 1 },
			peerpb.Refusal_OUTDATED, true,
			[]string{"leader 2 at two:6550 (program v1) reads feature level 1", `"prod" (c2)`, "level 2", "v0.9.0 or newer"},
		},
		{"newer than the feature level", func(hs *peerpb.Handshake) { hs.FeatureLevel = 3 }, 0, false, nil},
		{"no id", func(hs *peerpb.Handshake) { hs.From = 0 }, peerpb.Refusal_MALFORMED, false, []string{"invalid id 0"}},
		{"an id of raft's threads", func(hs *peerpb.Handshake) { hs.From = 1<<64 - 1 }, peerpb.Refusal_MALFORMED, false, []string{"want 1 to"}},
		{
			"a long directory", func(hs *peerpb.Handshake) { hs.Directory = strings.Repeat("d", 1000) },
			peerpb.Refusal_MALFORMED, false,
			[]string{"1000 bytes, the limit is 128"},
		},
		{
			"a long address", func(hs *peerpb.Handshake) { hs.Address = strings.Repeat("a", 1000) + ":1" },
			peerpb.Refusal_MALFORMED, false,
			[]string{"1002 bytes, the limit is 260"},
		},
		{"a version that writes", func(hs *peerpb.Handshake) { hs.Version = "\x1b[2J" }, peerpb.Refusal_MALFORMED, false, []string{"version has control"}},
		{"a long name", func(hs *peerpb.Handshake) { hs.ClusterName = strings.Repeat("n", 257) }, peerpb.Refusal_MALFORMED, false, []string{"cluster_name has 257"}},
		{"no directory", func(hs *peerpb.Handshake) { hs.Directory = "" }, peerpb.Refusal_MALFORMED, false, []string{"data directory"}},
		{"no address", func(hs *peerpb.Handshake) { hs.Address = ":6550" }, peerpb.Refusal_MALFORMED, false, []string{"--advertise"}},
		{"nothing at all", func(hs *peerpb.Handshake) { proto.Reset(hs) }, peerpb.Refusal_MALFORMED, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hs := proto.CloneOf(good)
			tt.change(hs)
			matches(t, policyOf(nil).check(hs), tt.kind, tt.final, tt.says)
		})
	}
}

// A directory that only a handshake has named keeps others out, but not for good: the log may say otherwise.
func TestHandshakeAgainstWhatWasHeard(t *testing.T) {
	p := policyOf(map[uint64]announcement{3: {address: "three:6550", directory: "d3"}})
	hs := &peerpb.Handshake{
		ClusterId: "c2", From: 3, Address: "three:6550", Directory: "other", To: 1, Protocol: Protocol, ProtocolMin: ProtocolMin,
		FeatureLevel: 2,
	}
	matches(t, p.check(hs), peerpb.Refusal_OTHER_DIRECTORY, false, []string{"leader 3 was here before"})
	hs.Directory = "d3"
	matches(t, p.check(hs), 0, false, nil)
}

// A new node that does not know the members yet accepts any member of its cluster.
func TestHandshakeAtANewMember(t *testing.T) {
	b := newMembers()
	b.setMembers(replica.Members{Cluster: "c2"})
	p := policy{members: &b, self: replica.Member{ID: 4, Address: "four:6550", Directory: "d4"}}
	hs := &peerpb.Handshake{
		ClusterId: "c2", From: 1, Address: "one:6550", Directory: "d1", To: 4, Protocol: Protocol, ProtocolMin: ProtocolMin,
	}
	matches(t, p.check(hs), 0, false, nil)
	hs.ClusterId = "x"
	matches(t, p.check(hs), peerpb.Refusal_OTHER_CLUSTER, false, nil)
}

func matches(t *testing.T, r *peerpb.Refusal, kind peerpb.Refusal_Kind, final bool, says []string) {
	t.Helper()
	if r.GetKind() != kind || r.GetFinal() != final || (r == nil) != (kind == 0) {
		t.Fatalf("refusal = %v, want kind %v, final %v", r, kind, final)
	}
	for _, s := range append(says, "") {
		if !strings.Contains(r.GetReason(), s) || strings.Contains(r.GetReason(), "%!") {
			t.Errorf("reason = %q, want it to say %q", r.GetReason(), s)
		}
	}
}

func TestApplication(t *testing.T) {
	good := &peerpb.JoinRequest{
		ClusterName: "prod", Address: "four:6550", Directory: "d4", Version: "v1", Protocol: Protocol, ProtocolMin: ProtocolMin,
		FeatureLevel: 2,
	}
	tests := []struct {
		name   string
		change func(*peerpb.JoinRequest)
		kind   peerpb.Refusal_Kind
		says   []string
	}{
		{"a new node", func(*peerpb.JoinRequest) {}, 0, nil},
		{"of any cluster", func(r *peerpb.JoinRequest) { r.ClusterName = "" }, 0, nil},
		{"of this cluster", func(r *peerpb.JoinRequest) { r.ClusterId = "c2" }, 0, nil},
		{"with an id", func(r *peerpb.JoinRequest) { r.Id = 4 }, 0, nil},
		{"a member again", func(r *peerpb.JoinRequest) { r.Address, r.Directory = "two:6550", "d2" }, 0, nil},
		{"a member that knows its id", func(r *peerpb.JoinRequest) { r.Id, r.Address, r.Directory = 2, "new:1", "d2" }, 0, nil},
		{"other name", func(r *peerpb.JoinRequest) { r.ClusterName = "test" }, peerpb.Refusal_OTHER_NAME, []string{`"test"`, `"prod" (c2)`}},
		{"other cluster", func(r *peerpb.JoinRequest) { r.ClusterId = "x" }, peerpb.Refusal_OTHER_CLUSTER, []string{"cluster x", "c2"}},
		{"no directory", func(r *peerpb.JoinRequest) { r.Directory = "" }, peerpb.Refusal_MALFORMED, []string{"data directory"}},
		{"invalid port", func(r *peerpb.JoinRequest) { r.Address = "four" }, peerpb.Refusal_MALFORMED, []string{`"four"`, "--advertise"}},
		{"port 0", func(r *peerpb.JoinRequest) { r.Address = "four:0" }, peerpb.Refusal_MALFORMED, []string{"invalid address"}},
		{"any host", func(r *peerpb.JoinRequest) { r.Address = "0.0.0.0:1" }, peerpb.Refusal_MALFORMED, []string{"--advertise"}},
		{"older than the feature level", func(r *peerpb.JoinRequest) { r.FeatureLevel = 1 }, peerpb.Refusal_OUTDATED, []string{"four:6550", "level 2", "v0.9.0"}},
		{"too new", func(r *peerpb.JoinRequest) { r.ProtocolMin = Protocol + 1 }, peerpb.Refusal_OTHER_PROTOCOL, []string{"upgrade"}},
		{"removed", func(r *peerpb.JoinRequest) { r.Id = 9 }, peerpb.Refusal_REMOVED, []string{"leader 9", "leave the id out"}},
		{"taken id", func(r *peerpb.JoinRequest) { r.Id = 2 }, peerpb.Refusal_OTHER_DIRECTORY, []string{"leader 2", "two:6550", "remove 2"}},
		{"taken address", func(r *peerpb.JoinRequest) { r.Address = "two:6550" }, peerpb.Refusal_OTHER_DIRECTORY, []string{"remove 2"}},
		{
			"other id than before", func(r *peerpb.JoinRequest) { r.Id, r.Directory = 5, "d2" },
			peerpb.Refusal_OTHER_MEMBER,
			[]string{"leader 2, not 5"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := proto.CloneOf(good)
			tt.change(req)
			p := policyOf(nil)
			r := p.checkApplicant(req)
			if r == nil {
				r = p.checkPlace(req)
			}
			matches(t, r, tt.kind, r.GetFinal(), tt.says)
		})
	}
}

func TestInvitation(t *testing.T) {
	lone := newMembers()
	lone.setMembers(replica.Members{Cluster: "c9", List: []replica.Member{{ID: 1, Address: "new:6550", Voter: true}}})
	alone := policy{members: &lone, self: replica.Member{ID: 1, Address: "new:6550"}, name: "prod"}
	good := &peerpb.InviteRequest{
		ClusterId: "c2", ClusterName: "prod", Leaders: []string{"one:6550"}, Protocol: Protocol, ProtocolMin: ProtocolMin,
	}
	tests := []struct {
		name   string
		policy policy
		fresh  bool
		change func(*peerpb.InviteRequest)
		kind   peerpb.Refusal_Kind
		says   []string
	}{
		{"fresh", alone, true, func(*peerpb.InviteRequest) {}, 0, nil},
		{"a member already", policyOf(nil), false, func(*peerpb.InviteRequest) {}, 0, nil},
		{"used", alone, false, func(*peerpb.InviteRequest) {}, peerpb.Refusal_NOT_FRESH, []string{"used already", "c9", "empty data"}},
		{"not alone", policyOf(nil), true, func(r *peerpb.InviteRequest) { r.ClusterId = "x" }, peerpb.Refusal_NOT_FRESH, nil},
		{"other name", alone, true, func(r *peerpb.InviteRequest) { r.ClusterName = "test" }, peerpb.Refusal_OTHER_NAME, []string{`"test"`}},
		{"no leaders", alone, true, func(r *peerpb.InviteRequest) { r.Leaders = nil }, peerpb.Refusal_MALFORMED, nil},
		{"too old", alone, true, func(r *peerpb.InviteRequest) { r.Protocol = 0 }, peerpb.Refusal_OTHER_PROTOCOL, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := proto.CloneOf(good)
			tt.change(req)
			r, here := tt.policy.checkInvite(req, tt.fresh)
			matches(t, r, tt.kind, r.GetFinal(), tt.says)
			if want := tt.policy.members.logged.Cluster == req.GetClusterId(); here != want {
				t.Errorf("is a member = %v, want %v", here, want)
			}
		})
	}
}
