package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/internal/transport"
)

const (
	// Local is the leader that [Parse] tries first for "auto": one that was started without flags.
	Local = "127.0.0.1:" + transport.DefaultPort

	addressesMax = 64 // of one source
)

// Source searches for leaders of a cluster, or of any if clusterID is empty. It may return both addresses and an error. The text
// of the error is the same as long as its cause is.
type Source func(ctx context.Context, clusterID string) ([]string, error)

// Any queries all sources at once, and returns the addresses in the order of the sources.
func Any(sources ...Source) Source {
	return func(ctx context.Context, clusterID string) ([]string, error) {
		type answer struct {
			addresses []string
			err       error
		}
		answers := make([]chan answer, len(sources))
		for i, source := range sources {
			answers[i] = make(chan answer, 1)
			go func() {
				addresses, err := source(ctx, clusterID)
				answers[i] <- answer{addresses, err}
			}()
		}
		var all []string
		var errs []error
		for _, ch := range answers {
			a := <-ch
			errs = append(errs, a.err)
			for _, address := range a.addresses {
				if !slices.Contains(all, address) {
					all = append(all, address)
				}
			}
		}
		return all, errors.Join(errs...)
	}
}

// Choice is the configuration of a worker's search for leaders.
type Choice struct {
	Leaders []string // fixed, as host:port
	Source  Source   // nil: no search
}

// Parse parses the value of --leader, a list separated by commas of:
//
//	HOST[:PORT]  a leader
//	unix:PATH    a leader on this machine, by its socket
//	auto         a leader on this machine at the default port, and those that answer on the network
//	dns:NAME     the SRV records _bridgefour._tcp.NAME, or else the addresses of NAME; with NAME:PORT those alone
//	_SRV.NAME    the SRV records of exactly that name
//	wait         alone: the worker waits for an invitation
func Parse(list, clusterName string, logger *slog.Logger) (Choice, error) {
	if strings.TrimSpace(list) == "wait" {
		return Choice{}, nil
	}
	var c Choice
	var sources []Source
	for element := range strings.SplitSeq(list, ",") {
		element = strings.TrimSpace(element)
		name, isDNS := strings.CutPrefix(element, "dns:")
		switch {
		case element == "wait":
			return c, fmt.Errorf("%q: wait must be the only element", list)
		case element == "auto":
			c.Leaders = append(c.Leaders, Local)
			sources = append(sources, Multicast(clusterName, logger))
		case isDNS, strings.HasPrefix(element, "_"):
			source, err := DNS(name, nil)
			if err != nil {
				return c, fmt.Errorf("%q: %w", element, err)
			}
			sources = append(sources, source)
		default:
			address, err := transport.ParseDial(element)
			if err != nil {
				return c, err
			}
			c.Leaders = append(c.Leaders, address)
		}
	}
	if len(sources) > 0 {
		c.Source = Any(sources...)
	}
	return c, nil
}
