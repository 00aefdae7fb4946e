package server

import (
	"context"
	"net/http"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/compat"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/program"
)

// OpenLeader opens a node that serves the API, and accepts the given jobs beside commands: on workers that have these labels.
func OpenLeader(ctx context.Context, cfg node.ProcessConfig, all []bridgefour.Job, labels map[string]string) (*node.Process, error) {
	cfg.Builtins = Builtins(all)
	for i := range cfg.Builtins {
		cfg.Builtins[i].Labels = labels
	}
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
func Builtins(all []bridgefour.Job) []plan.Builtin {
	var out []plan.Builtin
	for _, job := range all {
		d := program.Describe(job)
		out = append(out, plan.Builtin{
			Name: d.Name, NeedsInput: !d.NoInput, Collects: d.Collects, Divisible: d.Divisible, FirstSuccess: d.FirstSuccess,
			Records: d.Records, Check: d.CheckSettings, Plan: program.Planner(job),
		})
	}
	return out
}
