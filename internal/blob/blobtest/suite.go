// Package blobtest has the contract tests for every [blob.Store], a store that fails on demand, and a store in memory.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bridgefour/bridgefour/internal/blob"
)

// Run tests a store. newStore returns one and an empty folder in it.
func Run(t *testing.T, newStore func(t *testing.T) (store blob.Store, dir blob.Location)) {
	t.Helper()
	for name, test := range map[string]func(room){
		"Write":       testWrite,
		"Private":     testPrivate,
		"Abort":       testAbort,
		"Replace":     testReplace,
		"Open":        testOpen,
		"Version":     testVersion,
		"Missing":     testMissing,
		"ListOrder":   testListOrder,
		"ListKeep":    testListKeep,
		"ListStop":    testListStop,
		"StrangeName": testStrangeName,
		"Sync":        testSync,
		"Publish":     testPublish,
		"Remove":      testRemove,
		"Resolve":     testResolve,
		"Cancel":      testCancel,
		"Concurrent":  testConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			store, dir := newStore(t)
			test(room{t, store, dir})
		})
	}
}

// room is the environment of one test.
type room struct {
	*testing.T
	store blob.Store
	dir   blob.Location
}

// Put writes a file with Prepare.
func Put(t *testing.T, store blob.Store, name blob.Location, data string) {
	t.Helper()
	w, err := store.Create(t.Context(), "", name)
	if err != nil {
		t.Fatalf("Create(%q): %v", name, err)
	}
	defer w.Abort()
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatalf("Write to %q: %v", name, err)
	}
	if err := w.Prepare(); err != nil {
		t.Fatalf("Prepare %q: %v", name, err)
	}
}

// Get reads a file.
func Get(t *testing.T, store blob.Store, name blob.Location) string {
	t.Helper()
	r, err := store.Open(t.Context(), name, 0)
	if err != nil {
		t.Fatalf("Open(%q): %v", name, err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("Read %q: %v", name, err)
	}
	return string(data)
}

// Names lists the files below dir, without dir.
func Names(t *testing.T, store blob.Store, dir blob.Location) []string {
	t.Helper()
	var names []string
	for info, err := range store.List(t.Context(), dir, nil, nil) {
		if err != nil {
			t.Fatalf("List(%q): %v", dir, err)
		}
		names = append(names, strings.TrimPrefix(string(info.Name), string(dir)+"/"))
	}
	return names
}

func wantNames(t *testing.T, store blob.Store, dir blob.Location, want ...string) {
	t.Helper()
	if got := Names(t, store, dir); !slices.Equal(got, want) {
		t.Errorf("List(%q) = %q, want %q", dir, got, want)
	}
}

func wantMissing(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s = %v, want fs.ErrNotExist", what, err)
	}
}

func testWrite(r room) {
	t, store, dir := r.T, r.store, r.dir
	for _, commit := range []bool{false, true} {
		name := dir.Join(fmt.Sprintf("sub/%t", commit))
		w, err := store.Create(t.Context(), "", name)
		if err != nil {
			t.Fatalf("Create: %v", err)
		}
		for _, s := range []string{"a", "", "bc"} {
			if n, err := io.WriteString(w, s); n != len(s) || err != nil {
				t.Fatalf("Write(%q) = %d, %v", s, n, err)
			}
		}
		_, err = store.Stat(t.Context(), name)
		wantMissing(t, "Stat before the end", err)
		end := w.Prepare
		if commit {
			end = w.Commit
		}
		if err := end(); err != nil {
			t.Fatalf("end: %v", err)
		}
		w.Abort()
		if got := Get(t, store, name); got != "abc" {
			t.Errorf("content = %q, want abc", got)
		}
		info, err := store.Stat(t.Context(), name)
		if err != nil || info.Name != name || info.Size != 3 || info.Folder || info.Modified == 0 {
			t.Errorf("Stat = %+v, %v", info, err)
		}
		if err := end(); err == nil {
			t.Error("a second end was taken")
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("a write after the end was taken")
		}
	}
	if info, err := store.Stat(t.Context(), dir+"/sub"); err != nil || !info.Folder {
		t.Errorf("Stat of the folder = %+v, %v", info, err)
	}
	wantNames(t, store, dir, "sub/false", "sub/true")
}

func testAbort(r room) {
	t, store, dir := r.T, r.store, r.dir
	Put(t, store, dir+"/kept", "old")
	for _, name := range []blob.Location{"/kept", "/new"} {
		w, err := store.Create(t.Context(), "", dir+name)
		if err != nil {
			t.Fatalf("Create: %v", err)
		}
		if _, err := io.WriteString(w, "new"); err != nil {
			t.Fatalf("Write: %v", err)
		}
		w.Abort()
		w.Abort()
		if err := w.Commit(); err == nil {
			t.Error("Commit after Abort was taken")
		}
	}
	wantNames(t, store, dir, "kept")
	if got := Get(t, store, dir+"/kept"); got != "old" {
		t.Errorf("content = %q, want old", got)
	}
}

func testPrivate(r room) {
	t, store, dir := r.T, r.store, r.dir
	private, final := dir.Join("private/map-0-1"), dir.Join("part")
	create := func() blob.Writer {
		t.Helper()
		w, err := store.Create(t.Context(), private, final)
		if err != nil {
			t.Fatalf("Create(%q, %q): %v", private, final, err)
		}
		if _, err := io.WriteString(w, "text"); err != nil {
			t.Fatalf("Write: %v", err)
		}
		return w
	}
	create().Abort()
	wantNames(t, store, dir)
	w := create()
	_, err := store.Stat(t.Context(), final)
	wantMissing(t, "Stat before Publish", err)
	if err := errors.Join(w.Prepare(), store.Sync(t.Context(), private)); err != nil {
		t.Fatalf("Prepare, Sync: %v", err)
	}
	w.Abort() // does nothing any more
	if _, err := store.Create(t.Context(), private, final); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of a private file that is there = %v, want fs.ErrExist", err)
	}
	for range 2 {
		if err := store.Publish(t.Context(), private, final); err != nil {
			t.Fatalf("Publish: %v", err)
		}
	}
	wantNames(t, store, dir, "part")
	if got := Get(t, store, final); got != "text" {
		t.Errorf("content = %q, want text", got)
	}
	// Without a final name the file is read where it is.
	if w, err = store.Create(t.Context(), private, ""); err != nil {
		t.Fatalf("Create(%q): %v", private, err)
	}
	if err := w.Commit(); err != nil {
		t.Errorf("Commit: %v", err)
	}
	if got := Get(t, store, private); got != "" {
		t.Errorf("content = %q, want none", got)
	}
}

func testReplace(r room) {
	t, store, dir := r.T, r.store, r.dir
	Put(t, store, dir+"/f", "old and long")
	Put(t, store, dir+"/f", "new")
	if got := Get(t, store, dir+"/f"); got != "new" {
		t.Errorf("content = %q, want new", got)
	}
	wantNames(t, store, dir, "f")
}

func testOpen(r room) {
	t, store, dir := r.T, r.store, r.dir
	Put(t, store, dir+"/f", "0123456789")
	for offset, want := range map[int64]string{0: "0123456789", 4: "456789", 10: "", 99: ""} {
		r, err := store.Open(t.Context(), dir+"/f", offset)
		if err != nil {
			t.Fatalf("Open at %d: %v", offset, err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || string(got) != want {
			t.Errorf("Open at %d reads %q, %v, want %q", offset, got, err, want)
		}
	}
}

// testVersion: one version wherever it is asked for, and another one for another content. An open file keeps its own.
func testVersion(r room) {
	t, store, name := r.T, r.store, r.dir+"/f"
	version := func() blob.Version {
		t.Helper()
		info, err := store.Stat(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Version
	}
	Put(t, store, name, "first")
	first := version()
	for info, err := range store.List(t.Context(), r.dir, nil, nil) {
		if err != nil || info.Version != first {
			t.Errorf("List gives version %+v, %v, want %+v as Stat", info.Version, err, first)
		}
	}
	file, err := store.Open(t.Context(), name, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, text := range []string{"other", "longer", "short", "first"} {
		before := version()
		Put(t, store, name, text)
		if change := before.To(version()); change != blob.Changed {
			t.Errorf("a file that was replaced is %d, want Changed", change)
		}
		if open, err := file.Version(); err != nil || first.To(open) != blob.Same {
			t.Errorf("Version of an open file = %+v, %v, after its name has another; want %+v", open, err, first)
		}
	}
}

func testMissing(r room) {
	t, store, dir := r.T, r.store, r.dir
	_, err := store.Stat(t.Context(), dir+"/none")
	wantMissing(t, "Stat", err)
	_, err = store.Open(t.Context(), dir+"/none", 0)
	wantMissing(t, "Open", err)
	wantMissing(t, "Sync", store.Sync(t.Context(), dir+"/none"))
	wantMissing(t, "Publish", store.Publish(t.Context(), dir+"/none", dir+"/to"))
	wantNames(t, store, dir+"/none")
	if err := store.SyncDir(t.Context(), dir+"/none"); err != nil {
		t.Errorf("SyncDir: %v", err)
	}
	if err := store.CheckWritable(t.Context(), dir+"/none/at/all"); err != nil {
		t.Errorf("CheckWritable: %v", err)
	}
	if !strings.Contains(err.Error(), "none") {
		t.Errorf("error %q does not name the file", err)
	}
}

// In byte order of full names, names below "a" sort after "a.b" and before "a0".
func testListOrder(r room) {
	t, store, dir := r.T, r.store, r.dir
	want := []string{"A", "a!/x", "a.b", "a/b/c", "a/c", "a0", "b", "\xff"}
	for _, name := range slices.Backward(want) {
		Put(t, store, dir.Join(name), name)
	}
	wantNames(t, store, dir, want...)
	wantNames(t, store, dir+"/a", "b/c", "c")
	for info, err := range store.List(t.Context(), dir, nil, nil) {
		if size := int64(len(info.Name) - len(dir) - 1); err != nil || info.Size != size {
			t.Errorf("List gives %+v, %v, want size %d", info, err, size)
		}
	}
}

func testListKeep(r room) {
	t, store, dir := r.T, r.store, r.dir
	for _, name := range []string{"a/1", "a/skip/2", ".h/3", "b/.h", "b/4", "5"} {
		Put(t, store, dir.Join(name), "")
	}
	var got []string
	keep := func(name blob.Location, folder bool) bool {
		base := name.Base()
		if base == "2" || base == "3" {
			t.Errorf("keep was asked for %q, below a folder that is not kept", name)
		}
		return base[0] != '.' && (!folder || base != "skip")
	}
	for info, err := range store.List(t.Context(), dir, keep, nil) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		got = append(got, strings.TrimPrefix(string(info.Name), string(dir)+"/"))
	}
	if want := []string{"5", "a/1", "b/4"}; !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q", got, want)
	}
}

func testListStop(r room) {
	t, store, dir := r.T, r.store, r.dir
	for _, name := range []string{"a/1", "a/2", "b"} {
		Put(t, store, dir.Join(name), "")
	}
	n := 0
	for _, err := range store.List(t.Context(), dir, nil, nil) {
		if n++; err != nil || n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d names were listed before the break, want 2", n)
	}
}

func testStrangeName(r room) {
	t, store, dir := r.T, r.store, r.dir
	names := []string{" ", "a b", "c\nd", "é", "\x80\xfe", "*?[a]", `\`, "'\"$(x)", strings.Repeat("n", 255)}
	slices.Sort(names)
	for _, name := range names {
		Put(t, store, dir.Join(name), "x")
		if err := store.Sync(t.Context(), dir.Join(name)); err != nil {
			t.Errorf("Sync(%q): %v", name, err)
		}
	}
	wantNames(t, store, dir, names...)
}

func testSync(r room) {
	t, store, dir := r.T, r.store, r.dir
	if err := store.Sync(t.Context()); err != nil {
		t.Errorf("Sync of nothing: %v", err)
	}
	for _, n := range []int{1, 20, 300} {
		var names []blob.Location
		for i := range n {
			name := dir.Join(fmt.Sprintf("%d/%d/%d", n, i%2, i))
			names = append(names, name)
			Put(t, store, name, "0123456789")
		}
		if err := store.Sync(t.Context(), names...); err != nil {
			t.Errorf("Sync of %d: %v", n, err)
		}
		names[n/2] = dir + "/none"
		wantMissing(t, fmt.Sprintf("Sync of %d, one missing", n), store.Sync(t.Context(), names...))
	}
	if err := store.SyncDir(t.Context(), dir); err != nil {
		t.Errorf("SyncDir: %v", err)
	}
}

func testPublish(r room) {
	t, store, dir := r.T, r.store, r.dir
	Put(t, store, dir+"/private/f", "new")
	Put(t, store, dir+"/public", "old")
	for range 2 {
		if err := store.Publish(t.Context(), dir+"/private/f", dir+"/public"); err != nil {
			t.Fatalf("Publish: %v", err)
		}
		if got := Get(t, store, dir+"/public"); got != "new" {
			t.Errorf("content = %q, want new", got)
		}
	}
	wantNames(t, store, dir, "public")
	if err := store.RemoveEmpty(t.Context(), dir+"/private"); err != nil {
		t.Errorf("RemoveEmpty: %v", err)
	}
}

func testRemove(r room) {
	t, store, dir := r.T, r.store, r.dir
	for _, name := range []string{"a", "b", "c/d", "c/e/f", "cc", "g/h"} {
		Put(t, store, dir.Join(name), "")
	}
	for range 2 {
		if err := store.Remove(t.Context(), dir+"/a", dir+"/b", dir+"/none"); err != nil {
			t.Errorf("Remove: %v", err)
		}
		if err := store.RemoveAll(t.Context(), dir+"/c"); err != nil {
			t.Errorf("RemoveAll: %v", err)
		}
		if err := store.RemoveEmpty(t.Context(), dir+"/g"); err != nil {
			t.Errorf("RemoveEmpty of a full folder: %v", err)
		}
	}
	if err := store.Remove(t.Context()); err != nil {
		t.Errorf("Remove of nothing: %v", err)
	}
	wantNames(t, store, dir, "cc", "g/h")
}

func testResolve(r room) {
	t, store, dir := r.T, r.store, r.dir
	Put(t, store, dir.Join("a/b"), "")
	resolved := store.Resolve(t.Context(), dir)
	for _, name := range []string{"a/b", "a", "none/at/all"} {
		if got, want := store.Resolve(t.Context(), dir.Join(name)), resolved.Join(name); got != want {
			t.Errorf("Resolve(%q) = %q, want %q", dir.Join(name), got, want)
		}
	}
}

func testCancel(r room) {
	t, store, dir := r.T, r.store, r.dir
	Put(t, store, dir+"/f", "")
	cause := errors.New("the cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for _, err := range store.List(ctx, dir, nil, nil) {
		if !errors.Is(err, cause) {
			t.Errorf("List = %v, want %v", err, cause)
		}
	}
}

func testConcurrent(r room) {
	t, store, dir := r.T, r.store, r.dir
	const writers = 8
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			w, err := store.Create(t.Context(), "", dir+"/same")
			if err != nil {
				t.Errorf("Create: %v", err)
				return
			}
			defer w.Abort()
			if _, err := w.Write(bytes.Repeat([]byte{byte('a' + i)}, 1<<16)); err != nil {
				t.Errorf("Write: %v", err)
			}
			if err := w.Commit(); err != nil {
				t.Errorf("Commit: %v", err)
			}
		})
	}
	wg.Wait()
	wantNames(t, store, dir, "same")
	got := Get(t, store, dir+"/same")
	if want := strings.Repeat(got[:1], 1<<16); got != want {
		t.Error("the file mixes what two writers wrote")
	}
}
