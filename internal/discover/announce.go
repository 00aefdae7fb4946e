package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/mdns"
)

const refreshEvery = 5 * time.Second // interfaces come, go, and change their addresses

// loopback says whether only this machine can reach an address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	host, _, _ = strings.Cut(host, "%")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}

// Announce answers those who look for nodes on the networks of this machine, until ctx ends. A node that only this machine can
// reach is not announced. Where there is no multicast, it says so once and tries again when the interfaces change.
func Announce(ctx context.Context, a Announcement, logger *slog.Logger) {
	if loopback(a.Address) {
		return
	}
	zone, err := newZone(a)
	if err != nil {
		logger.WarnContext(ctx, "not announced on the network", "address", a.Address, "error", err)
		return
	}
	var servers []*mdns.Server
	var seen []string
	said := false
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	for first := true; ; first = false {
		if ifs, err := interfaces(); first || err != nil || !slices.Equal(ifs.keys, seen) {
			stop(servers)
			servers, err = serve(zone, ifs.list, err, logger)
			seen = ifs.keys
			if err != nil && !said {
				said = true
				logger.WarnContext(ctx, "not announced on the network: no multicast; name addresses to whom should find this node",
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

// serve answers on each interface; an error only where it can on none.
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
		_ = s.Shutdown() // gives no error
	}
}

// networks is the interfaces to use, and what is compared to see that they have changed.
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
			continue // it has gone, or nobody can be reached by it
		}
		n.list = append(n.list, ifi)
		n.keys = append(n.keys, fmt.Sprint(ifi.Index, ifi.Name, addrs))
	}
	return n, nil
}
