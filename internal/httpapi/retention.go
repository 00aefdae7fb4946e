package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// RetentionPath names the retention of a user.
type RetentionPath struct {
	User string `path:"user" doc:"Name of the user, or * for the jobs of all users together" minLength:"1" maxLength:"256"`
}

type setRetention struct {
	RetentionPath
	Body api.RetentionRequest
}

func (a *API) addRetention() {
	huma.Register(a.huma, operation(http.MethodGet, "/v1/retention", "list-retention", "jobs",
		"Which jobs are kept after their end: of all users together, and by user"),
		func(context.Context, *struct{}) (*answer[api.RetentionList], error) {
			return &answer[api.RetentionList]{Index: a.index(), Body: api.RetentionList{Retentions: a.leader.Retentions()}}, nil
		})
	huma.Register(a.huma, operation(http.MethodPut, "/v1/retention/{user}", "set-retention", "jobs",
		"Set which jobs are kept after their end; without a bound, the setting is removed"),
		func(ctx context.Context, in *setRetention) (*answer[api.Retention], error) {
			r := api.Retention{User: in.User, RetentionRequest: in.Body}
			if err := a.leader.SetRetention(ctx, r); err != nil {
				return nil, a.asProblem(ctx, err)
			}
			return &answer[api.Retention]{Index: a.index(), Body: r}, nil
		})
	for method, pinned := range map[string]bool{http.MethodPut: true, http.MethodDelete: false} {
		id, summary := "keep-job", "Keep a job after its end, whatever the retention is"
		if !pinned {
			id, summary = "release-job", "No longer keep a job whatever the retention is"
		}
		huma.Register(a.huma, operation(method, "/v1/jobs/{n}/keep", id, "jobs", summary), func(ctx context.Context, in *JobPath) (*answer[api.Job], error) {
			return a.change(ctx, in.ID, func(ctx context.Context, id uint64) error { return a.leader.Pin(ctx, id, pinned) })
		})
	}
}
