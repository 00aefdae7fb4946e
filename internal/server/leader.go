package server

import (
	"context"
	"net/http"

	"github.com/bridgefour/bridgefour/internal/compat"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/jobs"
)

// OpenLeader opens a node that serves the API.
func OpenLeader(ctx context.Context, cfg node.ProcessConfig) (*node.Process, error) {
	cfg.Builtins = Builtins()
	cfg.HTTP = func(ctx context.Context, p *node.Process) (*http.Server, func()) {
		routes := httpapi.New(httpapi.Options{
			Leader: node.Owned{Node: p.Node}, Certifier: p, Routes: compat.Routes(node.Owned{Node: p.Node}), Policy: p.Policy(),
			Metrics: p.Metrics(), Dial: p.Dial, Encrypted: p.Encrypted(), Version: cfg.Version, Log: cfg.Logger,
		})
		return httpapi.Server(ctx, routes, cfg.Logger), routes.Close
	}
	return node.Open(ctx, cfg)
}

// Builtins are the properties of the built-in jobs that planning needs.
func Builtins() []plan.Builtin {
	var out []plan.Builtin
	for _, job := range jobs.All() {
		d := program.Describe(job)
		out = append(out, plan.Builtin{Name: d.Name, NeedsInput: !d.NoInput, Collects: d.Collects, Check: d.CheckSettings, Stages: program.Stages(job)})
	}
	return out
}
