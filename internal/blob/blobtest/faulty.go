package blobtest

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/bridgefour/bridgefour/internal/blob"
)

// ErrInjected is the error of a [Faulty] store.
var ErrInjected = errors.New("injected failure")

// Faulty is a store that fails: operation FailAt (the first is 1) and all after it return ErrInjected. Every call counts, each
// listed name and each write, but not Abort and Resolve.
type Faulty struct {
	blob.Store
	FailAt int
	// Late carries out the first failing operation all the same, as if only its answer were lost.
	Late bool

	mu    sync.Mutex
	calls int
}

// Calls returns the number of operations so far.
func (f *Faulty) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// do counts an operation and carries it out unless the store has failed.
func (f *Faulty) do(op func() error) error {
	f.mu.Lock()
	f.calls++
	dead := f.FailAt > 0 && f.calls >= f.FailAt
	last := f.calls == f.FailAt
	f.mu.Unlock()
	if !dead {
		return op()
	}
	if last && f.Late {
		return errors.Join(ErrInjected, op())
	}
	return ErrInjected
}

// Stat implements Store.
func (f *Faulty) Stat(ctx context.Context, name blob.Location) (info blob.Info, err error) {
	err = f.do(func() (err error) { info, err = f.Store.Stat(ctx, name); return err })
	return info, err
}

// List implements Store.
func (f *Faulty) List(ctx context.Context, dir blob.Location, keep blob.Keep, linked blob.Linked) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range f.Store.List(ctx, dir, keep, linked) {
			if dead := f.do(func() error { return nil }); dead != nil {
				yield(blob.Info{}, dead)
				return
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// Open implements Store.
func (f *Faulty) Open(ctx context.Context, name blob.Location, offset int64) (r blob.File, err error) {
	err = f.do(func() (err error) { r, err = f.Store.Open(ctx, name, offset); return err })
	return r, err
}

// Create implements Store.
func (f *Faulty) Create(ctx context.Context, private, final blob.Location) (blob.Writer, error) {
	var w blob.Writer
	if err := f.do(func() (err error) { w, err = f.Store.Create(ctx, private, final); return err }); err != nil {
		return nil, err
	}
	return &faultyWriter{Writer: w, store: f}, nil
}

type faultyWriter struct {
	blob.Writer
	store *Faulty
}

func (w *faultyWriter) Write(p []byte) (n int, err error) {
	err = w.store.do(func() (err error) { n, err = w.Writer.Write(p); return err })
	return n, err
}

func (w *faultyWriter) Commit() error { return w.store.do(w.Writer.Commit) }

func (w *faultyWriter) Prepare() error { return w.store.do(w.Writer.Prepare) }

// Sync implements Store.
func (f *Faulty) Sync(ctx context.Context, names ...blob.Location) error {
	return f.do(func() error { return f.Store.Sync(ctx, names...) })
}

// Publish implements Store.
func (f *Faulty) Publish(ctx context.Context, private, final blob.Location) error {
	return f.do(func() error { return f.Store.Publish(ctx, private, final) })
}

// SyncDir implements Store.
func (f *Faulty) SyncDir(ctx context.Context, dir blob.Location) error {
	return f.do(func() error { return f.Store.SyncDir(ctx, dir) })
}

// CheckWritable implements Store.
func (f *Faulty) CheckWritable(ctx context.Context, dir blob.Location) error {
	return f.do(func() error { return f.Store.CheckWritable(ctx, dir) })
}

// MkdirAll implements Store.
func (f *Faulty) MkdirAll(ctx context.Context, dir blob.Location) error {
	return f.do(func() error { return f.Store.MkdirAll(ctx, dir) })
}

// Remove implements Store. The names are removed one by one, so that each may be the first to fail.
func (f *Faulty) Remove(ctx context.Context, names ...blob.Location) error {
	for _, name := range names {
		if err := f.do(func() error { return f.Store.Remove(ctx, name) }); err != nil {
			return err
		}
	}
	return nil
}

// RemoveAll implements Store. The files are removed one by one, so that each may be the first to fail.
func (f *Faulty) RemoveAll(ctx context.Context, dir blob.Location) error {
	for info, err := range f.Store.List(ctx, dir, nil, nil) {
		if err != nil {
			return err
		}
		if err := f.do(func() error { return f.Store.Remove(ctx, info.Name) }); err != nil {
			return err
		}
	}
	return f.do(func() error { return f.Store.RemoveAll(ctx, dir) })
}

// RemoveEmpty implements Store.
func (f *Faulty) RemoveEmpty(ctx context.Context, dir blob.Location) error {
	return f.do(func() error { return f.Store.RemoveEmpty(ctx, dir) })
}
