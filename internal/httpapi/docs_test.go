package httpapi

import (
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
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
	for _, want := range []string{"POST /v1/jobs", "POST /v1/access/tokens", "waiting, running, halted, done", `id="JobRequest"`, `href="#TaskList"`, "PUT /stop/{n}", "slots_per_task"} {
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

// TestDocsExamples: the request of each example has a route, and a body that is understood.
func TestDocsExamples(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	page := httpapitest.Ask(t, a, http.MethodGet, "/docs", "").Body.String()
	found := regexp.MustCompile(`<pre>curl (?:--json '(.*?)' )?(?:-X ([A-Z]+) )?'?127.0.0.1:6550(/[^\s'<]*)'?(?:\n(.*))?</pre>`).FindAllStringSubmatch(html.UnescapeString(page), -1)
	if want := strings.Count(page, "<h3><code>"); len(found) != want {
		t.Errorf("%d examples of %d requests", len(found), want)
	}
	for _, example := range found {
		body, method, path, answer := example[1], example[2], example[3], example[4]
		if method == "" {
			method = http.MethodGet
			if body != "" {
				method = http.MethodPost
			}
		}
		if answer != "" && !json.Valid([]byte(answer)) {
			t.Errorf("the answer of %s %s is %s", method, path, answer)
		}
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		if _, route := a.mux.Handler(r); !strings.HasPrefix(route, method+" ") {
			t.Errorf("%s %s has no route", method, path)
		}
		if body == "" || strings.Contains(path, "/certificates") { // that is for machines with a key
			continue
		}
		if got := httpapitest.Ask(t, a, method, path, body); got.Code >= 300 {
			t.Errorf("%s %s %s = %d %s", method, path, body, got.Code, got.Body)
		}
	}
}
