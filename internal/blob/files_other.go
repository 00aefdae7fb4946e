//go:build !linux

package blob

import "context"

// syncFiles makes the data of files durable; the caller syncs their folders.
func syncFiles(ctx context.Context, names, _ []string) error { return fsyncEach(ctx, names) }

// freeSpace is not known here.
func freeSpace(string) (space, bool) { return space{}, false }

// access cannot tell here; the first task does.
func access(string) error { return nil }
