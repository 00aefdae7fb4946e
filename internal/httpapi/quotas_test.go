package httpapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

func TestQuotas(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	if got := httpapitest.Ask(t, a, "GET", "/v1/quotas", "").Body.String(); !strings.Contains(got, `"quotas":[]`) {
		t.Errorf("no quotas = %s, want an empty list", got)
	}
	for _, user := range []string{"*", "DOM%2Fann"} {
		if w := httpapitest.Ask(t, a, "PUT", "/v1/quotas/"+user, `{"slots":4,"weight":2}`); w.Code != http.StatusOK {
			t.Errorf("set = %d %s", w.Code, w.Body)
		}
	}
	bounds := api.QuotaRequest{Slots: 4, Weight: 2}
	list := httpapitest.Decode[api.QuotaList](t, httpapitest.Ask(t, a, "GET", "/v1/quotas", "")).Quotas
	if len(list) != 2 || list[0] != (api.Quota{User: "*", QuotaRequest: bounds}) || list[1] != (api.Quota{User: "DOM/ann", QuotaRequest: bounds}) {
		t.Errorf("quotas = %+v, want those of * and DOM/ann", list)
	}
	for body, says := range map[string]string{
		`{"slots":-1}`: "slots", `{"weight":1001}`: "weight", `{"jobs":5000000000}`: "jobs", `{"cores":3}`: "cores", `{`: "",
	} {
		if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "PUT", "/v1/quotas/ann", body)); p.Status/100 != 4 || !strings.Contains(p.Error(), says) {
			t.Errorf("set %s = %d %s, want a refusal with %q", body, p.Status, p.Error(), says)
		}
	}
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "PUT", "/v1/quotas/"+strings.Repeat("x", 257), `{}`)); p.Status != http.StatusUnprocessableEntity {
		t.Errorf("set with a long name = %+v, want 422", p)
	}
	if w := httpapitest.Ask(t, a, "DELETE", "/v1/quotas/DOM%2Fann", ""); w.Code != http.StatusNoContent {
		t.Errorf("remove = %d, want 204", w.Code)
	}
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "DELETE", "/v1/quotas/ann", "")); p.Status != http.StatusNotFound {
		t.Errorf("remove of none = %+v, want 404", p)
	}
}
