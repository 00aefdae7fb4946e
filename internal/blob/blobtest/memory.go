package blobtest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/internal/blob"
)

// Memory is a store in memory that simulates the loss of power: see Crash.
type Memory struct {
	mu    sync.Mutex // guards what follows
	files map[blob.Location]*content
	disk  map[blob.Location]*content // the names that are durable
	last  uint64                     // identity
}

// content of a file. data does not change once the file has a name.
type content struct {
	data     []byte
	synced   bool
	modified time.Time
	identity uint64
}

// version has another identity for each content, as in an object store.
func (c *content) version() blob.Version {
	return blob.Version{Size: int64(len(c.data)), Modified: c.modified.UnixNano(), Identity: c.identity}
}

func (m *Memory) newIdentity() uint64 {
	m.last++
	return m.last
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{files: make(map[blob.Location]*content), disk: make(map[blob.Location]*content)}
}

// Crash simulates a loss of power. Unsynced bytes are lost. Of the names created and removed since the last sync, those for which
// survives returns true keep their state (nil: none), as a file system may have written them.
func (m *Memory) Crash(survives func(name blob.Location) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if survives != nil {
		maps.DeleteFunc(m.disk, func(name blob.Location, _ *content) bool { return m.files[name] == nil && survives(name) })
		for name, c := range m.files {
			if survives(name) {
				m.disk[name] = c
			}
		}
	}
	clear(m.files)
	for name, c := range m.disk {
		if !c.synced {
			c = &content{modified: c.modified, identity: m.newIdentity()}
			m.disk[name] = c
		}
		m.files[name] = c
	}
}

// Stat implements Store.
func (m *Memory) Stat(ctx context.Context, name blob.Location) (blob.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return blob.Info{}, err
	}
	if c, ok := m.files[name]; ok {
		return blob.Info{Name: name, Version: c.version()}, nil
	}
	for other := range m.files {
		if _, ok := other.Below(name); ok {
			return blob.Info{Name: name, Folder: true}, nil
		}
	}
	return blob.Info{}, failed("stat", name, fs.ErrNotExist)
}

// List implements Store.
func (m *Memory) List(ctx context.Context, dir blob.Location, keep blob.Keep, _ blob.Linked) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		var list []blob.Info
		m.mu.Lock()
		for name, c := range m.files {
			if rest, ok := name.Below(dir); ok && rest != "" && keeps(keep, dir, rest) {
				list = append(list, blob.Info{Name: name, Version: c.version()})
			}
		}
		m.mu.Unlock()
		slices.SortFunc(list, func(a, b blob.Info) int { return cmp.Compare(a.Name, b.Name) })
		for _, info := range list {
			if err := context.Cause(ctx); err != nil {
				yield(blob.Info{}, err)
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// keeps reports whether keep accepts dir/rest and the folders above it.
func keeps(keep blob.Keep, dir blob.Location, rest string) bool {
	if keep == nil {
		return true
	}
	for i, c := range []byte(rest) {
		if c == '/' && !keep(dir.Join(rest[:i]), true) {
			return false
		}
	}
	return keep(dir.Join(rest), false)
}

// Open implements Store.
func (m *Memory) Open(ctx context.Context, name blob.Location, offset int64) (blob.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, ok := m.files[name]
	if !ok {
		return nil, failed("open", name, fs.ErrNotExist)
	}
	return memoryFile{io.NopCloser(bytes.NewReader(c.data[min(offset, int64(len(c.data))):])), c.version()}, nil
}

// memoryFile is open for reading. Its content never changes.
type memoryFile struct {
	io.ReadCloser
	version blob.Version
}

func (f memoryFile) Version() (blob.Version, error) { return f.version, nil }

// Create implements Store.
func (m *Memory) Create(ctx context.Context, private, final blob.Location) (blob.Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if private == "" {
		return &memoryWriter{store: m, name: final}, nil
	}
	if _, there := m.files[private]; there {
		return nil, failed("create", private, fs.ErrExist)
	}
	m.files[private] = &content{modified: time.Now(), identity: m.newIdentity()}
	return &memoryWriter{store: m, name: private, private: true}, nil
}

type memoryWriter struct {
	store   *Memory
	name    blob.Location
	private bool // the name exists from the start
	data    bytes.Buffer
	over    bool
}

func (w *memoryWriter) Write(p []byte) (int, error) {
	if w.over {
		return 0, failed("write", w.name, fs.ErrClosed)
	}
	return w.data.Write(p)
}

func (w *memoryWriter) Commit() error { return w.end(true) }

func (w *memoryWriter) Prepare() error { return w.end(false) }

func (w *memoryWriter) end(synced bool) error {
	if w.over {
		return failed("close", w.name, fs.ErrClosed)
	}
	w.over = true
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	c := &content{data: w.data.Bytes(), synced: synced, modified: time.Now(), identity: w.store.newIdentity()}
	w.store.files[w.name] = c
	if synced {
		w.store.disk[w.name] = c
	}
	return nil
}

func (w *memoryWriter) Abort() {
	if w.over {
		return
	}
	w.over = true
	if w.private {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		delete(w.store.files, w.name)
	}
}

// Sync implements Store.
func (m *Memory) Sync(ctx context.Context, names ...blob.Location) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for _, name := range names {
		c, ok := m.files[name]
		if !ok {
			return failed("sync", name, fs.ErrNotExist)
		}
		c.synced = true
		m.disk[name] = c
	}
	return nil
}

// Publish implements Store.
func (m *Memory) Publish(ctx context.Context, private, final blob.Location) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c, ok := m.files[private]
	if !ok {
		if _, ok := m.files[final]; ok {
			return nil
		}
		return fmt.Errorf("publish as %q: %w", final, failed("rename", private, fs.ErrNotExist))
	}
	delete(m.files, private)
	m.files[final] = c
	return nil
}

// SyncDir implements Store.
func (m *Memory) SyncDir(ctx context.Context, dir blob.Location) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
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
		// Names below a subfolder are synced with that one, unless it is gone.
		if child, _, ok := child(dir, name); ok && !there[child] {
			delete(m.disk, name)
		}
	}
	return nil
}

// child returns the name in dir that is name or is above it.
func child(dir, name blob.Location) (child string, isFile, ok bool) {
	rest, ok := name.Below(dir)
	if !ok || rest == "" {
		return "", false, false
	}
	child, _, deep := strings.Cut(rest, "/")
	return child, !deep, true
}

// Resolve implements Store.
func (*Memory) Resolve(_ context.Context, name blob.Location) blob.Location { return name }

// CheckWritable implements Store.
func (*Memory) CheckWritable(ctx context.Context, _ blob.Location) error { return context.Cause(ctx) }

// MkdirAll implements Store.
func (*Memory) MkdirAll(ctx context.Context, _ blob.Location) error { return context.Cause(ctx) }

// Remove implements Store.
func (m *Memory) Remove(ctx context.Context, names ...blob.Location) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		delete(m.files, name)
	}
	return context.Cause(ctx)
}

// RemoveAll implements Store.
func (m *Memory) RemoveAll(ctx context.Context, dir blob.Location) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.files {
		if _, ok := name.Below(dir); ok {
			delete(m.files, name)
		}
	}
	return context.Cause(ctx)
}

// RemoveEmpty implements Store.
func (*Memory) RemoveEmpty(ctx context.Context, _ blob.Location) error { return context.Cause(ctx) }

func failed(op string, name blob.Location, err error) error {
	return fmt.Errorf("%s %q: %w", op, name, err)
}
