package server

import (
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/compat"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// documentedRoutes are the routes of the OpenAPI documents and of the proto files.
func documentedRoutes(t *testing.T) map[string]bool {
	t.Helper()
	routes := map[string]bool{}
	fake := httpapitest.NewFake()
	leader := httpapi.New(httpapi.Options{
		Leader: fake, Routes: compat.Routes(fake), Policy: access.NewPolicy(access.Options{Hosts: []string{"example.com"}, Insecure: true}), Metrics: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler),
	})
	doc := httpapitest.Decode[struct {
		Paths map[string]map[string]any
	}](t, httpapitest.Ask(t, leader, http.MethodGet, "/openapi.json", ""))
	for path, methods := range doc.Paths {
		for method := range methods {
			routes[strings.ToUpper(method)+" "+path] = true
		}
	}
	for _, r := range compat.WorkerRoutes(nil) {
		routes[r.Method+" "+r.Path] = true
	}
	for _, service := range []*grpc.ServiceDesc{&wire.Leader_ServiceDesc, &peerpb.Peer_ServiceDesc} {
		for _, m := range service.Methods {
			routes["/"+service.ServiceName+"/"+m.MethodName] = true
		}
		for _, s := range service.Streams {
			routes["/"+service.ServiceName+"/"+s.StreamName] = true
		}
	}
	return routes
}

// TestRules: every route has a rule, and every rule a route.
func TestRules(t *testing.T) {
	routes := documentedRoutes(t)
	for _, undocumented := range []string{"/", "GET /{$}", "POST /worker/invite"} {
		routes[undocumented] = true
	}
	got, want := slices.Sorted(maps.Keys(access.Rules)), slices.Sorted(maps.Keys(routes))
	if !slices.Equal(got, want) {
		t.Errorf("there are rules for\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
