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
