// Package exampletest runs an example as a user does, in processes of its own, as the scripts in its testdata say.
package exampletest

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Main is the TestMain of an example: scripts call its main as the command of that name. It does not return.
func Main(m *testing.M, name string, main func()) {
	testscript.Main(m, map[string]func(){name: main})
}

// Run runs the scripts.
func Run(t *testing.T) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_STATE_HOME", e.WorkDir)
			return nil
		},
	})
}
