package httpapi

import (
	"log/slog"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/compat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ownPolicy accepts the host of httptest's requests.
func ownPolicy() *access.Policy {
	return access.NewPolicy(access.Options{Hosts: []string{"example.com"}, Insecure: true})
}

func newAPI(l Leader) *API {
	return New(Options{Leader: l, Routes: compat.Routes(l), Policy: ownPolicy(), Version: "v0", Log: slog.New(slog.DiscardHandler), Metrics: http.NotFoundHandler()})
}

// fullJob has every field that a status read encodes.
func fullJob(id uint64) api.Job {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return api.Job{
		ID: id, Name: "count", User: "ada", Program: api.Program{Builtin: "wordcount"}, Status: api.JobRunning, Output: "/data/out",
		Stages: []api.Stage{
			{Name: "map", Tasks: 1_000_000, Open: 1, Running: 2, Done: 999_997},
			{Name: "collect", Tasks: 1, Open: 1},
			{Name: "commit", Tasks: 1, Open: 1},
		},
		Inputs: []string{"/data/in"}, Set: map[string]string{"timeout": "2"}, Priority: 50, Retries: 3,
		InputBytes: 1 << 30, ReadBytes: 1 << 29, OutputBytes: 1 << 20, Records: 123456, Created: at, Started: &at,
	}
}
