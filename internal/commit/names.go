package commit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// Parts that have names of their own are found by the manifest that lists them. Before there is one, and when it is removed, a file in a
// private folder has their names: it is written before the first of them is published, or removed.

// NamesOf returns the pattern of the names of the parts that dir holds according to its manifests; empty: they are part-NNNNN.
func NamesOf(ctx context.Context, store blob.Store, dir blob.Location) (pattern string, err error) {
	for _, manifest := range []string{layout.Success, layout.Partial} {
		head, err := headOf(ctx, store, dir.Join(manifest))
		if err != nil || head.NameParts != "" {
			return head.NameParts, err
		}
	}
	return "", nil
}

// listedNames returns the files in dir that its manifests list.
func listedNames(ctx context.Context, store blob.Store, dir blob.Location) (names []blob.Location, err error) {
	for _, manifest := range []string{layout.Success, layout.Partial} {
		err = errors.Join(err, readManifest(ctx, store, dir.Join(manifest), func(d *json.Decoder, head *api.Manifest) {
			if head.NameParts == "" {
				return
			}
			for _, err := d.Token(); err == nil && d.More(); {
				var part api.ManifestPart
				if err = d.Decode(&part); err == nil {
					names = appendName(names, dir, part.Part)
				}
			}
		}))
	}
	return names, err
}

// recordedNames returns the files in dir whose names are recorded in the private folder of a job.
func recordedNames(ctx context.Context, store blob.Store, dir, private blob.Location) (names []blob.Location, err error) {
	file, err := store.Open(ctx, private.Join(layout.Names), 0)
	if blob.IsMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		names = appendName(names, dir, lines.Text())
	}
	return names, lines.Err()
}

// appendName appends a name that was read. Another user may have written it: one that no part can have is left out.
func appendName(names []blob.Location, dir blob.Location, name string) []blob.Location {
	if clean, err := layout.CleanName(name); err == nil && clean == name {
		names = append(names, dir.Join(name))
	}
	return names
}

// within returns the names whose folders are in dir, and not reached through a link.
func within(ctx context.Context, store blob.Store, dir blob.Location, names []blob.Location) []blob.Location {
	known := map[blob.Location]bool{dir: true}
	return slices.DeleteFunc(names, func(name blob.Location) bool {
		folder := name.Dir()
		in, ok := known[folder]
		if !ok {
			below, _ := folder.Below(dir)
			_, out := leadsOut(ctx, store, dir, below)
			in = !out
			known[folder] = in
		}
		return !in
	})
}

// recordNames records the names of files in dir durably, instead of those that were recorded before.
func recordNames(ctx context.Context, store blob.Store, private blob.Location, names iter.Seq[string]) error {
	w, err := store.Create(ctx, "", private.Join(layout.Names))
	if err != nil {
		return err
	}
	defer w.Abort()
	buffered := bufio.NewWriterSize(w, 256<<10)
	for name := range names {
		_, _ = buffered.WriteString(name) // the error is sticky
		_ = buffered.WriteByte('\n')
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	return w.Commit()
}

// isNamed reports whether the parts have other names than part-NNNNN.
func (p *publication) isNamed() bool { return p.out.Manifest.NameParts != "" }

// publicNames yields the names of the parts below the output folder.
func (p *publication) publicNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range p.list.parts {
			if !yield(p.file(i).Name) {
				return
			}
		}
	}
}

// checkFree fails with an OccupiedError if other files have names of parts.
func (p *publication) checkFree(ctx context.Context) error {
	var (
		mu    sync.Mutex // guards found
		found []blob.Location
	)
	err := p.each(ctx, func(part Part) error {
		_, err := p.store.Stat(ctx, p.out.Dir.Join(part.Name))
		if blob.IsMissing(err) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		found = append(found, p.out.Dir.Join(part.Name))
		return err
	})
	if err != nil {
		return err
	}
	return occupied(p.out.Dir, found, false)
}

// leadsOut reports whether a folder below dir is reached through a link, and where that leads.
func leadsOut(ctx context.Context, store blob.Store, dir blob.Location, folder string) (to blob.Location, out bool) {
	to = store.Resolve(ctx, dir.Join(folder))
	return to, to != store.Resolve(ctx, dir).Join(folder)
}

// makeFolders creates the folders of the parts. They must be in the output folder: a link in it could lead anywhere.
func (p *publication) makeFolders(ctx context.Context, list []string) error {
	for _, folder := range list {
		name := p.out.Dir.Join(folder)
		if to, out := leadsOut(ctx, p.store, p.out.Dir, folder); out {
			return fmt.Errorf("%q is a link to %q, outside of the output: remove it, or use another output folder", name, to)
		}
		if err := p.store.MkdirAll(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// privateFolders lists the private folders in dir.
func privateFolders(ctx context.Context, store blob.Store, dir blob.Location) (folders []blob.Location, err error) {
	var mu sync.Mutex // guards folders
	keep := func(name blob.Location, folder bool) bool {
		mu.Lock()
		defer mu.Unlock()
		if folder && !slices.Contains(folders, name) {
			folders = append(folders, name)
		}
		return false
	}
	for _, e := range store.List(ctx, dir.Join(layout.Temporary), keep, nil) {
		if e != nil && !blob.IsMissing(e) {
			err = errors.Join(err, e)
		}
	}
	return folders, err
}

// folders returns the folders of files below the output folder, each after those that are in it.
func folders(names iter.Seq[string]) (folders []string) {
	seen := map[string]bool{}
	var above []string
	for name := range names {
		above = layout.Folders(above[:0], name)
		for _, folder := range above {
			if seen[folder] {
				break
			}
			seen[folder] = true
			folders = append(folders, folder)
		}
	}
	slices.SortStableFunc(folders, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return folders
}

// headOf returns the manifest without its parts. It is empty for other files of that name, such as the empty one of Hadoop.
func headOf(ctx context.Context, store blob.Store, name blob.Location) (head api.Manifest, err error) {
	err = readManifest(ctx, store, name, func(_ *json.Decoder, h *api.Manifest) { head = *h })
	return head, err
}

// readManifest reads a manifest, if there is one, up to its parts, which are last: there may be a million.
func readManifest(ctx context.Context, store blob.Store, name blob.Location, then func(parts *json.Decoder, head *api.Manifest)) error {
	file, err := store.Open(ctx, name, 0)
	if blob.IsMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	d := json.NewDecoder(file)
	if head, ok := decodeHead(d); ok {
		then(d, head)
	}
	return file.Close()
}

func decodeHead(d *json.Decoder) (*api.Manifest, bool) {
	head := &api.Manifest{}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		key, err := d.Token()
		switch {
		case err != nil:
			return nil, false
		case key == "parts":
			return head, true
		}
		value := any(new(any))
		switch key {
		case "uid":
			value = &head.UID
		case "name_parts":
			value = &head.NameParts
		case "fence":
			value = &head.Fence
		case "cluster":
			value = &head.Cluster
		}
		if err := d.Decode(value); err != nil {
			return nil, false
		}
	}
	return nil, false
}
