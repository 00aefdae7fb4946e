package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestRemoveTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	for _, name := range []string{"a", "_temporary/u/map-0-1", "_temporary/u/map-1-2"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := removeTree(ended, dir); err == nil {
		t.Error("removeTree() = nil though its context had ended")
	}
	for range 2 { // the second finds nothing
		if err := removeTree(t.Context(), dir); err != nil {
			t.Errorf("removeTree() = %v", err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("removeTree() leaves %v", err)
	}
}
