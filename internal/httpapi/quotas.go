package httpapi

import (
	"context"
	"net/http"

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
	addRead(a, operation(http.MethodGet, "/v1/quotas", "list-quotas", "access", "All quotas, by user"),
		func(context.Context, *struct{}) (api.QuotaList, error) {
			return api.QuotaList{Quotas: a.leader.Quotas()}, nil
		})
	addWrite(a, operation(http.MethodPut, "/v1/quotas/{user}", "set-quota", "access", "Set what a user may use; what is leased beyond it runs to its end"),
		func(ctx context.Context, in *setQuota) (api.Quota, error) {
			q := api.Quota{User: in.User, QuotaRequest: in.Body}
			return q, a.leader.SetQuota(ctx, q)
		})
	addRemoval(a, operation(http.MethodDelete, "/v1/quotas/{user}", "remove-quota", "access", "Remove a quota; that of * holds for the user from then on"),
		func(ctx context.Context, in *QuotaPath) error { return a.leader.RemoveQuota(ctx, in.User) })
}
