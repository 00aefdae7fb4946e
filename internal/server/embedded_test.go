package server

import (
	"fmt"
	"testing"
)

func TestShareResources(t *testing.T) {
	all := map[string][]string{"gpu": {"0", "1", "2"}, "license": {"0"}}
	for i, want := range []string{"map[gpu:[0] license:[]]", "map[gpu:[1 2] license:[0]]"} {
		if got := fmt.Sprint(shareResources(all, i, 2)); got != want {
			t.Errorf("worker %d has %s, want %s", i, got, want)
		}
	}
}
