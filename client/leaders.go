package client

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// Leaders returns all leaders of the cluster, by number.
func (c *Client) Leaders(ctx context.Context) (api.LeaderList, error) {
	return ask[api.LeaderList](ctx, c, get(LeadersPath))
}

// AddLeader invites the new leader that listens at address (host:port) to the cluster. It gets a vote when it has caught up.
func (c *Client) AddLeader(ctx context.Context, address string) (api.LeaderNode, error) {
	return askWith[api.LeaderNode](ctx, c, request{method: http.MethodPost, path: LeadersPath, timeout: time.Minute}, api.LeaderRequest{Address: address})
}

// RemoveLeader removes a leader from the cluster. It is refused if no majority would be left, unless force is set.
func (c *Client) RemoveLeader(ctx context.Context, id uint64, force bool) error {
	path := withQuery(LeadersPath+"/"+strconv.FormatUint(id, 10), parameters{"force": force})
	return c.call(ctx, request{method: http.MethodDelete, path: path, again: true, timeout: time.Minute}, nil) // again: a leader that has been removed is no error
}
