package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/transport"
)

const dnsTimeout = 5 * time.Second // of all queries together

// Names of the SRV records.
const (
	srvService = "bridgefour"
	srvProto   = "tcp"
)

// DNS queries the DNS: for a name that starts with "_" its SRV records; for NAME:PORT the addresses of NAME; for any other name
// the SRV records _bridgefour._tcp.NAME or, if there are none, the addresses of NAME with the default port. A nil resolver is
// the system's.
func DNS(name string, resolver *net.Resolver) (Source, error) {
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		host, port = name, ""
	}
	if host == "" || strings.ContainsAny(host, " \t/:@,") {
		return nil, errors.New("invalid name: want the name of a host or of SRV records")
	}
	if _, err := strconv.ParseUint(port, 10, 16); port != "" && err != nil {
		return nil, fmt.Errorf("invalid port %q", port)
	}
	return func(ctx context.Context, _ string) ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
		defer cancel()
		switch {
		case port != "":
			return lookupHost(ctx, resolver, host, port)
		case strings.HasPrefix(host, "_"):
			return lookupSRV(ctx, resolver, "", "", host)
		}
		addresses, err := lookupSRV(ctx, resolver, srvService, srvProto, host)
		if len(addresses) > 0 {
			return addresses, nil
		}
		byHost, hostErr := lookupHost(ctx, resolver, host, transport.DefaultPort)
		if len(byHost) > 0 {
			return byHost, nil
		}
		return nil, errors.Join(err, hostErr)
	}, nil
}

// lookupSRV returns the targets, best first. They are names, and resolved at each dial, because their addresses may change.
func lookupSRV(ctx context.Context, r *net.Resolver, service, proto, name string) ([]string, error) {
	_, records, err := r.LookupSRV(ctx, service, proto, name) // returns the valid records beside an error about invalid ones
	var addresses []string
	for _, rec := range records {
		target := strings.TrimSuffix(rec.Target, ".")
		if target == "" || rec.Port == 0 || len(addresses) == addressesMax { // ".": no such service
			continue
		}
		addresses = append(addresses, net.JoinHostPort(target, strconv.Itoa(int(rec.Port))))
	}
	if len(addresses) > 0 {
		return addresses, nil
	}
	if service != "" {
		name = "_" + service + "._" + proto + "." + name
	}
	return nil, fmt.Errorf("no SRV records of %s: %w", name, plainDNS(err))
}

func lookupHost(ctx context.Context, r *net.Resolver, host, port string) ([]string, error) {
	ips, err := r.LookupHost(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("no address of %s: %w", host, plainDNS(err))
	}
	var addresses []string
	for _, ip := range ips[:min(len(ips), addressesMax)] {
		addresses = append(addresses, net.JoinHostPort(ip, port))
	}
	return addresses, nil
}

var (
	errNoSuchName = errors.New("not found")
	errNoAnswer   = errors.New("no answer of the DNS server")
)

// plainDNS removes what differs each time, such as the local port.
func plainDNS(err error) error {
	var dnsErr *net.DNSError
	switch {
	case err == nil, errors.As(err, &dnsErr) && dnsErr.IsNotFound:
		return errNoSuchName
	case errors.As(err, &dnsErr) && (dnsErr.IsTimeout || dnsErr.IsTemporary):
		return errNoAnswer
	}
	return err
}
