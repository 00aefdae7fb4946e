package server

import (
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// ParseJoin parses the --join of a machine: a string, or addresses of leaders, which the machine joins by the files of an outside authority. Of a
// leader they can also be addresses whose connections are not encrypted: the result has no authority then.
func ParseJoin(text, role string, f transport.Files) (j transport.Join, err error) {
	outside := f.Authority != "" || strings.Contains(text, transport.SchemeTLS+"://")
	if transport.IsJoin(text) || !outside && role != access.RoleLeader {
		return transport.ParseJoin(text)
	}
	if outside && f.Certificate == "" {
		return j, fmt.Errorf("to join without a string, give --tls-cert and --tls-key too: a certificate whose subject has O=bridgefour:%s", role)
	}
	if j.Addresses, err = transport.ParseDialList(strings.ReplaceAll(text, transport.SchemeTLS+"://", "")); err == nil && outside {
		j.Outside, err = f.ClientTLS()
	}
	return j, err
}

// Encryption returns that of a worker's listener, by the credentials of the worker or else by files of an outside authority; nil: it has neither.
func Encryption(files transport.Files, credentials *access.Credentials) (*access.Encryption, error) {
	var own, outside func() *tls.Certificate
	pins := func() []transport.Pin { return nil }
	if files.Certificate != "" {
		var err error
		if outside, err = transport.CertificateFiles(files.Certificate, files.Key); err != nil {
			return nil, err
		}
		own = outside
	}
	if credentials != nil {
		own, pins = credentials.Certificate, credentials.Pins
	}
	if own == nil {
		return nil, nil //nolint:nilnil // it is optional
	}
	return &access.Encryption{Config: transport.ServerTLS(own, outside, nil), Authorities: pins}, nil
}
