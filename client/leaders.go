package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// Leaders are all leaders of the cluster, by number.
func (c *Client) Leaders(ctx context.Context) (api.LeaderList, error) {
	var list api.LeaderList
	err := c.call(ctx, get(LeadersPath), &list)
	return list, err
}

// AddLeader asks the fresh leader that listens at address (host:port) to join the cluster. It gets a vote when it has caught up.
func (c *Client) AddLeader(ctx context.Context, address string) (api.LeaderNode, error) {
	var node api.LeaderNode
	body, err := json.Marshal(api.LeaderRequest{Address: address})
	if err != nil {
		return node, err
	}
	q := request{method: http.MethodPost, path: LeadersPath, body: body, kind: "application/json", timeout: time.Minute}
	err = c.call(ctx, q, &node)
	return node, err
}

// RemoveLeader takes a leader out of the cluster. Where this would leave no majority it is refused, unless force is set.
func (c *Client) RemoveLeader(ctx context.Context, id uint64, force bool) error {
	path := LeadersPath + "/" + strconv.FormatUint(id, 10)
	if force {
		path += "?force=true"
	}
	return c.call(ctx, request{method: http.MethodDelete, path: path, timeout: time.Minute}, nil)
}

// known are all URLs, those that were given first. The caller holds mu.
func (c *Client) known() []string {
	urls := slices.Clone(c.given)
	for _, base := range c.learned {
		if !slices.Contains(urls, base) {
			urls = append(urls, base)
		}
	}
	return urls
}

// order are all URLs as a call tries them.
func (c *Client) order() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	urls := c.known()
	at := max(slices.Index(urls, c.first), 0)
	return append(urls[at:], urls[:at]...)
}

// answered notes who has answered, and from what log position.
func (c *Client) answered(base string, answer *http.Response) {
	index, err := strconv.ParseUint(answer.Header.Get("X-Bridgefour-Index"), 10, 64)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && (index >= c.latest.index || base == c.latest.base) {
		c.latest = position{base: base, index: index}
	}
	c.first = base
	if !slices.Contains(c.given, base) && !slices.Contains(c.learned, base) {
		c.learned = append(c.learned, base) // another leader sent the request there
	}
}

// moveOn has the next call begin with another leader than the one at base.
func (c *Client) moveOn(base string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == base {
		urls := c.known()
		c.first = urls[(slices.Index(urls, base)+1)%len(urls)]
	}
}

// learnOnce learns the other leaders if that was not done before.
func (c *Client) learnOnce(ctx context.Context) {
	c.mu.Lock()
	asked := c.asked
	c.mu.Unlock()
	if !asked {
		c.learn(ctx)
	}
}

// learn asks the leader that has answered last who the others are. Without an answer the client does with those it knows.
func (c *Client) learn(ctx context.Context) {
	c.mu.Lock()
	base := c.first
	c.mu.Unlock()
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" || u.Path != "" {
		return // what stands before the leaders is there for a reason, such as encryption
	}
	ctx, cancel := context.WithTimeout(ctx, c.probing)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+LeadersPath, nil)
	if err != nil {
		return
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return
	}
	var list api.LeaderList
	body, err := readBody(answer)
	if err != nil || answer.StatusCode >= http.StatusMultipleChoices || json.Unmarshal(body, &list) != nil {
		return
	}
	var learned []string
	for _, node := range list.Leaders {
		if base, err := baseURL(node.Address); err == nil && !strings.Contains(node.Address, "/") {
			learned = append(learned, base)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learned, c.asked = learned, true
}
