package transport

import (
	"crypto/tls"
	"fmt"
	"regexp"
	"strings"
)

// Join is what a machine or a user needs to join a cluster. It is a secret.
type Join struct {
	Addresses []string // of leaders, host:port
	Authority *Pin     // nil: the connection is not encrypted, or Outside
	Token     string
	// Outside, of a machine, replaces authority and token: it connects to servers of an outside authority, and presents a certificate that gives the role.
	Outside *tls.Config
}

const (
	joinPrefix       = "b4:"
	joinAddressesMax = 16
	tokenBytesMax    = 256
)

var tokenPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// IsJoin reports whether text is a join string, and not an address.
func IsJoin(text string) bool {
	return strings.HasPrefix(text, joinPrefix) && strings.Contains(text, "/")
}

// String returns the join string: b4:HOST:PORT,…/HASH/TOKEN.
func (j Join) String() string {
	hash := ""
	if j.Authority != nil {
		hash = j.Authority.String()
	}
	return joinPrefix + strings.Join(j.Addresses, ",") + "/" + hash + "/" + j.Token
}

// ParseJoin parses a join string. Its errors do not contain the text, which is a secret.
func ParseJoin(text string) (Join, error) {
	const want = "invalid join string: %s; want b4:HOST:PORT/HASH/TOKEN as \"bridgefour token create\" prints it, copied as a whole"
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), joinPrefix)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return Join{}, fmt.Errorf(want, "it does not have three parts")
	}
	j := Join{Addresses: strings.Split(parts[0], ","), Token: parts[2]}
	if len(j.Addresses) > joinAddressesMax {
		return Join{}, fmt.Errorf(want, fmt.Sprintf("it has more than %d addresses", joinAddressesMax))
	}
	for _, a := range j.Addresses {
		if err := CheckAddress(a); err != nil {
			return Join{}, fmt.Errorf(want, err)
		}
	}
	if parts[1] != "" {
		pin, err := ParsePin(parts[1])
		if err != nil {
			return Join{}, fmt.Errorf(want, err)
		}
		j.Authority = &pin
	}
	if !tokenPattern.MatchString(j.Token) || len(j.Token) > tokenBytesMax {
		return Join{}, fmt.Errorf(want, "the token is damaged, or missing")
	}
	return j, nil
}
