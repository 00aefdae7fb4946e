package commit_test

import (
	"context"
	"io/fs"
	"iter"
	"strings"
	"sync/atomic"

	"github.com/bridgefour/bridgefour/internal/blob"
)

// discard is a store that has every attempt's file, of 5 bytes, and drops all writes.
type discard struct {
	blob.Store
	writes, longest atomic.Int64
}

func (*discard) Stat(_ context.Context, name blob.Location) (blob.Info, error) {
	if strings.Contains(string(name), "/map-") {
		return blob.Info{Name: name, Version: blob.Version{Size: 5}}, nil
	}
	return blob.Info{}, fs.ErrNotExist
}

func (*discard) Open(context.Context, blob.Location, int64) (blob.File, error) {
	return nil, fs.ErrNotExist
}

func (*discard) List(context.Context, blob.Location, blob.Keep, blob.Linked) iter.Seq2[blob.Info, error] {
	return func(func(blob.Info, error) bool) {}
}

func (d *discard) Create(context.Context, blob.Location, blob.Location) (blob.Writer, error) {
	return discardWriter{d}, nil
}

func (*discard) Publish(context.Context, blob.Location, blob.Location) error { return nil }

func (*discard) SyncDir(context.Context, blob.Location) error { return nil }

func (*discard) RemoveAll(context.Context, blob.Location) error { return nil }

func (*discard) RemoveEmpty(context.Context, blob.Location) error { return nil }

type discardWriter struct{ store *discard }

func (w discardWriter) Write(p []byte) (int, error) {
	w.store.writes.Add(1)
	if n := int64(len(p)); n > w.store.longest.Load() {
		w.store.longest.Store(n)
	}
	return len(p), nil
}

func (discardWriter) Commit() error  { return nil }
func (discardWriter) Prepare() error { return nil }
func (discardWriter) Abort()         {}
