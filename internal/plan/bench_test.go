package plan_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
)

func BenchmarkLines(b *testing.B) {
	const n = 10_000_000
	raw := make([]byte, 0, n*40)
	for i := range n {
		raw = fmt.Appendf(raw, "https://example.org/%d/page-%d.html\n", i*7919%1000, i)
	}
	req := command("curl", "{}")
	req.Lines = &api.Lines{Raw: raw}
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		res, err := plan.Plan(b.Context(), req, plan.Options{})
		if err != nil || res.Input.Tasks != n {
			b.Fatal(res.Input.Tasks, err)
		}
		kept := 0
		for _, block := range res.Input.Blocks {
			kept += len(block.Data)
		}
		b.ReportMetric(float64(kept)/n, "kept-B/line")
	}
}

func BenchmarkFolder(b *testing.B) {
	const n = 100_000
	dir := b.TempDir()
	for i := range n {
		if err := os.WriteFile(fmt.Sprintf("%s/%06d", dir, i), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for _, input := range []string{dir, dir + "/**", dir + "/*5"} {
		b.Run(input[len(dir):], func(b *testing.B) {
			for b.Loop() {
				req := command("cat")
				req.Inputs = []string{input}
				if _, err := plan.Plan(b.Context(), req, plan.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
