package node

import (
	"net/http"
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
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
