//go:build !race

package node

import (
	"net/http"
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
)

// TestInputIsBounded compresses 257 MiB, which takes more than ten seconds with the race detector.
func TestInputIsBounded(t *testing.T) {
	_, _, err := newRig(t).node.Submit(t.Context(), withLines(state.InputBytesMax+1<<20), "key")
	problemOf(t, err, http.StatusUnprocessableEntity, "take more than 256 MiB as compressed: put them into files")
}
