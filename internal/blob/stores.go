package blob

import (
	"context"
	"fmt"
	"slices"
)

// Stores maps URL schemes to stores. Paths always have the store of the local file systems, unless the scheme "" has another.
type Stores map[string]Store

// Open parses a location and returns it with its store.
func (s Stores) Open(text string) (Store, Location, error) {
	l, err := ParseLocation(text)
	if err != nil {
		return nil, "", err
	}
	store, err := s.Of(l)
	return store, l, err
}

// Of returns the store of a location.
func (s Stores) Of(l Location) (Store, error) {
	if store, ok := s[l.scheme()]; ok {
		return store, nil
	}
	if l.scheme() == "" {
		return NewFiles(), nil
	}
	return nil, fmt.Errorf("%q: %s:// is not supported; use an absolute path or file://", l, l.scheme())
}

// Uncache drops a synced file, of an output of about so many bytes, from the memory of the system, unless that has room for the output, the input, and the segments between them:
// it would take the place of what other tasks are about to read. The next files get the memory of those before, which is cheaper than other memory, above all on a virtual
// machine, whose host has to find it first: a sort of 3 GB took 5.2 s of system time instead of 7.3. It is advice, so no error is returned.
func (s Stores) Uncache(ctx context.Context, name Location, output uint64) {
	const kinds = 3
	if name.scheme() != "" || output <= systemMemory()/kinds {
		return
	}
	store, err := s.Of(name)
	if err != nil {
		return
	}
	f, err := store.Open(ctx, name, 0)
	if err != nil {
		return
	}
	if local, ok := f.(LocalFile); ok {
		uncache(local.File)
	}
	_ = f.Close() // only read
}

// Sync is Store.Sync for files of any stores.
func (s Stores) Sync(ctx context.Context, names ...Location) error {
	for len(names) > 0 {
		scheme := names[0].scheme()
		store, err := s.Of(names[0])
		if err != nil {
			return err
		}
		here, others := names, []Location(nil)
		if slices.ContainsFunc(names, func(l Location) bool { return l.scheme() != scheme }) {
			here = nil
			for _, name := range names {
				if name.scheme() == scheme {
					here = append(here, name)
				} else {
					others = append(others, name)
				}
			}
		}
		if err := store.Sync(ctx, here...); err != nil {
			return err
		}
		names = others
	}
	return nil
}
