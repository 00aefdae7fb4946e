package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/bridgefour/bridgefour/api"
)

// servers is the leaders that a client knows, and the position of the last answer.
type servers struct {
	mu     sync.Mutex
	list   []server
	first  int  // the next call starts with it: it answered last, and has not failed since
	listed bool // the cluster has listed its leaders
	moved  bool // since then, one has not answered, or an unknown one has
	latest position
}

// server is one leader.
type server struct {
	url   string
	given bool // by the caller; the others come from the cluster
}

// position is the log position of an answer, and the server that gave it.
type position struct {
	url   string
	index uint64
}

// find returns the index of a URL, or -1.
func (s *servers) find(url string) int {
	return slices.IndexFunc(s.list, func(v server) bool { return v.url == url })
}

// given reports whether the caller has given the server of a URL, or, if it is local, one on this machine.
func (s *servers) given(to *url.URL, local bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.list, func(v server) bool {
		u, err := url.Parse(v.url)
		return err == nil && v.given && (u.Scheme == to.Scheme && u.Host == to.Host || local && isLocal(u.Hostname()))
	})
}

// urls lists the servers, in the order in which they became known. first is the index of the one to try first.
func (s *servers) urls() (urls []string, first int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.list {
		urls = append(urls, v.url)
	}
	return urls, s.first
}

// position is that of the last answer.
func (s *servers) position() position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest
}

// answered records an answer. index is its log position; ok: it has one.
func (s *servers) answered(url string, index uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok && (index >= s.latest.index || url == s.latest.url) {
		s.latest = position{url: url, index: index}
	}
	if s.first = s.find(url); s.first < 0 { // another server has redirected there
		s.list = append(s.list, server{url: url})
		s.first, s.moved = len(s.list)-1, true
	}
}

// outdated reports, once, whether the leaders may be others by now.
func (s *servers) outdated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := s.moved
	s.moved = false
	return moved
}

// failed makes the next call start with the server after url.
func (s *servers) failed(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = true
	if s.list[s.first].url == url {
		s.first = (s.first + 1) % len(s.list)
	}
}

// set replaces the servers that the cluster has listed.
func (s *servers) set(listed []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.list[s.first].url
	s.list = slices.DeleteFunc(s.list, func(v server) bool { return !v.given })
	for _, url := range listed {
		if s.find(url) < 0 {
			s.list = append(s.list, server{url: url})
		}
	}
	s.first, s.listed, s.moved = max(0, s.find(first)), true, false
}

func (c *Client) listServersOnce(ctx context.Context) {
	c.servers.mu.Lock()
	listed := c.servers.listed
	c.servers.mu.Unlock()
	if !listed {
		c.listServers(ctx)
	}
}

// listServers requests the leaders from the server that answered last. Without an answer the client continues with the known ones.
func (c *Client) listServers(ctx context.Context) {
	urls, first := c.servers.urls()
	base := urls[first]
	if u, err := url.Parse(base); err != nil || u.Scheme != c.scheme || u.Path != "" {
		return // a proxy in front of the leaders has a purpose, such as encryption
	}
	status, body, err := c.probe(ctx, base+LeadersPath)
	var list api.LeaderList
	if err != nil || status >= http.StatusMultipleChoices || json.Unmarshal(body, &list) != nil {
		return
	}
	urls = nil
	var addresses []string
	for _, node := range list.Leaders {
		if base, err := c.baseURL(node.Address); err == nil && !strings.Contains(node.Address, "/") {
			urls, addresses = append(urls, base), append(addresses, node.Address)
		}
	}
	c.servers.set(urls)
	if c.options.OnLeaders != nil && slices.Contains(urls, base) { // otherwise this client reaches them by other addresses, as through a tunnel
		c.options.OnLeaders(addresses)
	}
}

// probe sends a GET that any live server answers at once.
func (c *Client) probe(ctx context.Context, url string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.probeTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	c.authorize(r)
	answer, err := c.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	body, err = readBody(answer)
	return answer.StatusCode, body, err
}
