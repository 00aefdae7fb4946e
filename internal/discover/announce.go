package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/mdns"

	"github.com/bridgefour/bridgefour/internal/transport"
)

const refreshEvery = 5 * time.Second // interfaces and their addresses change

// local reports whether an address is of use on this machine only.
func local(address string) bool {
	return transport.IsLoopback(address) || transport.IsUnspecified(address)
}

// Announce answers queries for nodes on the networks of this machine until ctx ends. A node with a loopback address is not
// announced. Without multicast it logs so once, and tries again when the interfaces change.
func Announce(ctx context.Context, a Announcement, logger *slog.Logger) {
	if local(a.Address) {
		return
	}
	zone, err := newZone(a)
	if err != nil {
		logger.WarnContext(ctx, "multicast announcement unavailable", "address", a.Address, "error", err)
		return
	}
	var servers []*mdns.Server
	var seen []string
	warned := false
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	for first := true; ; first = false {
		if ifs, err := interfaces(); first || err != nil || !slices.Equal(ifs.keys, seen) {
			stop(servers)
			servers, err = serve(zone, ifs.list, err, logger)
			seen = ifs.keys
			if err != nil && !warned {
				warned = true
				logger.WarnContext(ctx, "multicast announcement unavailable; configure this node's address where it is needed",
					"address", a.Address, "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			stop(servers)
			return
		}
	}
}

// serve answers on each interface. It returns an error if it can on none.
func serve(zone mdns.Zone, ifs []net.Interface, err error, logger *slog.Logger) ([]*mdns.Server, error) {
	if err == nil && len(ifs) == 0 {
		err = errors.New("no interface with multicast is up")
	}
	var servers []*mdns.Server
	for _, ifi := range ifs {
		s, serveErr := mdns.NewServer(&mdns.Config{Zone: zone, Iface: &ifi, Logger: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)})
		if serveErr != nil {
			err = serveErr
			continue
		}
		servers = append(servers, s)
	}
	if len(servers) > 0 {
		return servers, nil
	}
	return nil, err
}

func stop(servers []*mdns.Server) {
	for _, s := range servers {
		_ = s.Shutdown() // never fails
	}
}

// networks is the interfaces to use, and keys that differ when they have changed.
type networks struct {
	list []net.Interface
	keys []string
}

func interfaces() (networks, error) {
	all, err := net.Interfaces()
	if err != nil {
		return networks{}, fmt.Errorf("list network interfaces: %w", err)
	}
	var n networks
	for _, ifi := range all {
		const need = net.FlagUp | net.FlagMulticast
		if ifi.Flags&need != need || ifi.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil || len(addrs) == 0 {
			continue // it is gone, or has no address
		}
		n.list = append(n.list, ifi)
		n.keys = append(n.keys, fmt.Sprint(ifi.Index, ifi.Name, addrs))
	}
	return n, nil
}
