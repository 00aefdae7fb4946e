package node

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// adminAccessFile holds the first access of an admin. It is in the data directory of the leader that has made the cluster.
const adminAccessFile = "admin.access"

// security is the credentials of a node whose connections are encrypted.
type security struct {
	credentials *access.Credentials
	key         *ClusterKey
	hosts       []string                // host names and addresses of the node, for browsers
	changed     chan struct{}           // room for one: the access tables have changed
	outside     func() *tls.Certificate // of an outside authority; nil: there is none
	clients     func() *x509.CertPool   // outside authorities of clients; nil: there is none
	rotating    sync.Mutex              // held while the authority is replaced
	resealAt    time.Time               // when to look for secrets under a former key; of keepCertified
}

// openSecurity opens the node's credentials. It has none if it cannot be reached from other machines, or is insecure.
func (p *Process) openSecurity(key *ClusterKey) error {
	cfg := &p.cfg
	_, err := os.Stat(filepath.Join(cfg.DataDir, access.KeyFile))
	beyond := cfg.Listen != "" && !transport.IsLoopback(cfg.Listen)
	if cfg.Insecure || err != nil && !beyond && cfg.Invitation == nil && cfg.Outside == (transport.Files{}) && cfg.ClusterKey == nil {
		return useClusterKey(key, cfg, false)
	}
	credentials, err := access.OpenCredentials(cfg.DataDir)
	if err != nil {
		return err
	}
	if err := useClusterKey(key, cfg, credentials.Enrolled()); err != nil {
		return err
	}
	p.security = &security{credentials: credentials, key: key, hosts: []string{"localhost", "127.0.0.1", "::1"}, changed: make(chan struct{}, 1)}
	if cfg.Outside.Certificate != "" {
		if p.security.outside, err = transport.CertificateFiles(cfg.Outside.Certificate, cfg.Outside.Key); err != nil {
			return err
		}
	}
	if cfg.Outside.Authority != "" {
		if p.security.clients, err = transport.AuthorityFile(cfg.Outside.Authority); err != nil {
			return err
		}
	}
	if name, err := os.Hostname(); err == nil {
		p.security.hosts = append(p.security.hosts, name)
	}
	for _, address := range append(slices.Clip(cfg.Hosts), cfg.Listen, p.advertised) {
		host := address
		if h, _, err := net.SplitHostPort(address); err == nil {
			host = h
		}
		if !slices.Contains(p.security.hosts, host) && host != "" && !transport.IsUnspecified(address) {
			p.security.hosts = append(p.security.hosts, host)
		}
	}
	return nil
}

// useClusterKey stores the cluster key of the configuration. A leader that has been certified keeps its own.
func useClusterKey(key *ClusterKey, cfg *ProcessConfig, certified bool) error {
	own := key.Get()
	switch {
	case cfg.ClusterKey == nil:
		return nil
	case certified && own != nil && *own != *cfg.ClusterKey:
		cfg.Logger.Warn("the leader has a certificate by the cluster key in its data directory, and another key was given, which it ignores: if it never was in "+
			"touch with the others, start it with an empty data directory", "data_dir", cfg.DataDir)
		return nil
	}
	return key.Put(*cfg.ClusterKey)
}

// outsideNames returns the host names in the certificate of the outside authority.
func (s *security) outsideNames() []string {
	if s == nil || s.outside == nil {
		return nil
	}
	return slices.Clone(s.outside().Leaf.DNSNames)
}

// outsideClients returns the outside authorities of clients; nil: there is none.
func (s *security) outsideClients() func() *x509.CertPool {
	if s == nil {
		return nil
	}
	return s.clients
}

// portTLS returns the encryption of the port; nil: there is none.
func (s *security) portTLS() *access.Encryption {
	if s == nil {
		return nil
	}
	return &access.Encryption{Config: transport.ServerTLS(s.credentials.Certificate, s.outside, s.clients), Authorities: s.credentials.Pins}
}

// joinText is what a new leader gives --join, for error messages; empty: the address of a leader.
func (s *security) joinText() string {
	if s == nil {
		return ""
	}
	return "STRING of 'bridgefour token create --role leader'"
}

// enroll obtains the certificate of a node that joins, and the cluster key.
func (p *Process) enroll(ctx context.Context, directory string) error {
	s := p.security
	switch {
	case s == nil || s.credentials.Enrolled():
		return nil
	case p.cfg.Invitation == nil:
		return errors.New("a leader that listens beyond this machine joins a cluster by a string: run 'bridgefour token create --role leader' there, and " +
			"give what it prints as --join STRING; or type --insecure, if the cluster was started with it")
	}
	raw, err := s.credentials.Enroll(ctx, *p.cfg.Invitation, directory, p.cfg.Logger)
	if err != nil {
		return err
	}
	if len(raw) != len(access.Key{}) {
		return errors.New("the leader sent no cluster key")
	}
	return s.key.Put(access.Key(raw))
}

// certifySelf makes the authority of a new cluster, or renews the node's own certificate, which may have expired.
func (p *Process) certifySelf() error {
	s := p.security
	if s == nil {
		return nil
	}
	if s.credentials.Enrolled() {
		return p.issueSelf(s.credentials.Authorities(), s.credentials.Chain())
	}
	if others := len(p.replica.Members().List) - 1; others > 0 && s.key.Get() == nil {
		return fmt.Errorf("the cluster has %d other leaders, and this one has no cluster key: stop all, and give each the same with --cluster-key FILE ("+
			"'bridgefour ca key' makes one); or type --insecure, to run without encryption", others)
	}
	key, err := s.key.Make()
	if err != nil {
		return err
	}
	authority, err := access.FirstAuthority(*key, p.replica.Members().Cluster, time.Now())
	if err != nil {
		return err
	}
	return p.issueSelf([]*x509.Certificate{authority.Certificate()}, nil)
}

// issueSelf issues the node's certificate by the newest of the authorities that are accepted. chain is for peers that know older ones.
func (p *Process) issueSelf(accepted, chain []*x509.Certificate) error {
	s := p.security
	if s.key.Get() == nil {
		return fmt.Errorf("%s is missing in %s: restore it from a backup, or copy that of another leader of the cluster", ClusterKeyFile, p.cfg.DataDir)
	}
	authority, err := s.key.Authority(accepted[len(accepted)-1])
	if err != nil {
		return fmt.Errorf("data directory %s: %w", p.cfg.DataDir, err)
	}
	raw, err := authority.Issue(access.Holder{Role: access.RoleLeader, Name: p.replica.Directory(), Hosts: s.hosts}, s.credentials.Public(), time.Now(),
		access.CertificateLife)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		return err
	}
	return s.credentials.Set(leaf, accepted, chain)
}

// Dial connects to another node of the cluster.
func (p *Process) Dial(ctx context.Context, address string) (net.Conn, error) {
	if p.security == nil {
		return access.PlainDial(p.cfg.Insecure)(ctx, address)
	}
	c, err := p.security.credentials.Dial(ctx, address)
	if other, ok := errors.AsType[*transport.OtherAuthorityError](err); ok && p.replica != nil {
		err = fmt.Errorf("%w: %s", err, p.foundedOtherwise(other))
	}
	return c, err
}

// foundedOtherwise says why another leader has another authority, and what to do.
func (p *Process) foundedOtherwise(other *transport.OtherAuthorityError) string {
	const again = "start the one that is wrong with an empty data directory, and"
	if cluster := p.replica.Members().Cluster; !access.IsAuthorityOf(other.Name, cluster) {
		return fmt.Sprintf("this leader is of cluster %s: %s the same --peers, --cluster-name and --cluster-key as the others, or --join", cluster, again)
	}
	return fmt.Sprintf("its cluster key is not that of this leader, which is in %s: %s the --cluster-key of the others, or --join",
		filepath.Join(p.cfg.DataDir, ClusterKeyFile), again)
}

// pin returns the pin of the newest authority of the cluster; nil: its connections are not encrypted.
func (p *Process) pin() *transport.Pin {
	if p.security == nil {
		return nil
	}
	pins := p.security.credentials.Pins()
	return &pins[len(pins)-1]
}

// certifiedDirectory returns the data directory in the certificate of the leader that calls; empty: it has none.
func certifiedDirectory(ctx context.Context) string {
	if who := access.From(ctx); who.Role == access.RoleLeader {
		return who.Name
	}
	return ""
}

// URL returns the base URL of this node for other machines.
func (p *Process) URL() string {
	if p.security != nil {
		return transport.SchemeTLS + "://" + p.advertised
	}
	return transport.URL(p.advertised)
}

// accepts reports whether a certificate that was valid is still from an authority that is accepted.
func (p *Process) accepts(c *x509.Certificate) bool {
	return p.security != nil && access.IsBy(c, p.security.credentials.Authorities())
}

// Encrypted reports whether other machines reach this node by TLS only.
func (p *Process) Encrypted() bool { return p.security != nil }

// onAccess uses the access tables.
func (p *Process) onAccess(tables *state.Access) {
	p.policy.SetAccess(tables)
	if p.security != nil {
		select {
		case p.security.changed <- struct{}{}:
		default:
		}
	}
}

// certifyAgain is the time until certify is tried again.
const certifyAgain = time.Second

// keepCertified keeps the node's certificate valid, and puts the authority of a new cluster into the log, until ctx is done.
func (p *Process) keepCertified(ctx context.Context) {
	for p.security != nil {
		changed := p.ready.changed.Changed()
		wait, err := p.certify(ctx)
		if err != nil && ctx.Err() == nil {
			wait = certifyAgain
			p.cfg.Logger.WarnContext(ctx, "certificates not renewed yet; trying again", "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-p.security.changed:
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// certify does what is due, and returns the time until something is.
func (p *Process) certify(ctx context.Context) (time.Duration, error) {
	s, now, authorities := p.security, time.Now(), p.Access().Authorities()
	if len(authorities) == 0 {
		if !p.ready.leading() {
			return time.Minute, nil // the tables are not known yet
		}
		return 0, p.putFirstAuthority(ctx)
	}
	until, err := p.useAuthorities(ctx, now)
	if err != nil {
		return 0, err
	}
	newest := &authorities[len(authorities)-1]
	if e := p.Access().Enrolment(s.credentials.Identity()); e == nil || newest.Key > 0 && e.Renewed < newest.Created {
		if enrolled, err := p.enrollSelf(ctx); err != nil || !enrolled {
			return certifyAgain, err
		}
	}
	if p.ready.leading() {
		if err := p.repairAccess(ctx); err != nil {
			return 0, err
		}
	}
	if s.key.all().former != nil {
		if !now.Before(s.resealAt) {
			if err := p.reseal(ctx, time.UnixMilli(newest.Created)); err != nil {
				return 0, err
			}
			s.resealAt = now.Add(resealEvery)
		}
		until = earliest(s.resealAt, until)
	}
	return earliest(s.credentials.RenewAt(), until).Sub(now), nil
}

// repairAccess completes what a leader before may have begun.
func (p *Process) repairAccess(ctx context.Context) error {
	if err := p.reconcileLeaders(ctx); err != nil || len(p.Access().Tokens()) > 0 {
		return err
	}
	return p.writeAdminAccess(ctx)
}

// putFirstAuthority puts the authority of a new cluster into the log, and before it, so that it is done once, the first token of a cluster whose leaders
// were given its key.
func (p *Process) putFirstAuthority(ctx context.Context) error {
	n := len(p.Access().Tokens())
	if n > 0 {
		p.cfg.Logger.WarnContext(ctx, "the connections are encrypted from now on; tokens that were created before remain valid: 'bridgefour token list' shows them", "tokens", n)
	} else if p.cfg.ClusterKey != nil && len(p.cfg.Peers) > 0 {
		token, _ := access.FirstToken(*p.security.key.Get(), p.replica.Members().Cluster)
		if err := p.PutToken(ctx, token); err != nil {
			return err
		}
		n++
	}
	if n > 0 {
		if err := p.writeAdminAccess(ctx); err != nil {
			return err
		}
	}
	return p.PutAuthority(ctx, &state.Authority{Number: 1, Certificate: p.security.credentials.Authorities()[0].Raw})
}

// useAuthorities uses the authorities in the log, and the key of the newest one; until is the next time that one is no longer accepted.
func (p *Process) useAuthorities(ctx context.Context, now time.Time) (until time.Time, err error) {
	s := p.security
	accepted, chain, until, err := certificatesOf(p.Access(), now)
	if err != nil {
		return until, err
	}
	switched, err := p.followKey(ctx, accepted[len(accepted)-1])
	if err != nil {
		return until, err
	}
	same := slices.EqualFunc(accepted, s.credentials.Authorities(), (*x509.Certificate).Equal) && slices.EqualFunc(chain, s.credentials.Chain(), (*x509.Certificate).Equal)
	if same && now.Before(s.credentials.RenewAt()) {
		return until, nil
	}
	before := s.credentials.Pins()
	if err := p.issueSelf(accepted, chain); err != nil {
		return until, err
	}
	dropped := slices.ContainsFunc(before, func(pin transport.Pin) bool { return !slices.Contains(s.credentials.Pins(), pin) })
	if dropped || switched {
		p.policy.EndSessions(switched)
	}
	return until, nil
}

// enrollSelf enrolls this leader, which has certified itself. It returns false while that is not possible.
func (p *Process) enrollSelf(ctx context.Context) (bool, error) {
	leader, self := p.LeaderAddress()
	switch {
	case self:
		err := p.Enroll(ctx, &state.Enrolment{Fingerprint: p.security.credentials.Identity(), Role: access.RoleLeader, Name: p.replica.Directory()})
		return err == nil, err
	case leader == "" || !p.isMember(p.replica.Directory()):
		return false, nil
	}
	_, err := p.security.credentials.ClusterKey(ctx, []string{leader})
	return err == nil, err
}

func earliest(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// writeAdminAccess creates the first token of a cluster, for its admin.
func (p *Process) writeAdminAccess(ctx context.Context) error {
	token, err := p.CreateToken(ctx, access.RoleAdmin, "admin", 0)
	if err != nil {
		return err
	}
	path := filepath.Join(p.cfg.DataDir, adminAccessFile)
	p.cfg.Logger.InfoContext(ctx, "the access of an admin is in a file; other machines use it by 'bridgefour login'", "file", path)
	return datadir.WriteFile(path, []byte(token.Join+"\n"))
}

// certificatesOf returns the authorities whose certificates are accepted, the newest last, and the rest of what a server sends: older
// authorities, and the newer ones certified by them. An authority is accepted until all certificates by it have expired, which until is the
// next time of; zero: there is none. One of a former cluster key is accepted until all machines have renewed theirs.
func certificatesOf(tables *state.Access, now time.Time) (accepted, chain []*x509.Certificate, until time.Time, err error) {
	authorities := tables.Authorities()
	newest := &authorities[len(authorities)-1]
	for i := range authorities {
		a, err := x509.ParseCertificate(authorities[i].Certificate)
		if err != nil {
			return nil, nil, until, fmt.Errorf("certificate of authority %d: %w", authorities[i].Number, err)
		}
		if i == len(authorities)-1 {
			accepted = append(accepted, a)
		} else if end := time.UnixMilli(authorities[i+1].Created).Add(access.CertificateLife + time.Hour); now.Before(end) &&
			(authorities[i].Key == newest.Key || !haveRenewed(tables.Enrolments(), newest, now)) {
			accepted = append(accepted, a)
			until = earliest(end, until)
		} else {
			chain = append(chain, a)
		}
		if len(authorities[i].Cross) > 0 {
			c, err := x509.ParseCertificate(authorities[i].Cross)
			if err != nil {
				return nil, nil, until, fmt.Errorf("certificate of authority %d: %w", authorities[i].Number, err)
			}
			chain = append(chain, c)
		}
	}
	return accepted, chain, until, nil
}

// Certify enrolls the machine that a request is from, or renews its certificate. name is that of a leader's data directory.
func (p *Process) Certify(ctx context.Context, r api.CertificateRequest) (api.Certificate, error) {
	s, who := p.security, access.From(ctx)
	if s == nil {
		return api.Certificate{}, api.Conflict("the connections of this cluster are not encrypted, so it issues no certificates: join by an address, HOST:PORT")
	}
	key, identity, err := provenKey(access.PeerFrom(ctx), who, r.Request)
	if err != nil {
		return api.Certificate{}, err
	}
	if err := p.acceptsWrites(ctx); err != nil {
		return api.Certificate{}, err
	}
	machine, name := state.Enrolment{Fingerprint: identity, Role: who.Role, Name: who.Name, Token: who.Token}, r.Name
	switch {
	case !access.IsMachine(who.Role):
		return api.Certificate{}, api.NewProblem(http.StatusForbidden, "%s, and not worker or leader: that of a user is for 'bridgefour login STRING'", who)
	case who.Machine != "" && p.Access().Enrolment(machine.Fingerprint) != nil: // a renewal
	case who.Machine != "" && who.Role == access.RoleLeader && p.isMember(who.Name): // one of those that have founded the cluster
		if err := p.checkDirectory(machine); err != nil {
			return api.Certificate{}, err
		}
	case who.Machine != "":
		return api.Certificate{}, api.NewProblem(http.StatusForbidden, "the certificate is of this cluster, and its key is not enrolled in it: the machine joins with --join "+
			"STRING of 'bridgefour token create --role %s'", who.Role)
	case (who.Role == access.RoleLeader) != (name != ""):
		applicant := access.RoleWorker
		if name != "" {
			applicant = access.RoleLeader
		}
		return api.Certificate{}, api.NewProblem(http.StatusForbidden, "the string or certificate is of the role %s: a %s joins with that of 'bridgefour token create --role %[2]s', or a certificate "+
			"with O=bridgefour:%[2]s", who.Role, applicant)
	case who.Role == access.RoleWorker:
		machine.Name = machine.Fingerprint
	default:
		machine.Name = name
		if err := p.checkDirectory(machine); err != nil {
			return api.Certificate{}, err
		}
	}
	if err := p.Enroll(ctx, &machine); err != nil {
		return api.Certificate{}, err
	}
	return p.issue(machine, key)
}

// provenKey returns the key of a machine that wants a certificate: that of its connection, or, if it proves a role, that of its request.
func provenKey(peer access.Peer, who access.Principal, request []byte) (key *ecdsa.PublicKey, identity string, err error) {
	var public crypto.PublicKey
	switch {
	case who.Outside != "":
		if public, identity, err = access.ProvenKey(request); err != nil {
			return nil, "", err
		}
	case peer.Certificate != nil:
		public, identity = peer.Certificate.PublicKey, access.Fingerprint(peer.Certificate)
	default:
		return nil, "", api.NewProblem(http.StatusBadRequest, "the connection does not prove a key: connect by TLS with a certificate, which may be self-signed")
	}
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, "", api.NewProblem(http.StatusBadRequest, "the key of the machine is of type %T: want ECDSA", public)
	}
	return key, identity, nil
}

// checkDirectory refuses a leader whose data directory has no name, or that of another leader.
func (p *Process) checkDirectory(machine state.Enrolment) error {
	if len(machine.Name) > 64 {
		return api.Invalid("validation failed").With("body.name", "want a name of up to 64 bytes", machine.Name)
	}
	for _, other := range p.Access().Enrolments() {
		if other.Role == machine.Role && other.Name == machine.Name && other.Fingerprint != machine.Fingerprint && other.Revoked == 0 {
			return api.Conflict("the data directory %s belongs to a leader with another key: start with an empty data directory", machine.Name)
		}
	}
	return nil
}

// issue issues a certificate for a machine that is enrolled, by the newest authority in the log.
func (p *Process) issue(machine state.Enrolment, public crypto.PublicKey) (api.Certificate, error) {
	accepted, keys := p.security.credentials.Authorities(), p.security.key.all()
	if tables := p.Access(); len(tables.Authorities()) > 0 {
		var err error
		if accepted, _, _, err = certificatesOf(tables, time.Now()); err != nil {
			return api.Certificate{}, err
		}
	}
	authority, err := access.OpenAuthority(*keys.key, accepted[len(accepted)-1])
	if err != nil {
		return api.Certificate{}, api.Unavailable("the cluster key is being replaced: try again in a moment")
	}
	raw, err := authority.Issue(access.Holder{Role: machine.Role, Name: machine.Name}, public, time.Now(), access.CertificateLife)
	if err != nil {
		return api.Certificate{}, err
	}
	out := api.Certificate{Certificate: raw}
	for _, a := range accepted {
		if isOf(a, keys.key) { // leaders have no certificates of a former key any more
			out.Authorities = append(out.Authorities, a.Raw)
		}
	}
	if machine.Role == access.RoleLeader {
		out.ClusterKey = keys.key[:]
	}
	return out, nil
}

// RotateAuthority adds a new certificate authority. Certificates of the one before are accepted until they have expired. It may be of a new cluster key,
// with which they are accepted until all machines have renewed theirs, or, with now, until those that are connected have.
func (p *Process) RotateAuthority(ctx context.Context, replaceKey, now bool) (api.Authority, error) {
	s := p.security
	if s == nil {
		return api.Authority{}, api.Conflict("the connections of this cluster are not encrypted, so it has no certificate authority")
	}
	if err := p.acceptsWrites(ctx); err != nil {
		return api.Authority{}, err
	}
	if !s.rotating.TryLock() {
		return api.Authority{}, api.Conflict("the certificate authority is being replaced by another request: try again in a moment")
	}
	defer s.rotating.Unlock()
	list := p.Access().Authorities()
	if len(list) == 0 {
		return api.Authority{}, api.Unavailable("the first certificate authority is being made: try again")
	}
	last := list[len(list)-1]
	newest, err := x509.ParseCertificate(last.Certificate)
	if err != nil {
		return api.Authority{}, err
	}
	key := *s.key.Get()
	before, err := access.OpenAuthority(key, newest)
	if err != nil {
		return api.Authority{}, api.Unavailable("the cluster key is being replaced: try again in a moment")
	}
	a := &state.Authority{Number: last.Number + 1, Key: last.Key}
	first, _ := access.FirstToken(key, p.replica.Members().Cluster)
	if replaceKey {
		key, a.Key = access.NewKey(), last.Key+1
		if err := p.giveKey(ctx, key); err != nil {
			return api.Authority{}, err
		}
	}
	made := time.Now()
	next, err := access.NewAuthority(key, p.replica.Members().Cluster, made)
	if err != nil {
		return api.Authority{}, err
	}
	a.Certificate = next.Certificate().Raw
	if a.Cross, err = before.Cross(next, made); err != nil {
		return api.Authority{}, err
	}
	if accepted := s.credentials.Authorities(); len(list) > len(accepted) && len(list) == state.AuthoritiesMax {
		if err := p.DropAuthority(ctx, list[0].Number); err != nil {
			return api.Authority{}, err
		}
	}
	// No other key may be given away before it is known whether the log has this one's authority, also if the client no longer waits.
	if err := p.PutAuthority(context.WithoutCancel(ctx), a); err != nil {
		return api.Authority{}, err
	}
	if replaceKey && p.Access().Token(first.ID) != nil { // who has the former key knows it
		if err := p.RevokeToken(ctx, first.ID); err != nil {
			return api.Authority{}, err
		}
	}
	if replaceKey && now {
		if err := p.dropFormer(ctx, a.Number); err != nil {
			return api.Authority{}, err
		}
	}
	return api.Authority{Number: a.Number, Expires: next.Certificate().NotAfter.UTC()}, nil
}
