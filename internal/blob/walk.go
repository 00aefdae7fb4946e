package blob

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// List implements Store.
func (*Files) List(ctx context.Context, dir Location, keep Keep, linked Linked) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if keep == nil {
			keep = func(Location, bool) bool { return true }
		}
		w := &walk{ctx: ctx, root: dir, keep: keep, follows: linked, yield: yield}
		if fi, err := os.Stat(string(w.root)); err == nil && !fi.IsDir() {
			return
		}
		w.folder(w.root)
	}
}

// walk is one listing.
type walk struct {
	ctx      context.Context //nolint:containedctx // a walk lives no longer than the call it serves
	root     Location
	realRoot Location // root without links; "" before the first link
	keep     Keep
	follows  Linked // or nil
	yield    func(Info, error) bool
	linked   map[Location]bool // targets of links outside of root, resolved
}

// entry is one name of a folder.
type entry struct {
	// key is the sort key: folders end in "/", so that "a.b" sorts before "a/x".
	key     string
	version Version // of files
	err     error
}

// folder lists dir. It reports whether to continue.
func (w *walk) folder(dir Location) bool {
	if err := context.Cause(w.ctx); err != nil {
		w.yield(Info{}, err)
		return false
	}
	list, err := readFolder(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true // removed meanwhile
	}
	if err != nil && !w.yield(Info{Name: w.below(dir, "")}, explain("read folder", dir, err)) {
		return false
	}
	for _, e := range w.entries(dir, list) {
		name := w.below(dir, e.key)
		var more bool
		switch {
		case e.err != nil:
			more = w.yield(Info{Name: name}, e.err)
		case strings.HasSuffix(e.key, "/"):
			more = w.folder(Location(strings.TrimSuffix(string(name), "/")))
		default:
			more = w.yield(Info{Name: name, Version: e.version}, nil)
		}
		if !more {
			return false
		}
	}
	return true
}

// below is Location.Join for keys, which may end in "/" or be that alone.
func (*walk) below(dir Location, key string) Location {
	if dir == "/" {
		return dir + Location(key)
	}
	return dir + "/" + Location(key)
}

func readFolder(dir Location) ([]fs.DirEntry, error) {
	f, err := os.Open(string(dir))
	if err != nil {
		return nil, err
	}
	list, err := f.ReadDir(-1)
	return list, errors.Join(err, f.Close())
}

// entries returns the listed entries of a folder, in order. The entries of large folders are examined concurrently.
func (w *walk) entries(dir Location, list []fs.DirEntry) []entry {
	const chunk = 512
	var (
		out   = make([]entry, len(list))
		wg    sync.WaitGroup
		slots = make(chan struct{}, 4)
		links []int
	)
	for from := 0; from < len(list); from += chunk {
		part := list[from:min(from+chunk, len(list))]
		examine := func() {
			for i, d := range part {
				out[from+i] = w.entry(dir, d)
			}
		}
		if len(list) <= chunk {
			examine()
			break
		}
		slots <- struct{}{}
		wg.Go(func() {
			inContext(w.ctx, examine)
			<-slots
		})
	}
	wg.Wait()
	// Links come last, one by one and in order: a target that one link has added is skipped by the next.
	for i, d := range list {
		if d.Type()&fs.ModeSymlink != 0 {
			links = append(links, i)
		}
	}
	slices.SortFunc(links, func(a, b int) int { return cmp.Compare(list[a].Name(), list[b].Name()) })
	for _, i := range links {
		out[i] = w.link(dir, list[i].Name())
	}
	out = slices.DeleteFunc(out, func(e entry) bool { return e.key == "" })
	slices.SortFunc(out, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	return out
}

// entry examines a name that is not a link. The key is empty if the entry is not listed.
func (w *walk) entry(dir Location, d fs.DirEntry) entry {
	name := w.below(dir, d.Name())
	switch {
	case d.Type()&fs.ModeSymlink != 0:
		return entry{}
	case d.IsDir():
		if w.keep(name, true) {
			return entry{key: d.Name() + "/"}
		}
	case d.Type().IsRegular() && w.keep(name, false):
		version, _, _, err := statName(name, false)
		if err != nil {
			return entry{key: d.Name(), err: explain("stat", name, err)}
		}
		return entry{key: d.Name(), version: version}
	}
	return entry{}
}

// link examines a link.
func (w *walk) link(dir Location, base string) entry {
	name := w.below(dir, base)
	if !w.keep(name, false) && !w.keep(name, true) {
		return entry{}
	}
	version, folder, regular, err := statName(name, false)
	var target string
	if err == nil {
		target, err = filepath.EvalSymlinks(string(name))
	}
	switch {
	case errors.Is(err, syscall.ELOOP), err != nil:
		w.follow(NewFiles().Resolve(w.ctx, name))
		if !w.keep(name, false) {
			return entry{}
		}
		return entry{key: base, err: explain("follow link", name, err)}
	case !w.keep(name, folder), w.hasTarget(Location(target), folder):
		return entry{}
	case folder:
		w.follow(Location(target))
		return entry{key: base + "/"}
	case regular:
		w.follow(Location(target))
		return entry{key: base, version: version}
	}
	return entry{}
}

// follow reports the target of a link.
func (w *walk) follow(target Location) {
	if w.follows != nil {
		w.follows(target)
	}
}

// hasTarget reports whether the listing contains the target of a link anyway. If the target is a folder that it does not
// contain, it does from now on.
func (w *walk) hasTarget(target Location, folder bool) bool {
	if w.realRoot == "" {
		w.realRoot = w.root
		if root, err := filepath.EvalSymlinks(string(w.root)); err == nil {
			w.realRoot = Location(root)
		}
		w.linked = make(map[Location]bool)
	}
	if rest, ok := target.Below(w.realRoot); ok && w.reaches(rest, folder) {
		return true
	}
	if !folder {
		return false
	}
	if _, ok := w.realRoot.Below(target); ok {
		return true // a cycle through root
	}
	for dir := target; ; dir = dir.Dir() {
		if w.linked[dir] {
			return true
		}
		if dir.IsRoot() {
			break
		}
	}
	w.linked[target] = true
	return false
}

// reaches reports whether keep lets the walk reach rest, a path below root.
func (w *walk) reaches(rest string, folder bool) bool {
	if rest == "" {
		return true
	}
	name := w.root
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		name = w.below(name, part)
		if !w.keep(name, folder || i < len(parts)-1) {
			return false
		}
	}
	return true
}
