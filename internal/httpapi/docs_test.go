package httpapi

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

func TestOpenAPIListsEveryRoute(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	w := httpapitest.Ask(t, a, http.MethodGet, "/openapi.json", "")
	var doc struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("openapi.json: version %q, %v", doc.OpenAPI, err)
	}
	var routes []string
	for path, item := range doc.Paths {
		for method := range item {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(routes)
	httpapitest.Golden(t, "routes.txt", strings.Join(routes, "\n")+"\n")
}

func TestDocsAreSelfContained(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	if got := httpapitest.Ask(t, a, http.MethodGet, "/", ""); got.Code != http.StatusFound || got.Header().Get("Location") != "/docs" {
		t.Errorf("GET / = %d to %q, want a redirect to /docs", got.Code, got.Header().Get("Location"))
	}
	page := httpapitest.Ask(t, a, http.MethodGet, "/docs", "").Body.String()
	if found := regexp.MustCompile(`(?i)<script|<link|<img|src=|https?://|@import`).FindString(page); found != "" {
		t.Errorf("the page loads something: %q", found)
	}
	for _, want := range []string{"POST /v1/jobs", `id="JobRequest"`, `href="#TaskList"`, "PUT /stop/{n}", "slots_per_task"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, link := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(page, `id="`+link[1]+`"`) {
			t.Errorf("link to %s leads nowhere", link[1])
		}
	}
}
