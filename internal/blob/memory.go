package blob

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a store in memory, for tests. It knows what a loss of power would leave: see Crash.
type Memory struct {
	mu    sync.Mutex // guards what follows
	files map[string]*content
	disk  map[string]*content // the names that are durable
}

// content is one file's. data does not change once the file has a name.
type content struct {
	data     []byte
	synced   bool
	modified time.Time
}

// NewMemory gives an empty store.
func NewMemory() *Memory {
	return &Memory{files: make(map[string]*content), disk: make(map[string]*content)}
}

// Crash is a loss of power: what was not made durable is lost. Bytes of files that were not synced are, always; of the names
// given and taken since, those stay as they are for which survives is true (nil: none), as a file system may have written them.
func (m *Memory) Crash(survives func(name string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if survives != nil {
		maps.DeleteFunc(m.disk, func(name string, _ *content) bool { return m.files[name] == nil && survives(name) })
		for name, c := range m.files {
			if survives(name) {
				m.disk[name] = c
			}
		}
	}
	clear(m.files)
	for name, c := range m.disk {
		if !c.synced {
			c = &content{modified: c.modified}
			m.disk[name] = c
		}
		m.files[name] = c
	}
}

// Stat implements Store.
func (m *Memory) Stat(ctx context.Context, name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return Info{}, err
	}
	if c, ok := m.files[name]; ok {
		return Info{Name: name, Size: int64(len(c.data)), Modified: c.modified}, nil
	}
	for other := range m.files {
		if strings.HasPrefix(other, strings.TrimSuffix(name, "/")+"/") {
			return Info{Name: name, Folder: true}, nil
		}
	}
	return Info{}, explain("look at", name, fs.ErrNotExist)
}

// List implements Store.
func (m *Memory) List(ctx context.Context, dir string, keep Keep) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		dir = strings.TrimSuffix(path.Clean(dir), "/")
		var list []Info
		m.mu.Lock()
		for name, c := range m.files {
			if rest, ok := strings.CutPrefix(name, dir+"/"); ok && keeps(keep, dir, rest) {
				list = append(list, Info{Name: name, Size: int64(len(c.data)), Modified: c.modified})
			}
		}
		m.mu.Unlock()
		slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
		for _, info := range list {
			if err := context.Cause(ctx); err != nil {
				yield(Info{}, err)
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// keeps reports whether keep wants dir/rest and the folders on the way to it.
func keeps(keep Keep, dir, rest string) bool {
	if keep == nil {
		return true
	}
	for i, c := range []byte(rest) {
		if c == '/' && !keep(dir+"/"+rest[:i], true) {
			return false
		}
	}
	return keep(dir+"/"+rest, false)
}

// Open implements Store.
func (m *Memory) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, ok := m.files[name]
	if !ok {
		return nil, explain("open", name, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(c.data[min(offset, int64(len(c.data))):])), nil
}

// Create implements Store.
func (m *Memory) Create(ctx context.Context, name string) (Writer, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return &memoryWriter{store: m, name: name}, nil
}

type memoryWriter struct {
	store *Memory
	name  string
	data  bytes.Buffer
	over  bool
}

func (w *memoryWriter) Write(p []byte) (int, error) {
	if w.over {
		return 0, explain("write", w.name, fs.ErrClosed)
	}
	return w.data.Write(p)
}

func (w *memoryWriter) Commit() error { return w.end(true) }

func (w *memoryWriter) Prepare() error { return w.end(false) }

func (w *memoryWriter) end(synced bool) error {
	if w.over {
		return explain("close", w.name, fs.ErrClosed)
	}
	w.over = true
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	c := &content{data: w.data.Bytes(), synced: synced, modified: time.Now()}
	w.store.files[w.name] = c
	if synced {
		w.store.disk[w.name] = c
	}
	return nil
}

func (w *memoryWriter) Abort() { w.over = true }

// Sync implements Store.
func (m *Memory) Sync(ctx context.Context, names ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for _, name := range names {
		c, ok := m.files[name]
		if !ok {
			return explain("sync", name, fs.ErrNotExist)
		}
		c.synced = true
		m.disk[name] = c
	}
	return nil
}

// Publish implements Store.
func (m *Memory) Publish(ctx context.Context, from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c, ok := m.files[from]
	if !ok {
		if _, ok := m.files[to]; ok {
			return nil
		}
		return fmt.Errorf("publish as %q: %w", to, explain("rename", from, fs.ErrNotExist))
	}
	delete(m.files, from)
	m.files[to] = c
	return nil
}

// SyncDir implements Store.
func (m *Memory) SyncDir(ctx context.Context, dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	dir = path.Clean(dir)
	there := make(map[string]bool) // files and folders in dir
	for name, c := range m.files {
		if child, isFile, ok := child(dir, name); ok {
			there[child] = true
			if isFile {
				m.disk[name] = c
			}
		}
	}
	for name := range m.disk {
		// A folder's own names are its own matter, unless it is gone.
		if child, _, ok := child(dir, name); ok && !there[child] {
			delete(m.disk, name)
		}
	}
	return nil
}

// child gives the name in dir that name is or lies below.
func child(dir, name string) (child string, isFile, ok bool) {
	rest, ok := under(dir, name)
	if !ok || rest == "" {
		return "", false, false
	}
	child, _, deep := strings.Cut(rest, "/")
	return child, !deep, true
}

// CheckWritable implements Store.
func (*Memory) CheckWritable(ctx context.Context, _ string) error { return context.Cause(ctx) }

// MkdirAll implements Store.
func (*Memory) MkdirAll(ctx context.Context, _ string) error { return context.Cause(ctx) }

// Remove implements Store.
func (m *Memory) Remove(ctx context.Context, names ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		delete(m.files, name)
	}
	return context.Cause(ctx)
}

// RemoveAll implements Store.
func (m *Memory) RemoveAll(ctx context.Context, dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.files {
		if _, ok := under(path.Clean(dir), name); ok {
			delete(m.files, name)
		}
	}
	return context.Cause(ctx)
}

// RemoveEmpty implements Store.
func (*Memory) RemoveEmpty(ctx context.Context, _ string) error { return context.Cause(ctx) }
