package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/state"
)

// asking returns a context of a request by an admin.
func asking(ctx context.Context, action string) context.Context {
	return access.WithPrincipal(ctx, access.Principal{
		Name: "ann", Role: access.RoleAdmin, Token: "t1", Address: "10.0.0.9:1", Action: action,
		Permissions: access.Read | access.Submit | access.Operate | access.Manage,
	})
}

// audits returns the first n audit records that a principal sees.
func (r *rig) audits(ctx context.Context, n int) (list []api.Event) {
	r.t.Helper()
	enough := errors.New("enough")
	err := Owned{r.node}.Events(ctx, api.Position{}, func(e api.Event) error {
		if e.Type == api.EventAudited {
			list = append(list, e)
		}
		if len(list) == n || n == 0 && e.Type == api.EventWorkerJoined {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		r.t.Fatal(err)
	}
	return list
}

// writeAudit writes the audit file until stop is called.
func (r *rig) writeAudit(path string) (stop func()) {
	r.t.Helper()
	file, err := openAudit(path)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	written := make(chan struct{})
	go func() {
		defer close(written)
		r.node.writeAudit(ctx, file)
	}()
	return func() {
		cancel()
		<-written
	}
}

func TestAudit(t *testing.T) {
	r := newRig(t)
	n := Owned{r.node}
	path := filepath.Join(t.TempDir(), "audit.json")
	if err := os.WriteFile(path, []byte(`{"cluster":"other","index":99,"action":"GET /"}`+"\n"+`{"cluster":"oth`), 0o644); err != nil { //nolint:gosec // it is closed to others
		t.Fatal(err)
	}
	stop := r.writeAudit(path)

	r.until("the level rises", func() bool { return n.Cluster().Level > 1 })
	id, _, err := n.Submit(asking(t.Context(), "POST /v1/jobs"), request(1), "")
	if err != nil {
		t.Fatal(err)
	}
	problemOf(t, n.Stop(asking(t.Context(), "POST /v1/jobs/9/stop"), 9), http.StatusNotFound, "no job 9") // refused before the log
	if err := n.Stop(asking(t.Context(), "POST /v1/jobs/1/stop"), id); err != nil {
		t.Fatal(err)
	}
	problemOf(t, n.RevokeToken(asking(t.Context(), "DELETE /v1/access/tokens/x"), "x"), http.StatusNotFound, `no token "x"`)
	_, err = n.AddLeader(asking(t.Context(), "POST /v1/leaders"), "10.0.0.3:6550")
	problemOf(t, err, http.StatusConflict, "cannot invite")
	grant, err := n.Lock(user(t.Context(), "bob"), lockOf("h1", 0, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Unlock(asking(t.Context(), "DELETE /v1/locks/a"), "h1", []string{"a"}); err != nil {
		t.Fatal(err)
	}
	n.Refused(asking(t.Context(), "GET /v1/jobs"), api.NewProblem(http.StatusUnauthorized, "no token"))
	r.worker("alice", finishAll)
	r.until("the worker", func() bool { return n.Cluster().Workers == 1 })

	want := []api.Audit{
		{Action: "POST /v1/jobs"},
		{Action: "POST /v1/jobs/1/stop"},
		{Action: "DELETE /v1/access/tokens/x", Verdict: `there is no token "x"`},
		{Action: "POST /v1/leaders", Verdict: "this leader cannot invite leaders"},
		{Action: "DELETE /v1/locks/a", Subject: fmt.Sprintf(`the lock of "h1" of user "bob" on "a", "b", fence %d`, grant.Fence)},
		{Action: "GET /v1/jobs", Verdict: "no token"},
	}
	list := r.audits(asking(t.Context(), ""), len(want))
	for i, e := range list {
		want[i].User, want[i].Role, want[i].Token, want[i].Address = "ann", access.RoleAdmin, "t1", "10.0.0.9:1"
		if *e.Audit != want[i] || (e.Job == id) != (i < 2) {
			t.Errorf("record %d is %+v of job %d, want %+v", i, *e.Audit, e.Job, want[i])
		}
	}
	operator := access.WithPrincipal(t.Context(), access.Principal{Name: "eve", Permissions: access.Read | access.Operate})
	if list := r.audits(operator, 0); len(list) != 0 {
		t.Errorf("an operator sees the audit records %+v, want none", list)
	}

	for range 3 * refusedBurst {
		n.Refused(asking(t.Context(), "GET /v1/jobs"), api.NewProblem(http.StatusForbidden, "no"))
	}
	n.Refused(asking(t.Context(), "GET /v1/jobs"), api.NotFound("not a refusal"))
	n.Refused(t.Context(), api.NewProblem(http.StatusForbidden, "not a request"))
	if _, ok := n.refusals.next(r.node.ready.born); ok || n.refusals.dropped < refusedBurst {
		t.Errorf("of %d refusals %d were dropped", 3*refusedBurst, n.refusals.dropped)
	}

	lines := func() (list []auditLine) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
			var line auditLine
			if err := json.Unmarshal(s.Bytes(), &line); err != nil {
				t.Fatalf("line %s: %v", s.Bytes(), err)
			}
			list = append(list, line)
		}
		return list
	}
	r.until("the file", func() bool { return len(lines()) > len(want) })
	stop()
	got := lines()
	for i := range want {
		if line := got[i+1]; *line.Audit != want[i] || line.Cluster != "c1" || line.Index != list[i].Index || line.Missing {
			t.Errorf("line %d is %+v %+v, want %+v", i, line, line.Audit, want[i])
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the audit file has mode %v, %v, want 0600", info.Mode(), err)
	}

	// It continues where it ended.
	before := len(got)
	if err := n.Stop(asking(t.Context(), "POST /v1/jobs/1/stop"), id); err != nil {
		t.Fatal(err)
	}
	stop = r.writeAudit(path)
	r.until("the last record", func() bool {
		list := lines()
		return len(list) > before && list[len(list)-1].Action == "POST /v1/jobs/1/stop"
	})
	stop()
	seen := map[api.Position]bool{}
	for _, line := range lines()[1:] {
		if at := (api.Position{Index: line.Index, Seq: line.Seq}); line.Index == 0 || seen[at] {
			t.Errorf("line %+v occurs twice, or has no position", line)
		} else {
			seen[at] = true
		}
	}
	if err := os.WriteFile(path, []byte("a shopping list\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAudit(path); err == nil || !strings.Contains(err.Error(), "something else than an audit record") {
		t.Errorf("openAudit of another file = %v, want it refused", err)
	}
}

// TestRefusedByFollower: what a follower refuses is in the log of the leader, also if there is none at that time.
func TestRefusedByFollower(t *testing.T) {
	rigs := newRigs(t, 2)
	leader, follower := rigs[0], rigs[1].node
	for _, r := range rigs { // each applies the level in its own time
		r.until("the level", func() bool { c, _ := r.node.views.Cluster(); return c.Level >= 2 })
	}
	refused := api.NewProblem(http.StatusForbidden, "no")
	follower.Refused(asking(t.Context(), "GET /v1/jobs/1"), refused)
	got := leader.audits(asking(t.Context(), ""), 1)[0].Audit
	if want := (api.Audit{User: "ann", Role: access.RoleAdmin, Token: "t1", Address: "10.0.0.9:1", Action: "GET /v1/jobs/1", Verdict: "no"}); *got != want {
		t.Errorf("the record is %+v, want %+v", *got, want)
	}

	leader.log.depose()
	rigs[1].until("no leader", func() bool { address, self := follower.LeaderAddress(); return address == "" && !self })
	for range 3 * refusedBurst {
		follower.Refused(asking(t.Context(), "GET /v1/jobs/\xff"), refused)
	}
	if queued := len(follower.refusals.queue); queued == 0 || queued > refusedBurst {
		t.Errorf("%d records wait for a leader, want 1 to %d", queued, refusedBurst)
	}
	rigs[1].log.elect()
	rigs[1].leads()
	rigs[1].until("a record of a moment without a leader", func() bool {
		follower.Refused(asking(t.Context(), "GET /v1/jobs/3"), refused)
		records := 0 // those that were on their way to the last leader are lost
		err := follower.do(t.Context(), func() {
			facts, _ := follower.loop.controller.Machine().FactsAfter(state.Position{})
			for i := range facts {
				if facts[i].Kind == state.Audited {
					records++
				}
			}
		})
		return err == nil && records >= 2
	})
}
