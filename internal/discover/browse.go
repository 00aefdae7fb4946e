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
	browseTime   = 800 * time.Millisecond // answers come within 120 ms, except on a busy or lossy network
	resendAfter  = 250 * time.Millisecond
	watchEvery   = 10 * time.Second
	mdnsPort     = 5353
	packetMax    = 9000 // bytes of an answer, by RFC 6762
	nodesMax     = 1024
	unicastClass = 1 << 15 // bit in a question's class: answer by unicast
)

// Node is a node that has answered.
type Node struct {
	Announcement
	// Addresses are candidates, best first: the announced IP address, or else the source of the answer and then the announced
	// name, which this machine may be unable to resolve.
	Addresses []string
}

// Watch browses repeatedly until ctx ends, and calls found with the nodes of each time. A failure is logged once.
func Watch(ctx context.Context, role Role, logger *slog.Logger, found func([]Node)) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	warned := false
	for {
		nodes, err := Browse(ctx, role, logger)
		if err != nil && ctx.Err() == nil && !warned {
			warned = true
			logger.InfoContext(ctx, "multicast discovery unavailable", "role", role, "error", err)
		}
		found(nodes)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Browse queries the networks of this machine for nodes of a role, and returns those that answer within a second, in order of
// their IDs. An error means that no query could be sent.
func Browse(ctx context.Context, role Role, logger *slog.Logger) ([]Node, error) {
	ifs, err := interfaces()
	if err != nil {
		return nil, err
	}
	if len(ifs.list) == 0 {
		return nil, errors.New("multicast discovery unavailable: no multicast interface is up")
	}
	ctx, cancel := context.WithTimeout(ctx, browseTime)
	defer cancel()
	// Each socket belongs to a goroutine of its own.
	answers := &answers{role: role, nodes: map[string]Node{}}
	var group sync.WaitGroup
	var first error
	sent := 0
	for _, ifi := range ifs.list {
		for _, open := range []func(net.Interface) (*querier, error){openIPv4, openIPv6} {
			q, err := open(ifi)
			if err == nil {
				err = q.send()
				if err != nil {
					err = errors.Join(err, q.conn.Close())
				}
			}
			if err != nil {
				logger.DebugContext(ctx, "multicast query not sent", "interface", ifi.Name, "error", err)
				first = cmp.Or(first, err)
				continue
			}
			sent++
			group.Go(func() { q.run(ctx, answers) })
		}
	}
	group.Wait()
	if sent == 0 {
		return nil, fmt.Errorf("multicast discovery unavailable: %w", plainNet(first))
	}
	return answers.sorted(), nil
}

// plainNet removes the addresses from an error: their ports differ each time.
func plainNet(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// querier sends queries on one interface, by one version of IP.
type querier struct {
	conn *net.UDPConn
	to   *net.UDPAddr
}

func openIPv4(ifi net.Interface) (*querier, error) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	if err := ipv4.NewPacketConn(conn).SetMulticastInterface(&ifi); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &querier{conn, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}}, nil
}

func openIPv6(ifi net.Interface) (*querier, error) {
	conn, err := net.ListenUDP("udp6", nil)
	if err != nil {
		return nil, err
	}
	return &querier{conn, &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort, Zone: ifi.Name}}, nil
}

func (q *querier) send() error {
	m := new(dns.Msg)
	m.SetQuestion(serviceName, dns.TypePTR)
	m.RecursionDesired = false
	m.Question[0].Qclass |= unicastClass
	packet, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = q.conn.WriteToUDP(packet, q.to)
	return err
}

// run receives answers until ctx ends, and repeats the query for those that were lost.
func (q *querier) run(ctx context.Context, answers *answers) {
	end := context.AfterFunc(ctx, func() { _ = q.conn.Close() })
	defer end()
	defer q.conn.Close() //nolint:errcheck // it may be closed already
	packet := make([]byte, packetMax)
	for ctx.Err() == nil {
		if err := q.conn.SetReadDeadline(time.Now().Add(resendAfter)); err != nil {
			return
		}
		n, from, err := q.conn.ReadFromUDP(packet)
		var timeout net.Error
		switch {
		case err == nil:
			answers.read(packet[:n], from)
		case !errors.As(err, &timeout) || !timeout.Timeout():
			return // the interface is gone, or ctx has ended
		case q.send() != nil:
			return
		}
	}
}

// answers is the nodes that have answered.
type answers struct {
	role Role

	mu    sync.Mutex
	nodes map[string]Node // by cluster and ID
}

// read reads one answer. Invalid ones are ignored.
func (a *answers) read(packet []byte, from *net.UDPAddr) {
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
		node, ok := parseTexts(unescaped(text.Txt))
		if !ok || node.Role != a.role || local(node.Address) {
			continue
		}
		a.add(Node{node, candidates(node.Address, from)})
	}
}

// candidates is the candidate addresses of a node with an announced address and the source of its answer.
func candidates(address string, from *net.UDPAddr) []string {
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

// add adds a node, or the addresses of another answer of it.
func (a *answers) add(n Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := n.ClusterID + "/" + n.ID
	old, known := a.nodes[key]
	if !known && len(a.nodes) == nodesMax {
		return
	}
	for _, a := range old.Addresses {
		if !slices.Contains(n.Addresses, a) && len(n.Addresses) < addressesMax {
			n.Addresses = append(n.Addresses, a)
		}
	}
	slices.SortFunc(n.Addresses, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	a.nodes[key] = n
}

// rank orders the addresses of a node: IPv4, which works if it listens on 0.0.0.0, IPv6, then names.
func rank(address string) int {
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

func (a *answers) sorted() []Node {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]Node, 0, len(a.nodes))
	for _, n := range a.nodes {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.ClusterID, b.ClusterID))
	})
	return list
}
