package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
)

const (
	browseTime   = 800 * time.Millisecond // answers come within 120 ms, but for a busy or a lossy network
	askAgain     = 250 * time.Millisecond
	watchEvery   = 10 * time.Second
	mdnsPort     = 5353
	packetMax    = 9000 // bytes of an answer, by RFC 6762
	nodesMax     = 1024
	unicastWords = 1 << 15 // in a question's class: answer me alone
)

// Node is one that has answered.
type Node struct {
	Announcement
	// Addresses are where it may be reached, best first: an IP address that it names, or else where its answer came from and then
	// its name, which this machine may not know.
	Addresses []string
}

// Watch browses again and again until ctx ends, and gives found who has answered each time. It says once that nobody can be asked.
func Watch(ctx context.Context, role Role, logger *slog.Logger, found func([]Node)) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	said := false
	for {
		nodes, err := Browse(ctx, role, logger)
		if err != nil && ctx.Err() == nil && !said {
			said = true
			logger.InfoContext(ctx, "nobody is found on the network", "role", role, "error", err)
		}
		found(nodes)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Browse asks the networks of this machine for nodes of a role, and gives who answers within a second, in order of their IDs.
// An error says that nobody could be asked.
func Browse(ctx context.Context, role Role, logger *slog.Logger) ([]Node, error) {
	ifs, err := interfaces()
	if err != nil {
		return nil, err
	}
	if len(ifs.list) == 0 {
		return nil, errors.New("cannot look around by multicast: no interface with multicast is up")
	}
	ctx, cancel := context.WithTimeout(ctx, browseTime)
	defer cancel()
	// The sockets are made here, and used by goroutines: one each, which owns its socket.
	heard := &hearing{role: role, nodes: map[string]Node{}}
	var group sync.WaitGroup
	var first error
	asked := 0
	for _, ifi := range ifs.list {
		for _, open := range []func(net.Interface) (*asker, error){openIPv4, openIPv6} {
			a, err := open(ifi)
			if err == nil {
				err = a.ask()
				if err != nil {
					err = errors.Join(err, a.conn.Close())
				}
			}
			if err != nil {
				logger.DebugContext(ctx, "not asked by multicast", "interface", ifi.Name, "error", err)
				first = cmp.Or(first, err)
				continue
			}
			asked++
			group.Go(func() { a.run(ctx, heard) })
		}
	}
	group.Wait()
	if asked == 0 {
		return nil, fmt.Errorf("cannot look around by multicast: %w", plainNet(first))
	}
	return heard.sorted(), nil
}

// plainNet leaves the addresses out: their ports change from try to try.
func plainNet(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// asker asks on one interface, by one version of IP.
type asker struct {
	conn *net.UDPConn
	to   *net.UDPAddr
}

func openIPv4(ifi net.Interface) (*asker, error) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	if err := ipv4.NewPacketConn(conn).SetMulticastInterface(&ifi); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &asker{conn, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}}, nil
}

func openIPv6(ifi net.Interface) (*asker, error) {
	conn, err := net.ListenUDP("udp6", nil)
	if err != nil {
		return nil, err
	}
	return &asker{conn, &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort, Zone: ifi.Name}}, nil
}

func (a *asker) ask() error {
	m := new(dns.Msg)
	m.SetQuestion(serviceName, dns.TypePTR)
	m.RecursionDesired = false
	m.Question[0].Qclass |= unicastWords
	packet, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = a.conn.WriteToUDP(packet, a.to)
	return err
}

// run hears answers until ctx ends, and asks again for those that were lost.
func (a *asker) run(ctx context.Context, heard *hearing) {
	end := context.AfterFunc(ctx, func() { _ = a.conn.Close() })
	defer end()
	defer a.conn.Close() //nolint:errcheck // it may be closed already; nothing is lost either way
	packet := make([]byte, packetMax)
	for ctx.Err() == nil {
		if err := a.conn.SetReadDeadline(time.Now().Add(askAgain)); err != nil {
			return
		}
		n, from, err := a.conn.ReadFromUDP(packet)
		var timeout net.Error
		switch {
		case err == nil:
			heard.take(packet[:n], from)
		case !errors.As(err, &timeout) || !timeout.Timeout():
			return // the interface has gone, or ctx has ended
		case a.ask() != nil:
			return
		}
	}
}

// hearing gathers answers.
type hearing struct {
	role Role

	mu    sync.Mutex
	nodes map[string]Node // by cluster and ID
}

// take reads one answer, of whoever: what makes no sense is passed over.
func (h *hearing) take(packet []byte, from *net.UDPAddr) {
	var m dns.Msg
	if m.Unpack(packet) != nil || !m.Response {
		return
	}
	ours := map[string]bool{} // instances of the service
	for _, rr := range m.Answer {
		if ptr, ok := rr.(*dns.PTR); ok && equalName(ptr.Hdr.Name, serviceName) {
			ours[dns.CanonicalName(ptr.Ptr)] = true
		}
	}
	for _, rr := range slices.Concat(m.Answer, m.Extra) {
		text, ok := rr.(*dns.TXT)
		if !ok || !ours[dns.CanonicalName(text.Hdr.Name)] {
			continue
		}
		a, ok := parseTexts(unescaped(text.Txt))
		if !ok || a.Role != h.role || loopback(a.Address) {
			continue
		}
		h.add(Node{a, reachable(a.Address, from)})
	}
}

// reachable is where to try a node that goes by address and has answered from there.
func reachable(address string, from *net.UDPAddr) []string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	if net.ParseIP(host) != nil {
		return []string{address}
	}
	ip := from.IP.String()
	if from.Zone != "" {
		ip += "%" + from.Zone
	}
	return []string{net.JoinHostPort(ip, port), address}
}

// add takes a node; one that answers by several ways is reached by any of them.
func (h *hearing) add(n Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := n.ClusterID + "/" + n.ID
	old, known := h.nodes[key]
	if !known && len(h.nodes) == nodesMax {
		return
	}
	for _, a := range old.Addresses {
		if !slices.Contains(n.Addresses, a) && len(n.Addresses) < addressesMax {
			n.Addresses = append(n.Addresses, a)
		}
	}
	slices.SortFunc(n.Addresses, func(a, b string) int {
		return cmp.Or(cmp.Compare(worth(a), worth(b)), cmp.Compare(a, b))
	})
	h.nodes[key] = n
}

// worth orders the ways to a node: IPv4, which works where a leader listens on 0.0.0.0, IPv6, then a name.
func worth(address string) int {
	host, _, err := net.SplitHostPort(address)
	host, _, _ = strings.Cut(host, "%")
	ip := net.ParseIP(host)
	switch {
	case err != nil || ip == nil:
		return 2
	case ip.To4() == nil:
		return 1
	}
	return 0
}

func (h *hearing) sorted() []Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]Node, 0, len(h.nodes))
	for _, n := range h.nodes {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.ClusterID, b.ClusterID))
	})
	return list
}
