//go:build planted

package leader

import "github.com/bridgefour/bridgefour/internal/state"

// Planted are bugs that exist in builds with the tag planted only: the simulator must find each.
var Planted Plants //nolint:gochecknoglobals // a switch of tests, in no released program

func planted() Plants { return Planted }

func forgetDone(m *state.Machine) {
	if Planted.ForgetDone {
		m.ForgetDone()
	}
}
