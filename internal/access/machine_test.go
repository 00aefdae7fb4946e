package access

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// machinesOf returns tables with machines, of which some are revoked.
func machinesOf(t *testing.T, machines map[*state.Enrolment]bool) *state.Access {
	t.Helper()
	m, e := state.New(), state.NewEntry(1, state.FeatureLevel)
	for machine, revoked := range machines {
		e.Enroll("", machine)
		if revoked {
			e.RevokeMachine("", machine.Fingerprint)
		}
	}
	var out state.Result
	for i, data := range [][]byte{state.RaiseLevel(1, state.FeatureLevel, "v1").Data(), e.Data()} {
		if err := m.Apply(uint64(i+1), data, &out); err != nil {
			t.Fatal(err)
		}
	}
	return m.Access()
}

func TestMachines(t *testing.T) {
	a := newAuthority(t, 1, now)
	machine := func(role string) *Credentials {
		c := newCredentials(t)
		leaf := issue(t, a, Holder{Role: role, Name: "n"}, c, time.Now())
		if err := c.use(leaf, nil, nil); err != nil {
			t.Fatal(err)
		}
		return c
	}
	worker, leader, gone, nobody := machine(RoleWorker), machine(RoleLeader), machine(RoleWorker), machine("cook")
	p := NewPolicy(Options{Member: func(directory string) bool { return directory == "n" }})
	p.SetAccess(machinesOf(t, map[*state.Enrolment]bool{
		{Fingerprint: worker.Identity(), Role: RoleWorker, Name: "n"}: false, {Fingerprint: gone.Identity(), Role: RoleWorker, Name: "n"}: true,
	}))
	invalid := errors.New("expired or worse")
	for name, test := range map[string]struct {
		machine       *Credentials
		invalid       error
		local         bool
		authorization string
		want          Permission
		err           string
	}{
		"worker":                     {machine: worker, want: Work | Enroll},
		"worker on this machine":     {machine: worker, local: true, want: Work | Enroll},
		"expired worker":             {machine: worker, invalid: invalid, want: Enroll},
		"leader that is not known":   {machine: leader, want: Replicate | Enroll}, // by a follower that is behind
		"leader for a user":          {machine: leader, authorization: forwardScheme + "submit ann", want: Read | Submit},
		"worker for a user":          {machine: worker, authorization: forwardScheme + "admin ann", want: Work | Enroll},
		"invalid and not known":      {machine: leader, invalid: invalid, err: "expired or worse"},
		"revoked":                    {machine: gone, err: "was revoked"},
		"revoked and expired":        {machine: gone, invalid: invalid, err: "was revoked"},
		"role that is not a machine": {machine: nobody, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			who, err := p.principal(Peer{
				Address: remote, Encrypted: true, Local: test.local, Certificate: test.machine.Certificate().Leaf, Invalid: test.invalid,
			}, test.authorization)
			if who.Permissions != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("principal() = %+v, %v, want permissions %b, error %q", who, err, test.want, test.err)
			}
		})
	}
}

// TestRevokedSession: a call ends when the key of its machine is revoked.
func TestRevokedSession(t *testing.T) {
	a, c := newAuthority(t, 1, now), newCredentials(t)
	leaf := issue(t, a, Holder{Role: RoleWorker, Name: c.Identity()}, c, now)
	p := NewPolicy(Options{})
	ctx, err := p.acceptCall(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: callPeer{Address: remote, Encrypted: true, Certificate: leaf}}),
		"/bridgefour.wire.v1.Leader/Session")
	if err != nil {
		t.Fatal(err)
	}
	p.SetAccess(machinesOf(t, map[*state.Enrolment]bool{{Fingerprint: c.Identity(), Role: RoleWorker, Name: c.Identity()}: true}))
	<-ctx.Done()
	if err := context.Cause(ctx); !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("the call ends with %v, want the reason", err)
	}
}

// TestPlainText: a token is not looked at if others could have read it.
func TestPlainText(t *testing.T) {
	p := NewPolicy(Options{})
	token, text := NewToken(RoleAdmin, "ann")
	p.SetAccess(tablesOf(t, token))
	r := with(t, text, remote)
	r = r.WithContext(context.WithValue(r.Context(), peerKey{}, Peer{Address: remote}))
	if _, err := p.Accept(r, "GET /v1/jobs"); err == nil || !strings.Contains(err.Error(), transport.SchemeTLS) {
		t.Errorf("Accept() without encryption = %v, want the way in", err)
	}
}
