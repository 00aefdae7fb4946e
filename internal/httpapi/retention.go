package httpapi

import (
	"context"
	"net/http"

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
	addRead(a, operation(http.MethodGet, "/v1/retention", "list-retention", "jobs", "Which jobs are kept after their end: of all users together, and by user"),
		func(context.Context, *struct{}) (api.RetentionList, error) {
			return api.RetentionList{Retentions: a.leader.Retentions()}, nil
		})
	addWrite(a, operation(http.MethodPut, "/v1/retention/{user}", "set-retention", "jobs",
		"Set which jobs are kept after their end; without a bound, the setting is removed"),
		func(ctx context.Context, in *setRetention) (api.Retention, error) {
			r := api.Retention{User: in.User, RetentionRequest: in.Body}
			return r, a.leader.SetRetention(ctx, r)
		})
	addChange(a, operation(http.MethodPut, "/v1/jobs/{n}/keep", "keep-job", "jobs", "Keep a job after its end, whatever the retention is"),
		func(ctx context.Context, in *JobPath) error { return a.leader.Pin(ctx, in.ID, true) }, a.job)
	addChange(a, operation(http.MethodDelete, "/v1/jobs/{n}/keep", "release-job", "jobs", "No longer keep a job whatever the retention is"),
		func(ctx context.Context, in *JobPath) error { return a.leader.Pin(ctx, in.ID, false) }, a.job)
}
