package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// namedMax bounds the clusters, and the addresses of each, that an error names: anything on the network can announce any number.
const namedMax = 4

// Multicast finds the leaders that answer on the networks of this machine. If leaders of several clusters answer, and the worker
// may join any of these, it returns none of them, and an error that names them.
func Multicast(clusterName string, logger *slog.Logger) Source {
	return func(ctx context.Context, clusterID string) ([]string, error) {
		nodes, err := Browse(ctx, Leader, logger)
		addresses, choiceErr := choose(nodes, clusterName, clusterID)
		return addresses, errors.Join(err, choiceErr)
	}
}

// choose returns the addresses of the one cluster that matches.
func choose(nodes []Node, clusterName, clusterID string) ([]string, error) {
	clusters := map[string][]string{} // addresses by id
	names := map[string]string{}
	for _, n := range nodes {
		switch {
		case clusterName != "" && n.ClusterName != clusterName:
		case clusterID != "" && n.ClusterID != clusterID && !slices.Contains(n.Former, clusterID):
		default:
			clusters[n.ClusterID] = append(clusters[n.ClusterID], n.Addresses...)
			names[n.ClusterID] = n.ClusterName
		}
	}
	ids := slices.Sorted(maps.Keys(clusters))
	switch len(ids) {
	case 0:
		return nil, nil
	case 1:
		return clusters[ids[0]], nil
	}
	var each []string
	for _, id := range ids[:min(len(ids), namedMax)] {
		slices.Sort(clusters[id])
		each = append(each, fmt.Sprintf("%q (id %s, at %s)", names[id], id, strings.Join(clusters[id][:min(len(clusters[id]), namedMax)], ", ")))
	}
	more := ""
	if n := len(ids) - namedMax; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return nil, fmt.Errorf("several clusters answer on this network: %s%s; choose one with --cluster-id, or with --leader and an "+
		"address", strings.Join(each, " and "), more)
}
