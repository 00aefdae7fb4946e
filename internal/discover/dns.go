package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

const dnsTime = 5 * time.Second // for all that is asked at once

// Names of the SRV records.
const (
	srvService = "bridgefour"
	srvProto   = "tcp"
)

// DNS gives what the DNS knows: for a name that begins with "_" its SRV records; for NAME:PORT the addresses of NAME; for any
// other name the SRV records _bridgefour._tcp.NAME, and where there are none the addresses of NAME with the default port.
// A nil resolver is the system's.
func DNS(name string, resolver *net.Resolver) (Source, error) {
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		host, port = name, ""
	}
	if host == "" || strings.ContainsAny(host, " \t/:@,") {
		return nil, errors.New("expected the name of a host or of SRV records")
	}
	if _, err := strconv.ParseUint(port, 10, 16); port != "" && err != nil {
		return nil, fmt.Errorf("%q is no port", port)
	}
	return func(ctx context.Context, _ string) ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, dnsTime)
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
		byHost, hostErr := lookupHost(ctx, resolver, host, DefaultPort)
		if len(byHost) > 0 {
			return byHost, nil
		}
		return nil, errors.Join(err, hostErr)
	}, nil
}

// lookupSRV gives targets best first. They stay names: whoever dials looks them up each time, so that they may move.
func lookupSRV(ctx context.Context, r *net.Resolver, service, proto, name string) ([]string, error) {
	_, records, err := r.LookupSRV(ctx, service, proto, name) // gives the good records beside an error about bad ones
	var addresses []string
	for _, rec := range records {
		target := strings.TrimSuffix(rec.Target, ".")
		if target == "" || rec.Port == 0 || len(addresses) == addressesMax { // "." says: no such service here
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
	errNoSuchName = errors.New("the DNS does not know it")
	errNoAnswer   = errors.New("the DNS does not answer")
)

// plainDNS leaves out what changes from try to try, such as the port that was asked from.
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
