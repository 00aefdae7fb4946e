package access

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// sessions are the requests in progress whose access may be revoked, or expire.
type sessions struct {
	mu   sync.Mutex
	open map[*session]struct{}
}

type session struct {
	who    Principal
	cancel context.CancelCauseFunc
}

// SetAccess replaces the tables of tokens and machines. Requests in progress of those who are no longer in them end.
func (p *Policy) SetAccess(tables *state.Access) {
	p.tables.Store(tables)
	p.sessions.mu.Lock()
	defer p.sessions.mu.Unlock()
	for s := range p.sessions.open {
		if err := p.revoked(s.who); err != nil {
			s.cancel(err)
		}
	}
}

// revokedError is the problem of a machine whose key was revoked.
type revokedError struct{ problem error }

func (e *revokedError) Error() string { return e.problem.Error() }
func (e *revokedError) Unwrap() error { return e.problem }

// revoked returns a problem if a principal has lost its access.
func (p *Policy) revoked(who Principal) error {
	if outside := p.tables.Load().Enrolment(who.Outside); outside != nil && outside.Revoked != 0 {
		return api.NewProblem(http.StatusUnauthorized, "the key of this certificate was revoked at %s: get a certificate for a new key from your authority",
			time.UnixMilli(outside.Revoked).UTC().Format(time.RFC3339))
	}
	if machine := p.tables.Load().Enrolment(who.Machine); machine != nil && machine.Revoked != 0 {
		remove := "remove " + KeyFile + " from its data directory"
		if machine.Role == RoleLeader {
			remove = "give it an empty data directory"
		}
		return &revokedError{api.NewProblem(http.StatusUnauthorized, "the key of this %s was revoked at %s: to let the machine in again, %s, "+
			"and start it with --join and a new string of 'bridgefour token create --role %[1]s'", machine.Role,
			time.UnixMilli(machine.Revoked).UTC().Format(time.RFC3339), remove)}
	}
	if who.Token == "" {
		return nil
	}
	t := p.tables.Load().Token(who.Token)
	if t == nil {
		return api.NewProblem(http.StatusUnauthorized, "token %s was revoked: %s", who.Token, wayIn)
	}
	return checkExpiry(t, time.Now())
}

// EndSessions ends the requests in progress of machines that are not enrolled, whose certificate may be of an authority that is not accepted any more;
// and those of workers, so that they connect again, and get certificates of a new one.
func (p *Policy) EndSessions(workers bool) {
	tables := p.tables.Load()
	p.sessions.mu.Lock()
	defer p.sessions.mu.Unlock()
	for s := range p.sessions.open {
		if s.who.Machine != "" && tables.Enrolment(s.who.Machine) == nil || workers && s.who.Role == RoleWorker {
			s.cancel(errors.New("the certificate authority of the cluster has been replaced: connect again"))
		}
	}
}

// session returns a context that ends with ctx, and when the principal loses its access.
func (p *Policy) session(ctx context.Context, who Principal) context.Context {
	if who.Token == "" && who.Machine == "" && who.Outside == "" || p.lookup != nil { // requests to workers are short
		return ctx
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{who: who, cancel: cancel}
	p.sessions.mu.Lock()
	if p.sessions.open == nil {
		p.sessions.open = map[*session]struct{}{}
	}
	p.sessions.open[s] = struct{}{}
	p.sessions.mu.Unlock()
	expiry := func() bool { return true }
	if !who.Expires.IsZero() {
		expiry = time.AfterFunc(time.Until(who.Expires), func() {
			cancel(api.NewProblem(http.StatusUnauthorized, "the token or certificate of this request expired at %s", who.Expires.UTC().Format(time.RFC3339)))
		}).Stop
	}
	context.AfterFunc(ctx, func() {
		expiry()
		p.sessions.mu.Lock()
		delete(p.sessions.open, s)
		p.sessions.mu.Unlock()
	})
	if err := p.revoked(who); err != nil { // before it was in the list
		cancel(err)
	}
	return ctx
}
