package node

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport"
)

func TestAccessTables(t *testing.T) {
	rigs := newRigs(t, 2)
	leader, follower := rigs[0].node, rigs[1].node
	if a := leader.Access(); a == nil || len(a.Tokens()) != 0 {
		t.Fatalf("Access() of a new cluster = %+v, want it empty", a)
	}
	before := leader.Access()
	for what, err := range map[string]error{
		"PutToken":     leader.PutToken(t.Context(), &state.Token{ID: "t1", Role: "submit", User: "ann"}),
		"Enroll":       leader.Enroll(t.Context(), &state.Enrolment{Fingerprint: "f1", Role: "worker"}),
		"PutAuthority": leader.PutAuthority(t.Context(), &state.Authority{Number: 1, Certificate: []byte("certificate")}),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	rigs[1].caughtUp()
	for _, n := range []*Node{leader, follower} {
		a := n.Access()
		if token := a.Token("t1"); token == nil || token.User != "ann" || a.Enrolment("f1") == nil || len(a.Authorities()) != 1 {
			t.Errorf("Access() = %+v of tokens %+v, want all that was put", a.Authorities(), a.Tokens())
		}
	}
	if before.Token("t1") != nil {
		t.Error("a table that was read before has changed")
	}
	if err := leader.RevokeToken(t.Context(), "t1"); err != nil || leader.Access().Token("t1") != nil {
		t.Errorf("RevokeToken = %v, and the token is %+v at once", err, leader.Access().Token("t1"))
	}
	if err := leader.RevokeMachine(t.Context(), "f1"); err != nil || leader.Access().Enrolment("f1").Revoked == 0 {
		t.Errorf("RevokeMachine = %v, and the machine is %+v at once", err, leader.Access().Enrolment("f1"))
	}
	problemOf(t, leader.RevokeToken(t.Context(), "t1"), http.StatusNotFound, `no token "t1"`)
	problemOf(t, leader.DropAuthority(t.Context(), 1), http.StatusConflict, "issues the certificates")
	notLeaderOf(t, follower.PutToken(t.Context(), &state.Token{ID: "t2"}))
}

func TestTokensOfMachines(t *testing.T) {
	n := newRigs(t, 1)[0].node
	for role, says := range map[string]string{
		access.RoleWorker: "start it with '--leader " + n.Leaders().Leaders[0].Address, access.RoleLeader: "start it with '--join " + n.Leaders().Leaders[0].Address,
	} {
		_, err := n.CreateToken(t.Context(), role, "", 0)
		problemOf(t, err, http.StatusConflict, says)
	}
	if _, err := n.CreateToken(t.Context(), access.RoleRead, "", 0); err != nil || len(n.Tokens()) != 1 {
		t.Errorf("CreateToken for a user = %v, and there are %d tokens, want one", err, len(n.Tokens()))
	}
	n.cfg.Pin = func() *transport.Pin { return &transport.Pin{} }
	if token, err := n.CreateToken(t.Context(), access.RoleWorker, "", 0); err != nil || token.Join == "" {
		t.Errorf("CreateToken for a worker of an encrypted cluster = %+v, %v", token, err)
	}
}

// TestKeysOfLeaders: the key of a leader that was removed is revoked, also if the leader that has removed it ends before it does that.
func TestKeysOfLeaders(t *testing.T) {
	rigs := newRigs(t, 4)
	n, log := rigs[0].node, rigs[0].log
	log.setMembers(func(m *replica.Members) {
		m.List = slices.Clone(m.List)
		for i := range m.List {
			m.List[i].Directory = fmt.Sprintf("d%d", m.List[i].ID)
		}
	})
	if err := n.PutToken(t.Context(), &state.Token{ID: "t1", Role: access.RoleLeader}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"d2", "d3", "d4", "joining"} {
		if err := n.Enroll(t.Context(), &state.Enrolment{Fingerprint: "f" + d, Role: access.RoleLeader, Name: d, Token: "t1"}); err != nil {
			t.Fatal(err)
		}
	}
	revoked := func(n *Node) (list []string) {
		for _, machine := range n.Access().Enrolments() {
			if machine.Revoked != 0 {
				list = append(list, machine.Name)
			}
		}
		return list
	}
	problemOf(t, n.RemoveLeader(t.Context(), 4, false), http.StatusConflict, "arithmetic of the test")
	if got := revoked(n); len(got) > 0 {
		t.Errorf("a removal that is refused revokes the keys of %q", got)
	}
	if err := n.RemoveLeader(t.Context(), 4, true); err != nil || !slices.Equal(revoked(n), []string{"d4"}) {
		t.Fatalf("RemoveLeader() = %v, and the keys of %q are revoked, want that of d4", err, revoked(n))
	}
	n.cfg.Pin = func() *transport.Pin { return &transport.Pin{} }
	if list := n.Leaders().Leaders; list[1].Token != "t1" || list[0].Token != "" {
		t.Errorf("Leaders() = %+v, want the token by which leader 2 joined", list)
	}

	if err := log.RemoveMember(t.Context(), 3, true); err != nil { // and here leader 1 ends
		t.Fatal(err)
	}
	rigs[1].caughtUp()
	rigs[1].log.elect()
	next := rigs[1].node
	rigs[1].until("leading", func() bool { _, self := next.LeaderAddress(); return self })
	if err := next.reconcileLeaders(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := revoked(next); !slices.Equal(got, []string{"d3", "d4"}) {
		t.Errorf("the keys of %q are revoked, want those of d3 and d4", got)
	}
}
