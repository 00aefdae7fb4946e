package access

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// rolePrefix begins the O (organization) in the subject of an outside certificate that gives it a role, as bridgefour:submit. An authority
// that certifies other things, too, does not use it by chance.
const rolePrefix = "bridgefour:"

// RoleOutside is the role of outside certificates among the enrolled keys: only those that are revoked are there.
const RoleOutside = "outside certificate"

// outsideNameMax bounds the name of a user, as that of a token's.
const outsideNameMax = 100

// outsider returns the principal of an outside certificate, with which chain begins. It is verified with each request: the authorities may
// have changed, and it may have expired.
func (p *Policy) outsider(chain []*x509.Certificate, now time.Time) (Principal, error) {
	if err := transport.VerifyClient(chain, p.outside(), now); err != nil {
		return Principal{}, api.NewProblem(http.StatusUnauthorized, "certificate not accepted: %v", err)
	}
	if p.current != nil && !p.current() {
		return Principal{}, api.Unavailable("the certificate cannot be checked yet: this leader has started, and not heard from a majority of the leaders since which " +
			"were revoked: try again in a moment, or at another leader; on its machine, its user needs no certificate")
	}
	leaf := chain[0]
	who := Principal{Name: leaf.Subject.CommonName, Outside: Fingerprint(leaf), Expires: leaf.NotAfter}
	if err := p.revoked(who); err != nil {
		return who, err
	}
	roles := slices.DeleteFunc(slices.Clone(leaf.Subject.Organization), func(o string) bool { return !strings.HasPrefix(o, rolePrefix) })
	if len(roles) != 1 {
		return who, api.NewProblem(http.StatusForbidden, "not allowed: the subject of the certificate gives %d roles: want one O=%sROLE, with a role of %s",
			len(roles), rolePrefix, strings.Join(Roles, ", "))
	}
	role := strings.TrimPrefix(roles[0], rolePrefix)
	if err := CheckRole(role); err != nil {
		return who, api.NewProblem(http.StatusForbidden, "not allowed: the subject of the certificate, O=%.100s: %v", roles[0], err)
	}
	if who.Name == "" && !IsMachine(role) || len(who.Name) > outsideNameMax || !IsPrintable(who.Name) {
		return who, api.NewProblem(http.StatusForbidden, "not allowed: the subject of the certificate needs a CN, the name of the user, of up to %d printable bytes", outsideNameMax)
	}
	who.Role, who.Permissions = role, permissionsOf(role)
	if IsMachine(role) {
		who.Permissions = Enroll // the rest needs a certificate of the cluster
	}
	return who, nil
}

// IsPrintable reports whether a name can be shown in a line.
func IsPrintable(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar })
}

// proof returns a request for a certificate (PKCS #10), which proves the key of the machine to a server of which the connection proves something else.
func (c *Credentials) proof() ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, c.key)
}

// ProvenKey returns the key that a request for a certificate proves, and its fingerprint.
func ProvenKey(request []byte) (key crypto.PublicKey, identity string, err error) {
	r, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, "", api.Invalid("validation failed").With("body.request", "want a request for a certificate (PKCS #10): "+err.Error(), "")
	}
	return r.PublicKey, fingerprint(r.RawSubjectPublicKeyInfo), nil
}
