package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const passing = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
`
	const skipping = passing + `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: needs a moon\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
`
	const ok = `{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
	const failing = passing + `{"Action":"output","Package":"p","Test":"TestC","Output":"panic: cause\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`
	log := strings.Repeat("        a line of a log\\n", headsMax)
	logging := `{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:7: cause\n    d_test.go:9: worker:\n` + log + `"}
{"Action":"output","Package":"p","Test":"TestD","Output":"--- FAIL: TestD (1.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestD"}
`
	printed := "    d_test.go:7: cause\n    d_test.go:9: worker:\n" + strings.ReplaceAll(log, `\n`, "\n") +
		"    d_test.go:7: cause\n    d_test.go:9: worker:\n--- FAIL: TestD (1.00s)\n"
	moon := []allowance{{regexp.MustCompile(`p\.TestB: needs a moon`), nil, "there is none"}}
	for _, tt := range []struct {
		name, in string
		allowed  []allowance
		ok       bool
		want     string
	}{
		{"pass", passing + ok, nil, true, "ok  \tp\t0.1s\n"},
		{"expected skip", skipping + ok, moon, true, "ok  \tp\t0.1s\nskipped: p.TestB: needs a moon (there is none)\n"},
		{"unexpected skip", skipping + ok, nil, false, "ok  \tp\t0.1s\nskipped: p.TestB: needs a moon (unexpected: " +
			"fix the cause, or add it with a reason to scripts/gotest/allowed.go)\nFAIL\n"},
		{"panic", failing, nil, false, "panic: cause\nFAIL\tp\t0.1s\nFAIL\n"},
		{"failure with a long log", logging, nil, false, printed + "FAIL\n"},
		{"build failure", `{"ImportPath":"p","Action":"build-output","Output":"./p.go:1: broken\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p"}
`, nil, false, "./p.go:1: broken\nFAIL\tp [build failed]\nFAIL\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			r := report{out: &out, output: map[string]*strings.Builder{}}
			if err := r.read(strings.NewReader(tt.in)); err != nil {
				t.Fatal(err)
			}
			if got := r.finish(tt.allowed); got != tt.ok || out.String() != tt.want {
				t.Errorf("finish() = %v after %q, want %v after %q", got, out.String(), tt.ok, tt.want)
			}
		})
	}
}
