//go:build !linux

package blob

import (
	"context"
	"errors"
)

// syncFiles makes the data of files durable; the caller syncs their folders.
func syncFiles(ctx context.Context, names, _ []Location) error { return fsyncEach(ctx, names) }

// freeSpace is not implemented.
func freeSpace(Location) (space, error) { return space{}, errors.ErrUnsupported }

// access is not implemented: the first task fails instead.
func access(Location) error { return nil }
