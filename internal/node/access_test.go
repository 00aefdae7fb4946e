package node

import (
	"net/http"
	"testing"

	"github.com/bridgefour/bridgefour/internal/access"
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
