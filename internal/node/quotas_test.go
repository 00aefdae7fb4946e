package node

import (
	"context"
	"net/http"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

// asUser returns a context of a user.
func asUser(t *testing.T, name string, permissions access.Permission) context.Context {
	t.Helper()
	return access.WithPrincipal(t.Context(), access.Principal{Name: name, Role: "submit", Permissions: permissions})
}

func TestOpenJobsAreBounded(t *testing.T) {
	n := newRig(t).node
	if err := n.SetQuota(t.Context(), api.Quota{User: "*", QuotaRequest: api.QuotaRequest{Jobs: 1, Slots: 2}}); err != nil {
		t.Fatal(err)
	}
	ann, bob := asUser(t, "ann", access.Read|access.Submit), asUser(t, "bob", access.Read|access.Submit)
	first, _, err := n.Submit(ann, request(1), "key")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = n.Submit(ann, request(1), "")
	problemOf(t, err, http.StatusTooManyRequests, `user "ann" has 1 open jobs of at most 1: wait`)
	if again, _, err := n.Submit(ann, request(1), "key"); err != nil || again != first {
		t.Errorf("the same submit again = job %d, %v; want job %d", again, err, first)
	}
	wide := request(1)
	wide.SlotsPerTask = 3
	_, _, err = n.Submit(bob, wide, "")
	problemOf(t, err, http.StatusConflict, `each task of the job needs 3 slots, and the quota of user "bob" is 2`)
	if _, _, err := n.Submit(bob, request(1), ""); err != nil {
		t.Errorf("a submit of another user: %v", err)
	}
}

func TestPriorityOfUsers(t *testing.T) {
	n := newRig(t).node
	high, usual := 51, 50
	req := request(1)
	req.Priority = &high
	ann := asUser(t, "ann", access.Read|access.Submit)
	_, _, err := n.Submit(ann, req, "")
	problemOf(t, err, http.StatusForbidden, `priority 51: a priority above 50 is for operators, and user "ann" has the role submit`)
	if _, _, err := n.Submit(asUser(t, "eve", access.Read|access.Submit|access.Operate), req, ""); err != nil {
		t.Errorf("a high priority of an operator: %v", err)
	}
	req.Priority = &usual
	if _, _, err := n.Submit(ann, req, ""); err != nil {
		t.Errorf("the default priority: %v", err)
	}
}

func TestSubmitsAreSlowed(t *testing.T) {
	n := newRig(t).node
	ann := access.Principal{Name: "ann", Permissions: access.Read | access.Submit}
	var err error
	for range 10 * submitBurst {
		if err = n.checkRate(ann, 1); err != nil {
			break
		}
	}
	problemOf(t, err, http.StatusTooManyRequests, `user "ann" submits more than 100 jobs a second`)
	for who, p := range map[string]access.Principal{
		"another user": {Name: "bob", Permissions: access.Submit}, "an administrator of the same name": {Name: "ann", Permissions: access.Manage},
	} {
		if err := n.checkRate(p, 1); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
}
