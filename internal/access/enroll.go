package access

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// CertificatesPath is the route at which leaders issue certificates. The certificate with which a machine connects proves its key; it may be
// self-signed, if the request has a token, or expired.
const CertificatesPath = "/v1/access/certificates"

const (
	enrollTime       = 15 * time.Second // of one request
	enrollBackOffMin = 50 * time.Millisecond
	enrollBackOffMax = 5 * time.Second
	answerBytesMax   = 1 << 20
	olderMax         = 8 // authorities that are remembered
)

// Enroll obtains the first certificate. It retries until ctx is done, unless a leader refuses the machine, or all
// addresses are of servers that are not of the cluster: then it returns an *api.Problem. The cluster key, which only leaders get, is returned.
// name is that of a leader's data directory.
func (c *Credentials) Enroll(ctx context.Context, j transport.Join, name string, logger *slog.Logger) (clusterKey []byte, err error) {
	e, err := c.enrolment(j, name)
	if err != nil {
		return nil, err
	}
	said := ""
	for wait := enrollBackOffMin; ; wait = min(2*wait, enrollBackOffMax) {
		clusterKey, err := c.request(ctx, e, j.Addresses)
		if err == nil || isRefusal(err) {
			return clusterKey, err
		}
		if said != err.Error() {
			said = err.Error()
			logger.WarnContext(ctx, "not enrolled in the cluster yet; trying again", "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("join the cluster: %w", err)
		case <-timer.C:
		}
	}
}

// enrolment returns the request of a machine that joins.
func (c *Credentials) enrolment(j transport.Join, name string) (e enrolment, err error) {
	if j.Outside != nil {
		e = enrolment{tls: j.Outside, name: name}
		e.proof, err = c.proof()
		return e, err
	}
	own, err := c.selfSigned(time.Now())
	pins := []transport.Pin{*j.Authority}
	return enrolment{
		token: j.Token, name: name,
		tls: transport.ClientTLS(RoleLeader, func() []transport.Pin { return pins }, func() *tls.Certificate { return own }),
	}, err
}

// Of reports whether the machine is enrolled in the cluster of a join string; or, without one, in any.
func (c *Credentials) Of(j transport.Join) bool {
	if j.Outside != nil {
		return c.Enrolled()
	}
	return slices.ContainsFunc(slices.Concat(c.Authorities(), c.Chain()), func(a *x509.Certificate) bool { return transport.PinOf(a) == *j.Authority })
}

// isRefusal reports whether a leader has decided that the machine may not join.
func isRefusal(err error) bool {
	p, ok := errors.AsType[*api.Problem](err)
	return ok && p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests
}

// Renew obtains a certificate in exchange for the present one, from the first leader that answers.
func (c *Credentials) Renew(ctx context.Context, leaders []string) error {
	_, err := c.request(ctx, enrolment{tls: transport.ClientTLS(RoleLeader, c.Pins, c.Certificate)}, leaders)
	return err
}

// ClusterKey tells another leader that this one has renewed its certificate, which it does by itself, and returns the cluster key.
func (c *Credentials) ClusterKey(ctx context.Context, leaders []string) ([]byte, error) {
	answer, err := c.ask(ctx, enrolment{tls: transport.ClientTLS(RoleLeader, c.Pins, c.Certificate)}, leaders)
	return answer.ClusterKey, err
}

// KeepRenewed renews the certificate after half of its life, each time, until ctx is done.
func (c *Credentials) KeepRenewed(ctx context.Context, leaders func() []string, logger *slog.Logger) {
	var wait time.Duration
	for due := c.RenewAt(); ; {
		timer := time.NewTimer(max(wait, time.Until(due)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.outdated:
			timer.Stop()
			due = time.Now()
		case <-timer.C:
		}
		err := c.Renew(ctx, leaders())
		if err == nil {
			wait, due = 0, c.RenewAt()
			logger.InfoContext(ctx, "certificate renewed", "valid_until", c.Certificate().Leaf.NotAfter)
			continue
		}
		if wait == 0 {
			logger.WarnContext(ctx, "certificate not renewed yet; trying again", "valid_until", c.Certificate().Leaf.NotAfter, "error", err)
		}
		wait = min(max(2*wait, enrollBackOffMin), time.Minute)
	}
}

// selfSigned returns a certificate that proves the key and says nothing else.
func (c *Credentials) selfSigned(now time.Time) (*tls.Certificate, error) {
	template := certificate(now, clockSkew)
	raw, err := x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: c.key}, nil
}

// enrolment is a request for a certificate.
type enrolment struct {
	tls         *tls.Config
	token, name string // empty in a renewal
	proof       []byte // of the key, if the connection proves something else
}

// isForeign reports whether a server is not of the cluster.
func isForeign(err error) bool {
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	return authority || host || errors.Is(err, transport.ErrOtherAuthority) || errors.Is(err, transport.ErrNotTLS)
}

// request asks leaders in turn for a certificate, and saves it. If none issues one, the error is a refusal if there is one: one of the others may
// not answer, and the one that has refused may not know the latest tokens, but not for long.
func (c *Credentials) request(ctx context.Context, e enrolment, leaders []string) (clusterKey []byte, err error) {
	answer, err := c.ask(ctx, e, leaders)
	if err != nil {
		return nil, err
	}
	return answer.ClusterKey, c.accept(answer)
}

// ask asks leaders in turn for a certificate.
func (c *Credentials) ask(ctx context.Context, e enrolment, leaders []string) (answer api.Certificate, err error) {
	t := transport.NewHTTPS(e.tls)
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t, Timeout: enrollTime, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > len(leaders)+1 || r.URL.Scheme != "https" {
			return errors.New("the leaders redirect to each other")
		}
		e.authorize(r) // the leader that is named has the same authority
		return nil
	}}
	err = errors.New("no address of a leader is known")
	foreign := 0
	for _, address := range leaders {
		answer, failed := e.post(ctx, client, address)
		if failed == nil {
			return answer, nil
		}
		if isForeign(failed) {
			foreign++
		}
		if !isRefusal(err) {
			err = failed
		}
	}
	if foreign > 0 && foreign == len(leaders) {
		err = api.NewProblem(http.StatusUnauthorized, "%v: the machine joins by a string that was made by this cluster, with 'bridgefour token create', or "+
			"with --tls-ca FILE of the authority of its leaders, at a name in their certificates", err)
	}
	return api.Certificate{}, err
}

func (e enrolment) authorize(r *http.Request) {
	if e.token != "" {
		r.Header.Set("Authorization", "Bearer "+e.token)
	}
}

func (e enrolment) post(ctx context.Context, client *http.Client, address string) (answer api.Certificate, err error) {
	body, err := json.Marshal(api.CertificateRequest{Name: e.name, Request: e.proof})
	if err != nil {
		return answer, err
	}
	u := url.URL{Scheme: "https", Host: address, Path: CertificatesPath}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer, fmt.Errorf("invalid address %q of a leader: %w", address, err)
	}
	r.Header.Set("Content-Type", "application/json")
	e.authorize(r)
	resp, err := client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // it names the address
		}
		return answer, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return answer, fmt.Errorf("leader at %s: %w", address, err)
	}
	if resp.StatusCode/100 != 2 {
		p := &api.Problem{}
		if json.Unmarshal(text, p) != nil || p.Status == 0 {
			p = api.NewProblem(resp.StatusCode, "%s is no leader: it answered %s", address, resp.Status)
		}
		return answer, p
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return answer, fmt.Errorf("invalid answer of the leader at %s: %w", address, err)
	}
	return answer, nil
}

// accept saves what a leader has issued.
func (c *Credentials) accept(answer api.Certificate) error {
	var chain []*x509.Certificate
	var pins []transport.Pin
	for _, der := range slices.Concat([][]byte{answer.Certificate}, answer.Authorities) {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("invalid certificate in the answer of the leader: %w", err)
		}
		chain, pins = append(chain, parsed), append(pins, transport.PinOf(parsed))
	}
	leaf, authorities := chain[0], chain[1:]
	if err := transport.Verify(chain, pins[1:], x509.ExtKeyUsageClientAuth, time.Now()); err != nil {
		return fmt.Errorf("the leader has issued a certificate that cannot be used: %w", err)
	}
	var older []*x509.Certificate // a string that was given long ago may name one
	for _, a := range slices.Concat(c.Chain(), c.Authorities()) {
		if !slices.ContainsFunc(slices.Concat(authorities, older), a.Equal) && len(older) < olderMax {
			older = append(older, a)
		}
	}
	return c.Set(leaf, authorities, older)
}
