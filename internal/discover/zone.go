package discover

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/miekg/dns"

	"github.com/bridgefour/bridgefour/internal/transport"
)

const (
	serviceName = "_bridgefour._tcp.local."

	textMax   = 255 // bytes of one text, by DNS
	labelMax  = 63  // bytes of one label of a name, by DNS
	ttl       = 120 // seconds, by RFC 6762; answers are not cached here
	formerMax = 8
)

// Role is the role of a node.
type Role string

// Roles.
const (
	Leader Role = "leader"
	Worker Role = "worker" // without a leader
)

// Announcement is the description of a node.
type Announcement struct {
	Role        Role
	ID          string // unique in its role and cluster: a leader's number, a worker's identity
	Address     string // host:port, for other machines
	ClusterID   string // empty: none yet
	ClusterName string
	Former      []string // ids that the cluster had before it was recovered
	Version     string
	Slots       int // of a worker
}

// texts is the announcement as key=value pairs for a DNS TXT record.
func (a Announcement) texts() []string {
	texts := []string{
		"role=" + string(a.Role), "id=" + a.ID, "addr=" + a.Address, "cluster=" + a.ClusterID, "name=" + a.ClusterName,
		"version=" + a.Version, "slots=" + strconv.Itoa(a.Slots),
	}
	for _, id := range a.Former[:min(len(a.Former), formerMax)] {
		texts = append(texts, "former="+id)
	}
	return texts
}

// parseTexts parses an announcement, and reports whether it is valid.
func parseTexts(texts []string) (Announcement, bool) {
	var a Announcement
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			continue
		}
		switch key {
		case "role":
			a.Role = Role(value)
		case "id":
			a.ID = value
		case "addr":
			a.Address = value
		case "cluster":
			a.ClusterID = value
		case "name":
			a.ClusterName = value
		case "version":
			a.Version = value
		case "slots":
			n, err := strconv.ParseUint(value, 10, 16)
			if err == nil {
				a.Slots = int(n)
			}
		case "former":
			if len(a.Former) < formerMax {
				a.Former = append(a.Former, value)
			}
		}
	}
	address, err := transport.ParseAddress(a.Address)
	a.Address = address
	return a, err == nil && a.ID != "" && (a.Role == Leader || a.Role == Worker)
}

// escaped escapes texts for the dns library, as in a zone file.
func escaped(texts []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = strings.ReplaceAll(text, `\`, `\\`)
	}
	return out
}

// unescaped is the reverse, for texts that the dns library has read.
func unescaped(texts []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		var plain strings.Builder
		for j := 0; j < len(text); j++ {
			b := text[j]
			if b == '\\' && j+1 < len(text) {
				j++
				b = text[j]
				if n, err := strconv.ParseUint(text[j:min(j+3, len(text))], 10, 8); err == nil && j+3 <= len(text) {
					b = byte(n)
					j += 2
				}
			}
			plain.WriteByte(b)
		}
		out[i] = plain.String()
	}
	return out
}

// zone is the answer to queries for the service.
type zone struct{ records []dns.RR }

func newZone(a Announcement) (*zone, error) {
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("invalid port %q", port)
	}
	texts := a.texts()
	if i := slices.IndexFunc(texts, func(t string) bool { return len(t) > textMax }); i >= 0 {
		return nil, fmt.Errorf("announce %.40q: over %d bytes", texts[i], textMax)
	}
	// Names must differ on a network; the cluster's id is in them because leaders of all clusters count from 1.
	label := strings.Map(labelRune, strings.Trim(string(a.Role)+"-"+a.ID+"-"+a.ClusterID, "-"))
	instance := label[:min(len(label), labelMax)] + "." + serviceName
	header := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	srv := &dns.SRV{Hdr: header(instance, dns.TypeSRV), Port: uint16(n), Target: instance}
	z := &zone{[]dns.RR{
		&dns.PTR{Hdr: header(serviceName, dns.TypePTR), Ptr: instance}, srv,
		&dns.TXT{Hdr: header(instance, dns.TypeTXT), Txt: escaped(texts)},
	}}
	ip := net.ParseIP(host)
	switch {
	case ip == nil:
		srv.Target = dns.Fqdn(host)
	case ip.To4() != nil:
		z.records = append(z.records, &dns.A{Hdr: header(instance, dns.TypeA), A: ip.To4()})
	default:
		z.records = append(z.records, &dns.AAAA{Hdr: header(instance, dns.TypeAAAA), AAAA: ip})
	}
	return z, nil
}

// Records implements mdns.Zone.
func (z *zone) Records(q dns.Question) []dns.RR {
	if (q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY) || !equalName(q.Name, serviceName) {
		return nil
	}
	return z.records
}

func labelRune(r rune) rune {
	if r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
		return r
	}
	return '-'
}

func equalName(a, b string) bool { return dns.CanonicalName(a) == dns.CanonicalName(b) }
