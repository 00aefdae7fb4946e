package commit_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/commit"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// BenchmarkPublish renames files of 10 bytes on a real file system.
func BenchmarkPublish(b *testing.B) {
	const n = 100_000
	store, root := blob.NewFiles(), b.TempDir()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		out := commit.Output{Dir: blob.Location(fmt.Sprintf("%s/%d", root, i)), UID: uid, Tasks: n}
		private := out.Dir.Join(layout.Private(uid))
		if err := os.MkdirAll(string(private), 0o700); err != nil {
			b.Fatal(err)
		}
		for k := range n {
			if err := os.WriteFile(fmt.Sprintf("%s/map-%d-%d", private, k, 1<<40+k), []byte("0123456789"), 0o600); err != nil {
				b.Fatal(err)
			}
		}
		syscall.Sync()
		b.StartTimer()
		_, err := commit.Publish(b.Context(), store, out, func(yield func(commit.Part, error) bool) {
			for k := range uint64(n) {
				if !yield(commit.Part{Index: k, Size: 10, File: fmt.Sprintf("map-%d-%d", k, 1<<40+k)}, nil) {
					return
				}
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "parts/s")
}
