package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// QuotaPath names the quota of a user.
type QuotaPath struct {
	User string `path:"user" doc:"Name of the user, or * for all users without a quota of their own" minLength:"1" maxLength:"256"`
}

type setQuota struct {
	QuotaPath
	Body api.QuotaRequest
}

func (a *API) addQuotas() {
	huma.Register(a.huma, operation(http.MethodGet, "/v1/quotas", "list-quotas", "access", "All quotas, by user"),
		func(context.Context, *struct{}) (*answer[api.QuotaList], error) {
			return &answer[api.QuotaList]{Index: a.index(), Body: api.QuotaList{Quotas: a.leader.Quotas()}}, nil
		})
	huma.Register(a.huma, operation(http.MethodPut, "/v1/quotas/{user}", "set-quota", "access",
		"Set what a user may use; what is leased beyond it runs to its end"),
		func(ctx context.Context, in *setQuota) (*answer[api.Quota], error) {
			q := api.Quota{User: in.User, QuotaRequest: in.Body}
			if err := a.leader.SetQuota(ctx, q); err != nil {
				return nil, a.asProblem(ctx, err)
			}
			return &answer[api.Quota]{Index: a.index(), Body: q}, nil
		})
	huma.Register(a.huma, operation(http.MethodDelete, "/v1/quotas/{user}", "remove-quota", "access",
		"Remove a quota; that of * holds for the user from then on"),
		func(ctx context.Context, in *QuotaPath) (*removed, error) {
			if err := a.leader.RemoveQuota(ctx, in.User); err != nil {
				return nil, a.asProblem(ctx, err)
			}
			return &removed{Index: a.index()}, nil
		})
}
