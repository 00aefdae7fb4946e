package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// Health asks the server at address, which serves plain requests of its own machine also if others need TLS, and returns its status.
func Health(ctx context.Context, address string, ready bool) (string, error) {
	c, err := client.New([]string{address}, client.Options{Patience: -1, HTTP: &http.Client{Transport: transport.NewHTTP()}}) // without a proxy
	if err != nil {
		return "", err
	}
	path := "/healthz"
	if ready {
		path = "/readyz"
	}
	raw, err := c.Raw(ctx, path)
	if problem, ok := errors.AsType[*api.Problem](err); ok && problem.Detail != "" {
		err = errors.New(problem.Detail)
	}
	if err != nil {
		return "", err
	}
	var answer struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil || answer.Status == "" {
		return "", fmt.Errorf("the server at %s is no leader or worker: its answer to %s has no status", address, path)
	}
	return answer.Status, nil
}
