package blob_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/blob/blobtest"
)

func TestMemory(t *testing.T) {
	blobtest.Run(t, func(*testing.T) (blob.Store, blob.Location) { return blobtest.NewMemory(), "/some/dir" })
}

func TestFiles(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) (blob.Store, blob.Location) {
		t.Helper()
		return blob.NewFiles(), blob.Location(t.TempDir())
	})
}

func TestFaultyThatLives(t *testing.T) {
	blobtest.Run(t, func(*testing.T) (blob.Store, blob.Location) {
		return &blobtest.Faulty{Store: blobtest.NewMemory()}, "/some/dir"
	})
}

func TestOpen(t *testing.T) {
	stores := blob.Stores{"mem": blobtest.NewMemory()}
	for _, test := range []struct{ text, want, err string }{
		{"/a/b", "/a/b", ""},
		{"/a//b/../c/", "/a/c", ""},
		{"/", "/", ""},
		{"file:///a/\xff", "/a/\xff", ""},
		{"mem://x/y", "mem://x/y", ""},
		{"mem://x", "mem://x", ""},
		{"mem://x//y/../../z/", "mem://x/z", ""},
		{"/a://b", "/a:/b", ""},
		{"a/b", "", "not an absolute path"},
		{"", "", "not an absolute path"},
		{"file://host/a", "", "names a host"},
		{"mem:///a", "", "names no host or bucket"},
		{"s3://bucket/x", "", "s3:// is not supported"},
		{"gopher+x://a", "", "gopher+x:// is not supported"},
	} {
		store, got, err := stores.Open(test.text)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("Open(%q) = %v, want an error with %q", test.text, err, test.err)
			}
			continue
		}
		if err != nil || string(got) != test.want || store == nil {
			t.Errorf("Open(%q) = %v, %q, %v, want %q", test.text, store, got, err, test.want)
		}
	}
}

func TestSyncOfSeveralStores(t *testing.T) {
	one, two := blobtest.NewMemory(), blobtest.NewMemory()
	stores := blob.Stores{"one": one, "two": two}
	names := []blob.Location{"one://x/a", "two://x/b", "one://x/c"}
	for _, name := range names {
		store, err := stores.Of(name)
		must(t, err)
		blobtest.Put(t, store, name, "text")
	}
	must(t, stores.Sync(t.Context(), names...))
	one.Crash(nil)
	two.Crash(nil)
	for i, store := range []blob.Store{one, two, one} {
		if got := blobtest.Get(t, store, names[i]); got != "text" {
			t.Errorf("%s = %q after the crash, want text", names[i], got)
		}
	}
	if err := stores.Sync(t.Context(), "/tmp", "three://x"); err == nil {
		t.Error("Sync of a store that is not there = nil, want an error")
	}
}

func TestLocation(t *testing.T) {
	for _, test := range []struct {
		l, dir blob.Location
		base   string
		root   bool
	}{
		{"/", "/", "", true},
		{"/a", "/", "a", false},
		{"/a/b", "/a", "b", false},
		{"s3://bucket", "s3://bucket", "bucket", true},
		{"s3://bucket/a", "s3://bucket", "a", false},
		{"s3://bucket/a/b", "s3://bucket/a", "b", false},
	} {
		if dir, base := test.l.Dir(), test.l.Base(); dir != test.dir || base != test.base || test.l.IsRoot() != test.root {
			t.Errorf("%q: Dir() = %q, Base() = %q, IsRoot() = %v, want %q, %q, %v", test.l, dir, base, test.l.IsRoot(), test.dir, test.base, test.root)
		}
		if got := test.dir.Join(test.base); !test.root && got != test.l {
			t.Errorf("Join(%q, %q) = %q, want %q", test.dir, test.base, got, test.l)
		}
		if rest, ok := test.l.Below(test.dir); !ok || !test.root && rest != test.base {
			t.Errorf("%q.Below(%q) = %q, %v, want %q", test.l, test.dir, rest, ok, test.base)
		}
	}
	for dir, l := range map[blob.Location]blob.Location{"/a": "/ab", "/a/b": "/a", "s3://b": "s3://bc/d", "/s3:": "s3://b"} {
		if rest, ok := l.Below(dir); ok {
			t.Errorf("%q.Below(%q) = %q, want it not to be", l, dir, rest)
		}
	}
}

func TestMemoryCrash(t *testing.T) {
	m := blobtest.NewMemory()
	for _, name := range []blob.Location{"/d/unsynced", "/d/synced", "/d/synced.2", "/d/moved"} {
		blobtest.Put(t, m, name, "data")
	}
	must(t, m.Sync(t.Context(), "/d/synced", "/d/synced.2", "/d/moved"))
	must(t, m.Publish(t.Context(), "/d/moved", "/e/moved"))
	blobtest.Put(t, m, "/f/unsynced", "data")
	must(t, m.SyncDir(t.Context(), "/f"))
	blobtest.Put(t, m, "/d/survivor", "data")
	must(t, m.Remove(t.Context(), "/d/synced.2"))
	m.Crash(func(name blob.Location) bool { return name == "/d/survivor" || name == "/d/synced.2" })
	if got, want := blobtest.Names(t, m, "/"), []string{"/d/moved", "/d/survivor", "/d/synced", "/f/unsynced"}; !slices.Equal(got, want) {
		t.Errorf("after the crash: %q, want %q", got, want)
	}
	if got := blobtest.Get(t, m, "/f/unsynced"); got != "" {
		t.Errorf("unsynced bytes = %q, want none", got)
	}
	if got := blobtest.Get(t, m, "/d/synced"); got != "data" {
		t.Errorf("synced bytes = %q, want data", got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestListLinks(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	s := blob.NewFiles()
	for _, name := range []string{dir + "/data/1", dir + "/.store/2", dir + "/file", other + "/deep/3", other + "/4"} {
		blobtest.Put(t, s, blob.Location(name), filepath.Base(name))
	}
	for link, target := range map[string]string{
		"latest":         "data",          // had already
		"alias":          "file",          // had already
		"data/up":        "..",            // circle
		"data/self":      "self",          // loop of links
		"gone":           "no such file",  // dangling
		"hidden":         ".store",        // not had: hidden
		"hidden.2":       ".store/2",      // the same as a file
		"out":            other,           // elsewhere
		"out2":           other + "/deep", // within what out led to
		"outfile":        other + "/4",    // files by link count each
		"root":           "/",             // circle through the root folder
		"null":           "/dev/null",     // special
		".store/hidden3": other + "/deep", // never met
	} {
		must(t, os.Symlink(target, filepath.Join(dir, link)))
	}
	must(t, os.Symlink(other, filepath.Join(other, "deep/back")))
	must(t, syscall.Mkfifo(dir+"/pipe", 0o600))
	keep := func(name blob.Location, _ bool) bool { return name.Base()[0] != '.' }
	var got []string
	var targets []string
	linked := func(target blob.Location) {
		targets = append(targets, strings.NewReplacer(dir, "dir", other, "other").Replace(string(target)))
	}
	for info, err := range s.List(t.Context(), blob.Location(dir), keep, linked) {
		name := strings.TrimPrefix(string(info.Name), dir+"/")
		switch {
		case errors.Is(err, fs.ErrNotExist):
			name += ": gone"
		case errors.Is(err, syscall.ELOOP):
			name += ": loop"
		case err != nil:
			t.Errorf("List: %v", err)
		}
		got = append(got, name)
	}
	want := []string{
		"data/1", "data/self: loop", "file", "gone: gone", "hidden.2", "hidden/2", "out/4", "out/deep/3", "outfile",
	}
	if !slices.Equal(got, want) {
		t.Errorf("List =\n%q, want\n%q", got, want)
	}
	want = []string{"dir/.store", "dir/.store/2", "dir/data/self", "dir/no such file", "other", "other/4"}
	if slices.Sort(targets); !slices.Equal(targets, want) {
		t.Errorf("List follows links to\n%q, want\n%q", targets, want)
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/a/b", 0o700))
	for link, target := range map[string]string{"up": "a/b/..", "gone": "up/../a/gone/x", "chain": dir + "/gone", "a/self": "self", "a/other": "../b/other", "b": "a"} {
		must(t, os.Symlink(target, filepath.Join(dir, link)))
	}
	for name, want := range map[string]string{
		"a/b": "a/b", "up/b": "a/b", "up/new/x": "a/new/x", "gone/y": "a/gone/x/y", "chain": "a/gone/x", "a/self/z": "a/self/z", "b/other": "a/other",
	} {
		if got := blob.NewFiles().Resolve(t.Context(), blob.Location(dir+"/"+name)); string(got) != dir+"/"+want {
			t.Errorf("Resolve(%s) = %s, want %s below %s", name, got, want, dir)
		}
	}
}

func TestListOfLinkedRoot(t *testing.T) {
	dir := t.TempDir()
	s := blob.NewFiles()
	blobtest.Put(t, s, blob.Location(dir+"/real/x"), "")
	must(t, os.Symlink("real", dir+"/link"))
	must(t, os.Symlink(".", dir+"/real/dot"))
	if got, want := blobtest.Names(t, s, blob.Location(dir+"/link")), []string{"x"}; !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q", got, want)
	}
	if got := blobtest.Names(t, s, blob.Location(dir+"/link/x")); got != nil {
		t.Errorf("List of a file = %q, want none", got)
	}
}

func TestListLargeFolder(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i := range 3000 {
		name := fmt.Sprintf("%04d", i)
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
		want = append(want, name)
	}
	if got := blobtest.Names(t, blob.NewFiles(), blob.Location(dir)); !slices.Equal(got, want) {
		t.Errorf("List gives %d names, want %d in order", len(got), len(want))
	}
}

func TestSpecial(t *testing.T) {
	name := t.TempDir() + "/pipe"
	must(t, syscall.Mkfifo(name, 0o600))
	s := blob.NewFiles()
	_, err := s.Stat(t.Context(), blob.Location(name))
	if special, ok := errors.AsType[*blob.SpecialError](err); !ok || !strings.Contains(special.Error(), "named pipe") {
		t.Errorf("Stat = %v, want a SpecialError", err)
	}
	if _, err := s.Open(t.Context(), blob.Location(name), 0); err == nil { // and it does not wait for a writer
		t.Error("Open of a pipe succeeded")
	}
	_, err = s.Stat(t.Context(), "/dev/null")
	if err == nil || !strings.Contains(err.Error(), "a device") {
		t.Errorf("Stat(/dev/null) = %v", err)
	}
}

func TestRemoveAllRefuses(t *testing.T) {
	for _, dir := range []string{"", "/", "//", "/x/..", "relative"} {
		if err := blob.NewFiles().RemoveAll(t.Context(), blob.Location(dir)); err == nil {
			t.Errorf("RemoveAll(%q) was carried out", dir)
		}
	}
}

func TestErrorsSayWhy(t *testing.T) {
	dir := t.TempDir()
	s := blob.NewFiles()
	blobtest.Put(t, s, blob.Location(dir+"/file"), "")
	_, err := s.Create(t.Context(), "", blob.Location(dir+"/file/below"))
	if err == nil || !strings.Contains(err.Error(), dir+"/file") || !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("Create below a file = %v", err)
	}
	w, err := s.Create(t.Context(), "", blob.Location(dir+"/folder"))
	must(t, err)
	must(t, s.MkdirAll(t.Context(), blob.Location(dir+"/folder")))
	if err := w.Commit(); !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EEXIST) {
		t.Errorf("Commit over a folder = %v", err)
	}
	if got := blobtest.Names(t, s, blob.Location(dir)); !slices.Equal(got, []string{"file"}) {
		t.Errorf("left: %q", got)
	}
}

func TestFullFileSystem(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("x")
	must(t, f.Close())
	dir := t.TempDir()
	err = blob.Explain("write", blob.Location(dir+"/no/such/f"), err)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v is not ENOSPC", err)
	}
	for _, part := range []string{"no/such/f", "no space left", "file system of " + dir + " has", "make room"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

func BenchmarkSync(b *testing.B) {
	for _, n := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, dir := blob.NewFiles(), b.TempDir()
			names := make([]blob.Location, n)
			for i := range names {
				names[i] = blob.Location(fmt.Sprintf("%s/%d", dir, i))
			}
			for b.Loop() {
				b.StopTimer()
				for _, name := range names {
					if err := os.Remove(string(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
						b.Fatal(err)
					}
					if err := os.WriteFile(string(name), []byte("0123456789"), 0o600); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				if err := s.Sync(context.Background(), names...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	const files = 100_000
	dir := b.TempDir()
	for i := range files {
		if err := os.WriteFile(fmt.Sprintf("%s/%06d", dir, i), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := 0
		for _, err := range blob.NewFiles().List(b.Context(), blob.Location(dir), nil, nil) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != files {
			b.Fatalf("%d files", n)
		}
	}
}

// TestOpenPipe opens a file that its owner replaces by a pipe all the time: Open does not wait for the other end of the pipe.
func TestOpenPipe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name, file, pipe := dir+"/name", dir+"/file", dir+"/pipe"
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, syscall.Mkfifo(pipe, 0o600))
	must(t, os.Link(file, name))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			from := []string{pipe, file}[i%2]
			if os.Link(from, dir+"/next") != nil || os.Rename(dir+"/next", name) != nil {
				return
			}
		}
	}()
	store := blob.NewFiles()
	const tries = 5000
	for range tries {
		f, err := store.Open(t.Context(), blob.Location(name), 0)
		if err == nil {
			must(t, f.Close())
		} else if _, ok := errors.AsType[*blob.SpecialError](err); !ok {
			t.Fatal(err)
		}
	}
	close(stop)
	<-stopped
}
