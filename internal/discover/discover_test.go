package discover

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/bridgefour/bridgefour/internal/transport"
)

func TestMain(m *testing.M) {
	if runAsHelper() {
		return
	}
	goleak.VerifyTestMain(m)
}

func TestParse(t *testing.T) {
	tests := []struct {
		in       string
		leaders  []string
		searches bool
		err      string
	}{
		{"a", []string{"a:6550"}, false, ""},
		{"a:1, http://b:2/", []string{"a:1", "b:2"}, false, ""},
		{"auto", []string{Local}, true, ""},
		{"a,auto", []string{"a:6550", Local}, true, ""},
		{"wait", nil, false, ""},
		{"dns:leaders.example", nil, true, ""},
		{"dns:leaders.example:7000", nil, true, ""},
		{"_b4._tcp.example", nil, true, ""},
		{"a,wait", nil, false, "wait must be the only element"},
		{"a,,b", nil, false, "empty address: want host:port"},
		{"", nil, false, "empty address"},
		{"dns:", nil, false, "invalid name"},
		{"dns:a b", nil, false, "invalid name"},
		{"dns:a:port", nil, false, "invalid port"},
	}
	for _, test := range tests {
		c, err := Parse(test.in, "", slog.New(slog.DiscardHandler))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("Parse(%q) = %v, want an error with %q", test.in, err, test.err)
			}
			continue
		}
		if err != nil || !slices.Equal(c.Leaders, test.leaders) || (c.Source != nil) != test.searches {
			t.Errorf("Parse(%q) = %+v, %v; want %v, and a source: %v", test.in, c, err, test.leaders, test.searches)
		}
	}
}

func TestAny(t *testing.T) {
	give := func(err error, addresses ...string) Source {
		return func(context.Context, string) ([]string, error) { return addresses, err }
	}
	bad, worse := errors.New("bad"), errors.New("worse")
	got, err := Any(give(nil, "a:1", "b:1"), give(bad), give(worse, "b:1", "c:1"))(t.Context(), "")
	if !slices.Equal(got, []string{"a:1", "b:1", "c:1"}) || !errors.Is(err, bad) || !errors.Is(err, worse) {
		t.Errorf("Any() = %v, %v; want all addresses and all errors", got, err)
	}
	if got, err := Any(give(nil))(t.Context(), ""); got != nil || err != nil {
		t.Errorf("Any() of nothing = %v, %v", got, err)
	}
}

// dnsServer answers with records, and ignores queries for silent.example.
func dnsServer(t *testing.T, records ...string) *net.Resolver {
	t.Helper()
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		name := q.Question[0].Name
		if strings.HasSuffix(name, "silent.example.") {
			return
		}
		m.Rcode = dns.RcodeNameError
		for _, rr := range all {
			if equalName(rr.Header().Name, name) {
				m.Rcode = dns.RcodeSuccess
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		_ = w.WriteMsg(m) // the query is repeated
	})}
	served := make(chan struct{})
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(served)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-served
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestDNS(t *testing.T) {
	resolver := dnsServer(t,
		"_bridgefour._tcp.srv.example. 60 IN SRV 20 1 6551 second.example.",
		"_bridgefour._tcp.srv.example. 60 IN SRV 10 1 6550 first.example.",
		"srv.example. 60 IN A 192.0.2.99",
		"host.example. 60 IN A 192.0.2.1",
		"host.example. 60 IN A 192.0.2.2",
		"host.example. 60 IN AAAA 2001:db8::1",
		"_own._tcp.example. 60 IN SRV 1 1 7000 own.example.",
		"_bridgefour._tcp.none.example. 60 IN SRV 0 0 0 .",
		"_bridgefour._tcp.bad.example. 60 IN SRV 1 1 6550 bad!name.example.",
		"_bridgefour._tcp.bad.example. 60 IN SRV 1 1 6550 good.example.",
	)
	tests := []struct {
		name string
		want []string
		err  string
	}{
		{"srv.example", []string{"first.example:6550", "second.example:6551"}, ""},
		{"srv.example:80", []string{"192.0.2.99:80"}, ""},
		{"host.example", []string{"192.0.2.1:6550", "192.0.2.2:6550", "[2001:db8::1]:6550"}, ""},
		{"host.example:7", []string{"192.0.2.1:7", "192.0.2.2:7", "[2001:db8::1]:7"}, ""},
		{"_own._tcp.example", []string{"own.example:7000"}, ""},
		{"bad.example", []string{"good.example:6550"}, ""},
		{"none.example", nil, "no SRV records of _bridgefour._tcp.none.example"},
		{"nowhere.example", nil, "no address of nowhere.example: not found"},
		{"_no._tcp.example", nil, "no SRV records of _no._tcp.example: not found"},
	}
	for _, test := range tests {
		source, err := DNS(test.name, resolver)
		if err != nil {
			t.Fatalf("DNS(%q): %v", test.name, err)
		}
		got, err := source(t.Context(), "any")
		if !slices.Contains(test.want, "first.example:6550") { // ordered by priority
			slices.Sort(got)
		}
		if !slices.Equal(got, test.want) || test.err == "" && err != nil ||
			test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("DNS(%q) = %v, %v; want %v, %q", test.name, got, err, test.want, test.err)
		}
	}
	source, err := DNS("silent.example:1", resolver)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	if got, err := source(ctx, ""); got != nil || !errors.Is(err, errNoAnswer) {
		t.Errorf("DNS() without an answer = %v, %v; want %v", got, err, errNoAnswer)
	}
}

func leaderNode(id, cluster, name string, former ...string) Node {
	address := "10.0.0." + id + ":6550"
	return Node{Announcement{Role: Leader, ID: id, Address: address, ClusterID: cluster, ClusterName: name, Former: former}, []string{address}}
}

func TestChoose(t *testing.T) {
	a1, a2, b1, c1 := leaderNode("1", "a", "alpha"), leaderNode("2", "a", "alpha"), leaderNode("3", "b", "alpha"), leaderNode("4", "c", "gamma", "old")
	tests := []struct {
		what     string
		nodes    []Node
		name, id string
		want     []string
		err      string
	}{
		{"none", nil, "", "", nil, ""},
		{"one cluster", []Node{a1, a2}, "", "", []string{"10.0.0.1:6550", "10.0.0.2:6550"}, ""},
		{"two of one name", []Node{b1, a2, a1}, "alpha", "", nil, `several clusters answer on this network: "alpha" (id a, at 10.0.0.1:6550, ` +
			`10.0.0.2:6550) and "alpha" (id b, at 10.0.0.3:6550); choose one with --cluster-id, or with --leader`},
		{"two of any name", []Node{a1, c1}, "", "", nil, "several clusters"},
		{"the name says which", []Node{a1, c1}, "gamma", "", []string{"10.0.0.4:6550"}, ""},
		{"the id says which", []Node{a1, b1, c1}, "", "b", []string{"10.0.0.3:6550"}, ""},
		{"recovered under a new id", []Node{a1, c1}, "", "old", []string{"10.0.0.4:6550"}, ""},
		{"another name", []Node{a1}, "beta", "", nil, ""},
		{"another id", []Node{a1}, "alpha", "x", nil, ""},
	}
	var crowd []Node
	for i := range 200 {
		crowd = append(crowd, leaderNode(strconv.Itoa(i), strconv.Itoa(i%100), "alpha"))
	}
	if _, err := choose(crowd, "", ""); err == nil || !strings.Contains(err.Error(), " and 96 more; choose one") || len(err.Error()) > 1000 {
		t.Errorf("choose() among a hundred clusters = %v", err)
	}
	for _, test := range tests {
		got, err := choose(test.nodes, test.name, test.id)
		if !slices.Equal(got, test.want) || test.err == "" && err != nil ||
			test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: choose() = %v, %v; want %v, %q", test.what, got, err, test.want, test.err)
		}
	}
}

var someone = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: mdnsPort}

// answer is the packet with a zone's answer.
func answer(tb testing.TB, records []dns.RR) []byte {
	tb.Helper()
	m := &dns.Msg{Answer: records}
	m.Response = true
	packet, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return packet
}

func TestAnswers(t *testing.T) {
	good := Announcement{
		Role: Leader, ID: "1", Address: "10.0.0.1:6550", ClusterID: "3f2a", ClusterName: "Zürich \"7\" \\065", Former: []string{"0000"}, Version: "v1",
	}
	changed := func(change func(*Announcement)) Announcement {
		a := good
		change(&a)
		return a
	}
	tests := []struct {
		what string
		a    Announcement
		want []string // addresses; nil: ignored
	}{
		{"a leader", good, []string{"10.0.0.1:6550"}},
		{"one by name", changed(func(a *Announcement) { a.Address = "host.local:7" }), []string{"192.0.2.7:7", "host.local:7"}},
		{"one by IPv6", changed(func(a *Announcement) { a.Address = "[2001:db8::1]:7" }), []string{"[2001:db8::1]:7"}},
		{"a worker", changed(func(a *Announcement) { a.Role = Worker }), nil},
		{"a loopback address", changed(func(a *Announcement) { a.Address = "127.0.0.1:6550" }), nil},
		{"localhost", changed(func(a *Announcement) { a.Address = "LocalHost:6550" }), nil},
		{"no address in particular", changed(func(a *Announcement) { a.Address = "0.0.0.0:6550" }), nil},
		{"an odd host", changed(func(a *Announcement) { a.Address = "a b:1" }), nil},
		{"no id", changed(func(a *Announcement) { a.ID = "" }), nil},
		{"control characters", changed(func(a *Announcement) { a.ID = "1\x1b[2J" }), nil},
	}
	for _, test := range tests {
		z, err := newZone(test.a)
		if err != nil {
			t.Fatalf("%s: %v", test.what, err)
		}
		h := &answers{role: Leader, nodes: map[string]Node{}}
		h.read(answer(t, z.Records(dns.Question{Name: strings.ToUpper(serviceName), Qtype: dns.TypePTR})), someone)
		nodes := h.sorted()
		if test.want == nil {
			if len(nodes) > 0 {
				t.Errorf("%s: read %+v, want it ignored", test.what, nodes)
			}
			continue
		}
		if len(nodes) != 1 || !slices.Equal(nodes[0].Addresses, test.want) {
			t.Errorf("%s: read %+v, want %v", test.what, nodes, test.want)
			continue
		}
		got := nodes[0]
		if got.ID != "1" || got.ClusterID != "3f2a" || got.ClusterName != good.ClusterName || !slices.Equal(got.Former, []string{"0000"}) || got.Version != "v1" {
			t.Errorf("%s: read %+v", test.what, got)
		}
	}
}

// TestAnswersOnTwoInterfaces gets the answer of one leader by IPv6 first.
func TestAnswersOnTwoInterfaces(t *testing.T) {
	z, err := newZone(Announcement{Role: Leader, ID: "1", Address: "host:7"})
	if err != nil {
		t.Fatal(err)
	}
	h := &answers{role: Leader, nodes: map[string]Node{}}
	packet := answer(t, z.records)
	h.read(packet, &net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"})
	h.read(packet, someone)
	h.read(packet, someone)
	if nodes := h.sorted(); len(nodes) != 1 || !slices.Equal(nodes[0].Addresses, []string{"192.0.2.7:7", "[fe80::1%eth0]:7", "host:7"}) {
		t.Errorf("read %+v", nodes)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	h := &answers{role: Leader, nodes: map[string]Node{}}
	for i := range 2 * nodesMax {
		z, err := newZone(Announcement{Role: Leader, ID: strings.Repeat("x", 1+i%200), ClusterID: strings.Repeat("y", 1+i/200), Address: "h:1"})
		if err != nil {
			t.Fatal(err)
		}
		h.read(answer(t, z.records), someone)
	}
	if n := len(h.sorted()); n != nodesMax {
		t.Errorf("%d nodes heard, want %d", n, nodesMax)
	}
}

// TestForeignAnswers reads another service, a query, and texts of no instance of the service.
func TestForeignAnswers(t *testing.T) {
	texts := "\"role=leader\" \"id=1\" \"addr=10.0.0.1:1\""
	var printer []dns.RR
	for _, text := range []string{
		"_ipp._tcp.local. 60 IN PTR x._ipp._tcp.local.", "x._ipp._tcp.local. 60 IN TXT " + texts, "y._bridgefour._tcp.local. 60 IN TXT " + texts,
	} {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		printer = append(printer, rr)
	}
	h := &answers{role: Leader, nodes: map[string]Node{}}
	h.read(answer(t, printer), someone)
	question := new(dns.Msg)
	question.SetQuestion(serviceName, dns.TypePTR)
	packet, err := question.Pack()
	if err != nil {
		t.Fatal(err)
	}
	h.read(packet, someone)
	h.read(nil, someone)
	if nodes := h.sorted(); len(nodes) > 0 {
		t.Errorf("read %+v, want none", nodes)
	}
}

func FuzzAnswer(f *testing.F) {
	z, err := newZone(Announcement{Role: Leader, ID: "1", Address: "10.0.0.1:6550", ClusterID: "c", ClusterName: "n"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(answer(f, z.records))
	f.Add([]byte("\x00\x00\x84\x00\x00\x00\xff\xff\x00\x00\x00\x00\xc0\x0c"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		h := &answers{role: Leader, nodes: map[string]Node{}}
		h.read(packet, someone)
		for _, n := range h.sorted() {
			if n.ID == "" || n.Role != Leader || len(n.Addresses) == 0 {
				t.Errorf("read %+v", n)
			}
			for _, a := range n.Addresses {
				if again, err := transport.ParseAddress(a); err != nil || again != a || local(a) {
					t.Errorf("address %q heard (%v)", a, err)
				}
			}
		}
	})
}

func TestReachable(t *testing.T) {
	if leadsHere(t.Context(), "localhost") || leadsHere(t.Context(), "name.invalid") {
		t.Error("a name that others cannot use is announced")
	}
	if got := Reachable(t.Context(), &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}); got != "10.0.0.1:1" {
		t.Errorf("Reachable(10.0.0.1:1) = %s", got)
	}
	own := ownAddress()
	if !own.IsValid() {
		t.Skip("this machine has only loopback")
	}
	host, _, err := net.SplitHostPort(Reachable(t.Context(), &net.TCPAddr{IP: net.IPv6unspecified, Port: 1}))
	if own.IsLoopback() || err != nil || host != own.String() && !leadsHere(t.Context(), host) {
		t.Errorf("this machine is announced as %q, %v; its address is %v", host, err, own)
	}
}

func TestNotAnnounced(t *testing.T) {
	// A node that only this machine can reach does not even open a socket: Announce returns at once.
	for _, address := range []string{"127.0.0.1:6550", "localhost:6550", "[::1]:6550", "0.0.0.0:6550"} {
		Announce(t.Context(), Announcement{Role: Leader, ID: "1", Address: address}, slog.New(slog.DiscardHandler))
	}
	for _, a := range []Announcement{
		{Role: Leader, ID: "1", Address: "invalid port"},
		{Role: Leader, ID: "1", Address: "h:0"},
		{Role: Leader, ID: "1", Address: "h:1", ClusterName: strings.Repeat("x", 300)},
	} {
		if _, err := newZone(a); err == nil {
			t.Errorf("newZone(%+v) gave no error", a)
		}
	}
}
