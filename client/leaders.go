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
	var list api.LeaderList
	err := c.call(ctx, get(LeadersPath), &list)
	return list, err
}

// AddLeader invites the new leader that listens at address (host:port) to the cluster. It gets a vote when it has caught up.
func (c *Client) AddLeader(ctx context.Context, address string) (api.LeaderNode, error) {
	var node api.LeaderNode
	q := request{method: http.MethodPost, path: LeadersPath, timeout: time.Minute}
	err := c.callJSON(ctx, q, api.LeaderRequest{Address: address}, &node)
	return node, err
}

// RemoveLeader removes a leader from the cluster. It is refused if no majority would be left, unless force is set.
func (c *Client) RemoveLeader(ctx context.Context, id uint64, force bool) error {
	path := LeadersPath + "/" + strconv.FormatUint(id, 10)
	if force {
		path += "?force=true"
	}
	return c.call(ctx, request{method: http.MethodDelete, path: path, timeout: time.Minute}, nil)
}
