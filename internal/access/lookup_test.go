package access

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// leaderOfWorker finds tokens for a policy without tables.
type leaderOfWorker struct {
	tables *state.Access
	down   error
	asked  int
}

func (l *leaderOfWorker) find(_ context.Context, token, _, _ string) (*state.Token, error) {
	l.asked++
	if l.down != nil {
		return nil, l.down
	}
	return FindToken(l.tables, token, time.Now())
}

// as requests GET /metrics with a token from an address.
func (l *leaderOfWorker) as(t *testing.T, p *Policy, token, address string) error {
	t.Helper()
	accepted, err := p.Accept(with(t, token, address), "GET /metrics")
	if err == nil && accepted.Context().Err() != nil {
		t.Error("the request has ended already")
	}
	return err
}

func TestLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, text := NewToken(RoleRead, "ann")
		machine, machineText := NewToken(RoleWorker, "")
		l := &leaderOfWorker{tables: tablesOf(t, reader, machine)}
		p := NewPolicy(Options{Lookup: l.find})
		wants := func(what string, err error, status int) {
			t.Helper()
			if status == 0 && err != nil || status != 0 && !api.IsStatus(err, status) {
				t.Errorf("%s: %v, want status %d", what, err, status)
			}
		}
		const client, other = "10.0.0.9:1", "10.0.0.8:1"
		wants("a token", l.as(t, p, text, client), 0)
		wants("the same", l.as(t, p, text, client), 0)
		if l.asked != 1 {
			t.Errorf("the leader was asked %d times, want 1", l.asked)
		}
		wants("a token of a machine", l.as(t, p, machineText, client), http.StatusForbidden)
		wants("a part of a token", l.as(t, p, text[:20], client), http.StatusUnauthorized)

		// A flood of wrong tokens is not passed on, and keeps out no token that was valid before.
		l.asked = 0
		for i := range 1000 {
			wrong := fmt.Sprintf("%s_%s%04d", strings.Repeat("x", tokenIDLen), strings.Repeat("X", secretLen-4), i)
			if err := l.as(t, p, wrong, client); i > wrongBurst {
				wants("a wrong token of many", err, http.StatusTooManyRequests)
			}
		}
		if l.asked > wrongBurst {
			t.Errorf("the leader was asked %d times by a flood, want at most %d", l.asked, wrongBurst)
		}
		time.Sleep(foundAge)
		wants("a token during a flood", l.as(t, p, text, client), 0)

		// Without a leader its answers are used for a moment.
		l.down = api.Unavailable("no leader")
		wants("just after the leader", l.as(t, p, text, client), 0)
		time.Sleep(foundAge)
		wants("without a leader", l.as(t, p, text, client), http.StatusServiceUnavailable)
		l.down = nil
		wants("with a leader again", l.as(t, p, text, client), 0)

		l.tables = tablesOf(t, machine)
		time.Sleep(foundAge)
		wants("a revoked token", l.as(t, p, text, other), http.StatusUnauthorized)
		wants("a revoked token again", l.as(t, p, text, other), http.StatusUnauthorized)
	})
}

func TestFoundTokensAreBounded(t *testing.T) {
	var f foundTokens
	now := time.Now()
	for i := range foundMax + 10 {
		f.put([32]byte{byte(i), byte(i >> 8)}, &state.Token{}, now.Add(time.Duration(i)))
	}
	if len(f.byHash) != foundMax {
		t.Errorf("%d tokens are kept, want %d", len(f.byHash), foundMax)
	}
	if _, ok := f.get([32]byte{9}); ok {
		t.Error("the oldest is kept")
	}
	if _, ok := f.get([32]byte{10}); !ok {
		t.Error("one that is not the oldest was dropped")
	}
}
