package state

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// Access is who may use the cluster: the tokens of users, the keys of machines, the certificate authorities that vouch for them, and the
// quotas of users, and how long their jobs are kept. It never changes, so any goroutine may read it; Machine.Access returns the current one.
type Access struct {
	tokens      table[Token]
	machines    table[Enrolment]
	authorities []Authority // oldest first
	quotas      Quotas
	retentions  Retentions
}

// Token lets its holder act in a role. Its secret is known to the holder only.
type Token struct {
	ID      string
	Hash    [32]byte // SHA-256 of the secret
	Role    string
	User    string // whose jobs it submits
	Created int64  // Unix ms; set by Apply
	Expires int64  // Unix ms; 0: never
}

// Enrolment is the key of a machine that may take part in the cluster.
type Enrolment struct {
	Fingerprint string // of the key: the machine's identity
	Role        string
	Name        string
	Enrolled    int64  // Unix ms, as are the others; set by Apply
	Renewed     int64  // the last Enroll
	Revoked     int64  // 0: it is not
	Token       string // the id of the one by which it was let in; empty: none did, or it is not known
	Member      uint64 // of a leader: its number; 0: it was no member of the cluster so far
}

// Authority is a certificate authority of the cluster. The newest one issues certificates; earlier ones are accepted.
type Authority struct {
	Number      uint64 // 1, 2, 3 …
	Certificate []byte // DER
	Cross       []byte // DER: the same key, certified by the authority before; empty: there was none
	Created     int64  // Unix ms; set by Apply
	Key         uint64 // number of the cluster key that its own follows from: 0 is the first, and each replacement has the next
}

// Bounds of the access tables.
const (
	tokensMax      = 10_000
	machinesMax    = 100_000
	AuthoritiesMax = 4        // of a cluster
	accessTextMax  = 256      // bytes of a text
	authorityMax   = 32 << 10 // bytes of an authority's certificates

	// What is over is kept for so long, in milliseconds, if there is room: it is listed, and its holder is told why it is refused.
	tokenKeptMS   = 7 * 24 * 60 * 60 * 1000
	machineKeptMS = 30 * 24 * 60 * 60 * 1000
	// revokedKeptMS is longer than the life of a certificate: without the record, one that was revoked would be accepted again.
	revokedKeptMS = 3 * 24 * 60 * 60 * 1000
)

// Access returns the current access tables.
func (m *Machine) Access() *Access { return m.access }

// Token returns a token, or nil.
func (a *Access) Token(id string) *Token { return a.tokens.get(id) }

// Tokens returns all tokens, oldest first.
func (a *Access) Tokens() []*Token {
	return a.tokens.sorted(func(a, b *Token) int { return cmp.Or(cmp.Compare(a.Created, b.Created), strings.Compare(a.ID, b.ID)) })
}

// Enrolment returns the enrolment of the machine with this key, also a revoked one, or nil.
func (a *Access) Enrolment(fingerprint string) *Enrolment { return a.machines.get(fingerprint) }

// Leader returns the enrolment of the leader with a data directory, if it is not revoked, or nil.
func (a *Access) Leader(directory string) *Enrolment {
	for e := range a.machines.all() {
		if e.Name == directory && e.Revoked == 0 && e.Role == "leader" {
			return e
		}
	}
	return nil
}

// Enrolments returns all enrolments, oldest first.
func (a *Access) Enrolments() []*Enrolment {
	return a.machines.sorted(func(a, b *Enrolment) int {
		return cmp.Or(cmp.Compare(a.Enrolled, b.Enrolled), strings.Compare(a.Fingerprint, b.Fingerprint))
	})
}

// Machines returns all enrolments in no order.
func (a *Access) Machines() iter.Seq[*Enrolment] { return a.machines.all() }

// Authorities returns the certificate authorities, oldest first. The caller must not change them.
func (a *Access) Authorities() []Authority { return a.authorities }

// Quotas returns the quotas of users.
func (a *Access) Quotas() *Quotas { return &a.quotas }

// Retentions returns how long jobs are kept.
func (a *Access) Retentions() *Retentions { return &a.retentions }

// putToken adds a token. Tokens that expired long ago make room for it.
func (a *Access) putToken(now int64, t Token) *Rejection {
	switch {
	case t.ID == "" || len(t.ID) > accessTextMax || len(t.User) > accessTextMax || len(t.Role) > accessTextMax:
		return reject(TooLarge, "a token has an id, and its id, role and user have at most %d bytes each", accessTextMax)
	case a.tokens.get(t.ID) != nil:
		return reject(Conflict, "there is a token %q already", t.ID)
	}
	for old := range a.tokens.all() {
		if old.Expires != 0 && now-old.Expires > tokenKeptMS {
			a.tokens = a.tokens.with(old.ID, nil)
		}
	}
	if a.tokens.size >= tokensMax {
		return reject(Conflict, "there are %d tokens, which is the most: revoke some", tokensMax)
	}
	t.Created = now
	a.tokens = a.tokens.with(t.ID, &t)
	return nil
}

func (a *Access) revokeToken(id string) *Rejection {
	if a.tokens.get(id) == nil {
		return reject(NotFound, "there is no token %q", id)
	}
	a.tokens = a.tokens.with(id, nil)
	return nil
}

// enroll adds a machine, or renews it. If there are too many, one that was revoked or has not renewed its certificate for long makes room.
func (a *Access) enroll(now int64, e Enrolment) *Rejection {
	known := a.machines.get(e.Fingerprint)
	switch {
	case e.Fingerprint == "" || max(len(e.Fingerprint), len(e.Name), len(e.Role), len(e.Token)) > accessTextMax:
		return reject(TooLarge, "a machine has a key, and its fingerprint, role, name and token's id have at most %d bytes each", accessTextMax)
	case known != nil && known.Revoked != 0:
		return reject(Conflict, "the key of this %s was revoked; a machine that is to join again needs a new key and a new token", known.Role)
	case known != nil && known.Role != e.Role:
		return reject(Conflict, "the key belongs to a %s, and cannot be that of a %s too", known.Role, e.Role)
	}
	if known == nil && a.machines.size >= machinesMax {
		var drop *Enrolment
		for old := range a.machines.all() {
			idle := old.Revoked != 0 && now-old.Revoked > revokedKeptMS || now-old.Renewed > machineKeptMS
			if idle && (drop == nil || cmp.Or(cmp.Compare(old.Renewed, drop.Renewed), strings.Compare(old.Fingerprint, drop.Fingerprint)) < 0) {
				drop = old
			}
		}
		if drop == nil {
			return reject(Conflict, "%d machines are enrolled, which is the most: revoke those that no longer exist", machinesMax)
		}
		a.machines = a.machines.with(drop.Fingerprint, nil)
	}
	e.Enrolled, e.Renewed, e.Revoked = now, now, 0
	if known != nil {
		e.Enrolled, e.Token, e.Member = known.Enrolled, cmp.Or(e.Token, known.Token), cmp.Or(e.Member, known.Member)
	}
	a.machines = a.machines.with(e.Fingerprint, &e)
	return nil
}

func (a *Access) revokeMachine(now int64, fingerprint string) *Rejection {
	known := a.machines.get(fingerprint)
	switch {
	case known == nil:
		return reject(NotFound, "no machine with the key %q is enrolled", fingerprint)
	case known.Revoked != 0:
		return nil
	}
	revoked := *known
	revoked.Revoked = max(1, now)
	a.machines = a.machines.with(fingerprint, &revoked)
	return nil
}

// putAuthority adds the next authority. Its number is that after the newest one, so that of two leaders that make one only one succeeds.
func (a *Access) putAuthority(now int64, p Authority) *Rejection {
	if len(p.Certificate) == 0 || len(p.Certificate)+len(p.Cross) > authorityMax {
		return reject(TooLarge, "an authority has a certificate, and its certificates take at most %d bytes", authorityMax)
	}
	next := uint64(1)
	if n := len(a.authorities); n > 0 {
		next = a.authorities[n-1].Number + 1
	}
	switch {
	case p.Number != next:
		return reject(Conflict, "the next authority is number %d, not %d: another one was added meanwhile", next, p.Number)
	case len(a.authorities) == AuthoritiesMax:
		return reject(Conflict, "the cluster accepts %d authorities, which is the most: rotate again when the certificates of the oldest have expired", AuthoritiesMax)
	}
	p.Created = now
	a.authorities = append(slices.Clip(a.authorities), p)
	return nil
}

// dropAuthority removes an authority that is not the newest.
func (a *Access) dropAuthority(number uint64) *Rejection {
	for i := range a.authorities {
		switch {
		case a.authorities[i].Number != number:
		case i == len(a.authorities)-1:
			return reject(Conflict, "authority %d issues the certificates of the cluster: add another one first", number)
		default:
			a.authorities = append(a.authorities[:i:i], a.authorities[i+1:]...)
			return nil
		}
	}
	return reject(NotFound, "there is no authority %d", number)
}

func (c *codec) token(t *Token) {
	hash := t.Hash[:]
	c.string(1, &t.ID)
	c.bytes(2, &hash)
	c.string(3, &t.Role)
	c.string(4, &t.User)
	c.int(5, &t.Created)
	c.int(6, &t.Expires)
	c.end("a token")
	c.check(func() bool { return copy(t.Hash[:], hash) == len(t.Hash) && len(hash) == len(t.Hash) })
}

func (c *codec) enrolment(e *Enrolment) {
	c.string(1, &e.Fingerprint)
	c.string(2, &e.Role)
	c.string(3, &e.Name)
	c.int(4, &e.Enrolled)
	c.int(5, &e.Renewed)
	c.int(6, &e.Revoked)
	c.string(7, &e.Token)
	number(c, 8, &e.Member)
	c.end("a machine's enrolment")
}

func (c *codec) authority(a *Authority) {
	number(c, 1, &a.Number)
	c.bytes(2, &a.Certificate)
	c.bytes(3, &a.Cross)
	c.int(4, &a.Created)
	number(c, 5, &a.Key)
	c.end("a certificate authority")
}

// accessTables is a record of a snapshot.
func (c *codec) accessTables(a *Access) {
	tokens, machines, quotas, retentions := a.Tokens(), a.Enrolments(), a.quotas.All(), a.retentions.list()
	records(c, 1, &tokens, func(c *codec, t **Token) { c.token(made(t)) })
	records(c, 2, &machines, func(c *codec, e **Enrolment) { c.enrolment(made(e)) })
	records(c, 3, &a.authorities, (*codec).authority)
	records(c, 4, &quotas, func(c *codec, q **Quota) { c.quota(made(q)) })
	records(c, 5, &retentions, func(c *codec, r **Retention) { c.retention(made(r)) })
	c.end("the access tables")
	if c.d == nil {
		return
	}
	a.quotas.table = tableOf(quotas, func(q *Quota) string { return q.User })
	a.retentions.table = tableOf(retentions, func(r *Retention) string { return r.User })
	a.tokens = tableOf(tokens, func(t *Token) string { return t.ID })
	a.machines = tableOf(machines, func(e *Enrolment) string { return e.Fingerprint })
	c.check(func() bool {
		last := uint64(0)
		for i := range a.authorities {
			if a.authorities[i].Number <= last {
				return false
			}
			last = a.authorities[i].Number
		}
		return a.tokens.size == len(tokens) && a.machines.size == len(machines) && a.quotas.size == len(quotas) &&
			a.retentions.size == len(retentions)
	})
}
