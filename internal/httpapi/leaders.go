package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

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
	huma.Register(a.huma, operation(http.MethodGet, "/v1/leaders", "list-leaders", "cluster", "All leaders, by number"),
		func(context.Context, *struct{}) (*answer[api.LeaderList], error) {
			out := &answer[api.LeaderList]{Index: a.index(), Body: a.leader.Leaders()}
			if out.Body.Leaders == nil {
				out.Body.Leaders = []api.LeaderNode{}
			}
			return out, nil
		})
	add := operation(http.MethodPost, "/v1/leaders", "add-leader", "cluster",
		"Add a leader; it gets a vote once it has caught up")
	add.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, add, func(ctx context.Context, in *addLeader) (*answer[api.LeaderNode], error) {
		if err := checkAddress("body.address", in.Body.Address); err != nil {
			return nil, a.asProblem(ctx, err)
		}
		node, err := a.leader.AddLeader(ctx, in.Body.Address)
		if err != nil {
			return nil, a.asProblem(ctx, err)
		}
		return &answer[api.LeaderNode]{Index: a.index(), Body: node}, nil
	})
	huma.Register(a.huma, operation(http.MethodDelete, "/v1/leaders/{id}", "remove-leader", "cluster",
		"Remove a leader; refused if no majority would remain"),
		func(ctx context.Context, in *removeLeader) (*removed, error) {
			if err := a.leader.RemoveLeader(ctx, in.ID, in.Force); err != nil {
				return nil, a.asProblem(ctx, err)
			}
			return &removed{Index: a.index()}, nil
		})
}

// checkAddress returns a 422 problem unless address is host:port.
func checkAddress(location, address string) error {
	if transport.CheckAddress(address) != nil {
		return api.Invalid("validation failed").With(location, "want host:port, such as 10.0.0.7:6550", shorten(address))
	}
	return nil
}
