package httpapi

import (
	"context"
	"net/http"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

type addLeader struct {
	Body api.LeaderRequest
}

type removeLeader struct {
	ID    uint64 `path:"id" doc:"Number of the leader"`
	Force bool   `query:"force" doc:"Also without a majority, if it is lost for good"`
}

func (a *API) addLeaders() {
	addRead(a, operation(http.MethodGet, "/v1/leaders", "list-leaders", "cluster", "All leaders, by number"),
		func(context.Context, *struct{}) (api.LeaderList, error) {
			all := a.leader.Leaders()
			all.Leaders = list(all.Leaders)
			return all, nil
		})
	addWrite(a, creation("/v1/leaders", "add-leader", "cluster", "Add a leader; it gets a vote once it has caught up"),
		func(ctx context.Context, in *addLeader) (api.LeaderNode, error) {
			if err := checkAddress("body.address", in.Body.Address); err != nil {
				return api.LeaderNode{}, err
			}
			return a.leader.AddLeader(ctx, in.Body.Address)
		})
	addRemoval(a, operation(http.MethodDelete, "/v1/leaders/{id}", "remove-leader", "cluster", "Remove a leader; refused if no majority would remain"),
		func(ctx context.Context, in *removeLeader) error { return a.leader.RemoveLeader(ctx, in.ID, in.Force) })
}

// checkAddress returns a 422 problem unless address is host:port.
func checkAddress(location, address string) error {
	if transport.CheckAddress(address) != nil {
		return api.Invalid("validation failed").With(location, "want host:port, such as 10.0.0.7:6550", shorten(address))
	}
	return nil
}
