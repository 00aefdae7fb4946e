package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/worker"
	"github.com/bridgefour/bridgefour/jobs"
)

// TestAcceptedHosts runs a leader and a worker, and sends requests to them by the names of their flags and by another one.
func TestAcceptedHosts(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	n, err := OpenLeader(t.Context(), node.ProcessConfig{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", Advertise: "advertised.example:6550", Hosts: []string{"alias.example"}, ClusterName: "test", Logger: logger,
	}, jobs.All(), nil)
	if err != nil {
		t.Fatal(err)
	}
	leader := transport.URL(n.Address().String())
	s, err := OpenWorker(t.Context(), worker.Config{
		DataDir: t.TempDir(), Leaders: []string{n.Address().String()}, Slots: 1, Jobs: jobs.All(), Logger: logger,
	}, Listener{Listen: "127.0.0.1:0", Advertise: "advertised.example:5555", Hosts: []string{"alias.example"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- n.Run(ctx) }()
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		stop()
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	for host, want := range map[string]int{
		"": http.StatusOK, "localhost:80": http.StatusOK, "advertised.example": http.StatusOK, "alias.example:8080": http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "advertised.example.evil.example:6550": http.StatusMisdirectedRequest,
	} {
		for _, url := range []string{leader + "/v1/cluster", transport.URL(s.Addr().String()) + "/worker/state"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			client := &http.Client{Transport: transport.NewHTTP()}
			answer, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			client.CloseIdleConnections()
			if answer.StatusCode != want {
				t.Errorf("%s for host %q = %d %s, want %d", url, host, answer.StatusCode, body, want)
			}
		}
	}
}
