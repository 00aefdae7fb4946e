package commit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/blob/blobtest"
	"github.com/bridgefour/bridgefour/internal/commit"
	"github.com/bridgefour/bridgefour/internal/layout"
)

const (
	dir = blob.Location("/data/out")
	uid = "job-uid"
)

// job is an output with n parts, whose attempts are prepared.
type job struct {
	out    commit.Output
	parts  []commit.Part
	text   map[string]string // expected content of each published file
	absent []uint64          // tasks without an output
}

func newJob(dir blob.Location, n uint64, absent ...uint64) *job {
	j := &job{
		out: commit.Output{
			Dir: dir, UID: uid, Tasks: n,
			Manifest: api.Manifest{
				Job: 7, Name: "a name", Program: api.Program{Builtin: "wordcount"}, Missing: absent,
				Started: time.Unix(1, 0).UTC(), Ended: time.Unix(2, 0).UTC(),
			},
		},
		text: make(map[string]string), absent: absent,
	}
	for i := range n {
		if slices.Contains(absent, i) {
			continue
		}
		text := strings.Repeat("x", int(i)+1)
		j.parts = append(j.parts, commit.Part{
			Index: i, Size: i + 1, Records: 10 * i, Checksum: i, File: fmt.Sprintf("map-%d-%d", i, 100+i),
		})
		j.text[layout.Part(i, n)] = text
	}
	return j
}

// named gives the parts names of their own, some of them in folders.
func (j *job) named() *job {
	j.out.Manifest.NameParts = "{}"
	for i := range j.parts {
		p := &j.parts[i]
		name := fmt.Sprintf("sample %d.vcf", p.Index)
		if p.Index%2 == 1 {
			name = fmt.Sprintf("odd/%d/%s", p.Index%4, name)
		}
		j.text[name] = j.text[j.public(p)]
		delete(j.text, j.public(p))
		p.Name = name
	}
	return j
}

// public is the name of a published file.
func (j *job) public(p *commit.Part) string {
	switch {
	case p.Result:
		return layout.Result
	case p.Name != "":
		return p.Name
	}
	return layout.Part(p.Index, j.out.Tasks)
}

// withResult adds a collected result.
func (j *job) withResult(text string) *job {
	j.text[layout.Result] = text
	return j.withoutResult(uint64(len(text)))
}

// withoutResult adds a collected result that has no file.
func (j *job) withoutResult(size uint64) *job {
	j.parts = append(j.parts, commit.Part{Result: true, Size: size, File: "collect-0-999"})
	return j
}

func (j *job) seq() iter.Seq2[commit.Part, error] {
	return func(yield func(commit.Part, error) bool) {
		for _, p := range j.parts {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// prepare writes the files of the attempts, and one of an attempt that lost.
func (j *job) prepare(t *testing.T, store blob.Store) {
	t.Helper()
	private := j.out.Dir.Join(layout.Private(j.out.UID))
	names := []blob.Location{private.Join("map-0-55")}
	blobtest.Put(t, store, names[0], "loser")
	for _, p := range j.parts {
		if text, ok := j.text[j.public(&p)]; ok {
			names = append(names, private.Join(p.File))
			blobtest.Put(t, store, private.Join(p.File), text)
		}
	}
	if err := store.Sync(t.Context(), names...); err != nil {
		t.Fatal(err)
	}
}

func (j *job) manifest() string {
	if j.out.Partial {
		return layout.Partial
	}
	return layout.Success
}

// verify checks that the output is complete and contains nothing else but extra.
func (j *job) verify(t *testing.T, store blob.Store, extra ...string) {
	t.Helper()
	want := append(slices.Sorted(maps.Keys(j.text)), j.manifest())
	want = append(want, extra...)
	slices.Sort(want)
	if got := blobtest.Names(t, store, j.out.Dir); !slices.Equal(got, want) {
		t.Fatalf("output holds %q, want %q", got, want)
	}
	for name, text := range j.text {
		if got := blobtest.Get(t, store, j.out.Dir.Join(name)); got != text {
			t.Errorf("%s = %q, want %q", name, got, text)
		}
	}
	wantManifest := j.out.Manifest
	if _, ok := j.text[layout.Result]; ok {
		wantManifest.Result = layout.Result
	}
	wantManifest.Parts = []api.ManifestPart{}
	for _, p := range j.parts {
		if !p.Result {
			wantManifest.Parts = append(wantManifest.Parts, api.ManifestPart{
				Part: j.public(&p), Size: p.Size, Records: p.Records, XXH64: fmt.Sprintf("%016x", p.Checksum),
			})
		}
	}
	var manifest api.Manifest
	text := blobtest.Get(t, store, j.out.Dir.Join(j.manifest()))
	if err := json.Unmarshal([]byte(text), &manifest); err != nil {
		t.Fatalf("manifest: %v\n%s", err, text)
	}
	// The uid is in the file too; api.Manifest need not have it.
	if f := reflect.ValueOf(&manifest).Elem().FieldByName("UID"); f.IsValid() {
		f.SetString("")
	}
	if !reflect.DeepEqual(manifest, wantManifest) {
		t.Errorf("manifest = %+v, want %+v", manifest, wantManifest)
	}
}

func (j *job) publish(t *testing.T, store blob.Store) commit.Summary {
	t.Helper()
	s, err := commit.Publish(t.Context(), store, j.out, j.seq())
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	return s
}

func TestPublish(t *testing.T) {
	for name, j := range map[string]*job{
		"parts":   newJob(dir, 3),
		"one":     newJob(dir, 1),
		"none":    newJob(dir, 0),
		"result":  newJob(dir, 200).withResult("result"),
		"empty":   newJob(dir, 2).withResult(""),
		"limited": newJob(dir, 2).withoutResult(0), // it is over its size limit
		"missing": newJob(dir, 4, 0, 3),
		"named":   newJob(dir, 7).named().withResult("result"),
	} {
		t.Run(name, func(t *testing.T) {
			store := blobtest.NewMemory()
			j.out.Partial = name == "missing"
			j.prepare(t, store)
			_, collected := j.text[layout.Result]
			want := commit.Summary{Result: collected}
			for _, p := range j.parts {
				if !p.Result {
					want.Parts++
					want.Bytes += p.Size
					want.Records += p.Records
				}
			}
			for range 3 {
				if got := j.publish(t, store); got != want {
					t.Errorf("Summary = %+v, want %+v", got, want)
				}
				j.verify(t, store)
				store.Crash(nil)
			}
		})
	}
}

func TestPublishOnFiles(t *testing.T) {
	store, dir := blob.NewFiles(), blob.Location(t.TempDir())
	for _, j := range []*job{newJob(dir, 300).withResult("result"), newJob(dir, 300).named().withResult("result")} {
		j.prepare(t, store)
		j.publish(t, store)
		j.verify(t, store)
		if _, err := os.Stat(string(dir) + "/_temporary"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("_temporary: %v, want it gone", err)
		}
		if err := commit.Abort(t.Context(), store, j.out); err != nil {
			t.Errorf("Abort: %v", err)
		}
		if entries, err := os.ReadDir(string(dir)); err != nil || len(entries) > 0 {
			t.Errorf("after Abort: %v, %v, want nothing", entries, err)
		}
	}
}

// TestLinkOutOfTheOutput: a link in the output folder must not lead parts out of it.
func TestLinkOutOfTheOutput(t *testing.T) {
	store, dir, outside := blob.NewFiles(), blob.Location(t.TempDir()), t.TempDir()
	if err := os.Symlink(outside, string(dir)+"/odd"); err != nil {
		t.Fatal(err)
	}
	j := newJob(dir, 3).named()
	j.prepare(t, store)
	_, err := commit.Publish(t.Context(), store, j.out, j.seq())
	if err == nil || !strings.Contains(err.Error(), "outside of the output") {
		t.Errorf("Publish = %v", err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside: %v, %v, want nothing", entries, err)
	}
}

// TestLinkToFilesToRemove: neither a manifest nor a list of names removes files through a link in the output folder.
func TestLinkToFilesToRemove(t *testing.T) {
	store, dir, outside := blob.NewFiles(), blob.Location(t.TempDir()), t.TempDir()
	for name, text := range map[string]string{
		outside + "/a": "kept", string(dir) + "/b": "removed",
		string(dir) + "/_SUCCESS": `{"uid":"other","name_parts":"{}","parts":[{"part":"odd/a"},{"part":"b"}]}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	blobtest.Put(t, store, dir.Join("_temporary/other/_NAMES"), "odd/a\n")
	if err := os.Symlink(outside, string(dir)+"/odd"); err != nil {
		t.Fatal(err)
	}
	j := newJob(dir, 2)
	j.out.Overwrite = true
	j.prepare(t, store)
	j.publish(t, store)
	if _, err := os.Stat(outside + "/a"); err != nil {
		t.Errorf("a file outside of the output: %v", err)
	}
	if _, err := os.Stat(string(dir) + "/b"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the earlier part: %v, want it gone", err)
	}
}

// TestNamesOfOthers: a part never replaces another file, and only names that parts can have are removed.
func TestNamesOfOthers(t *testing.T) {
	for _, overwrite := range []bool{false, true} {
		store := blobtest.NewMemory()
		blobtest.Put(t, store, dir.Join("sample 2.vcf"), "the user's")
		blobtest.Put(t, store, dir+"/../x", "x")
		blobtest.Put(t, store, dir.Join("_temporary/other/_NAMES"), "../x\n_x\n")
		if overwrite {
			blobtest.Put(t, store, dir.Join(layout.Success), `{"uid":"other","name_parts":"{}","parts":[{"part":"../x"},{"part":"/data/out/sample 2.vcf"}]}`)
		}
		j := newJob(dir, 4).named()
		j.out.Overwrite = overwrite
		j.prepare(t, store)
		_, err := commit.Publish(t.Context(), store, j.out, j.seq())
		if occupied, ok := errors.AsType[*commit.OccupiedError](err); !ok || !strings.Contains(occupied.Error(), "sample 2.vcf") {
			t.Errorf("Publish = %v, want an OccupiedError", err)
		}
		if err := commit.Abort(t.Context(), store, j.out); err != nil {
			t.Fatal(err)
		}
		for _, name := range []blob.Location{dir.Join("sample 2.vcf"), dir + "/../x"} {
			blobtest.Get(t, store, name)
		}
	}
}

func TestOtherJobsTemporaryStays(t *testing.T) {
	store, dir := blob.NewFiles(), blob.Location(t.TempDir())
	blobtest.Put(t, store, dir+"/_temporary/other/map-0-1", "x")
	j := newJob(dir, 2)
	j.prepare(t, store)
	j.publish(t, store)
	j.verify(t, store, "_temporary/other/map-0-1")
}

// earlier writes another job's output and a file of the user's.
func earlier(t *testing.T, store blob.Store) {
	t.Helper()
	old := newJob(dir, 5).withResult("result")
	old.out.UID = "earlier"
	old.prepare(t, store)
	old.publish(t, store)
	for _, name := range []string{"notes.txt", "part-1", "part-00001.gz", "sub/part-00001"} {
		blobtest.Put(t, store, dir.Join(name), "the user's")
		if err := store.Sync(t.Context(), dir.Join(name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTorn: a publication that was interrupted, and has lost its private folder, cannot tell its own parts from those of others, and says so.
func TestTorn(t *testing.T) {
	store := blobtest.NewMemory()
	j := newJob(dir, 3)
	j.prepare(t, store)
	if err := store.Publish(t.Context(), j.out.Dir.Join(layout.Private(uid)).Join("map-0-100"), dir.Join("part-00000")); err != nil {
		t.Fatal(err)
	}
	j.prepare(t, store) // as tasks do that run again
	_, err := commit.Publish(t.Context(), store, j.out, j.seq())
	if err == nil || !strings.Contains(err.Error(), "without a manifest (part-00000)") || !strings.Contains(err.Error(), "Remove them and retry the job") {
		t.Errorf("Publish = %v, want that there are parts without a manifest, and what to do", err)
	}
	if err := store.Remove(t.Context(), dir.Join("part-00000")); err != nil {
		t.Fatal(err)
	}
	j.publish(t, store)
}

func TestOccupied(t *testing.T) {
	store := blobtest.NewMemory()
	earlier(t, store)
	before := blobtest.Names(t, store, dir)
	j := newJob(dir, 3)
	j.prepare(t, store)
	_, err := commit.Publish(t.Context(), store, j.out, j.seq())
	if occupied, ok := errors.AsType[*commit.OccupiedError](err); !ok || !strings.Contains(occupied.Error(), "_SUCCESS, _RESULT, part-00000, and 4 more") {
		t.Fatalf("Publish = %v, want an OccupiedError", err)
	}
	if err := commit.Abort(t.Context(), store, j.out); err != nil {
		t.Fatalf("Abort: %v", err)
	}
	if got := blobtest.Names(t, store, dir); !slices.Equal(got, before) {
		t.Errorf("after Abort: %q, want what was there before: %q", got, before)
	}
}

func TestOverwrite(t *testing.T) {
	store := blobtest.NewMemory()
	earlier(t, store)
	j := newJob(dir, 3)
	j.out.Overwrite = true
	j.prepare(t, store)
	j.publish(t, store)
	j.verify(t, store, "notes.txt", "part-1", "part-00001.gz", "sub/part-00001")
}

func TestMissingPartChangesNothing(t *testing.T) {
	for name, spoil := range map[string]func(*blobtest.Memory){
		"3 of 9": func(m *blobtest.Memory) {
			for _, f := range []string{"map-1-101", "map-4-104", "map-7-107"} {
				if err := m.Remove(t.Context(), dir.Join(layout.Private(uid)).Join(f)); err != nil {
					t.Fatal(err)
				}
			}
		},
		"1 of 9": func(m *blobtest.Memory) { blobtest.Put(t, m, dir.Join(layout.Private(uid)).Join("map-4-104"), "yy") },
	} {
		store := blobtest.NewMemory()
		earlier(t, store)
		j := newJob(dir, 9)
		j.out.Overwrite = true
		j.prepare(t, store)
		spoil(store)
		before := blobtest.Names(t, store, dir)
		_, err := commit.Publish(t.Context(), store, j.out, j.seq())
		if _, ok := errors.AsType[*commit.LostError](err); !ok || !strings.Contains(err.Error(), name) {
			t.Errorf("Publish = %v, want a LostError with %q", err, name)
		}
		if got := blobtest.Names(t, store, dir); !slices.Equal(got, before) {
			t.Errorf("Publish changed %q to %q", before, got)
		}
	}
}

// TestLostOrUnseen: parts that are missing are lost, unless the worker may not see the folder that the others write to.
func TestLostOrUnseen(t *testing.T) {
	const this, other = layout.MadeHere, layout.MadeElsewhere
	for name, test := range map[string]struct {
		makers [3]layout.Maker
		spoil  func(private string) error // removes the last part, at least
		lost   []uint64                   // nil: none
	}{
		"a folder":             {[3]layout.Maker{this, this, other}, func(p string) error { return errors.Join(os.Remove(p+"/map-2-102"), os.Mkdir(p+"/map-2-102", 0o755)) }, []uint64{2}},
		"own":                  {[3]layout.Maker{this, this, this}, func(p string) error { return os.Remove(p + "/map-2-102") }, []uint64{2}},
		"another's":            {[3]layout.Maker{other, this, other}, func(p string) error { return os.Remove(p + "/map-2-102") }, []uint64{2}},
		"all of another":       {[3]layout.Maker{this, this, other}, func(p string) error { return os.Remove(p + "/map-2-102") }, nil},
		"private folder":       {[3]layout.Maker{other, other, other}, os.RemoveAll, []uint64{0, 1, 2}},
		"output folder":        {[3]layout.Maker{other, other, other}, func(p string) error { return os.RemoveAll(filepath.Dir(filepath.Dir(p))) }, nil},
		"output folder, own":   {[3]layout.Maker{other, this, other}, func(p string) error { return os.RemoveAll(filepath.Dir(filepath.Dir(p))) }, []uint64{0, 1, 2}},
		"own there, some gone": {[3]layout.Maker{this, other, other}, func(p string) error { return os.Remove(p + "/map-2-102") }, []uint64{2}},
	} {
		t.Run(name, func(t *testing.T) {
			store, out := blob.NewFiles(), filepath.Join(t.TempDir(), "out")
			j := newJob(blob.Location(out), 3)
			for i, maker := range test.makers {
				j.parts[i].Maker = maker
			}
			j.prepare(t, store)
			if err := test.spoil(filepath.Join(out, layout.Private(uid))); err != nil {
				t.Fatal(err)
			}
			_, before := os.Stat(out)
			_, err := commit.Publish(t.Context(), store, j.out, j.seq())
			if test.lost == nil {
				if _, ok := errors.AsType[*commit.UnseenError](err); !ok || !strings.Contains(err.Error(), "does this worker see the folder") {
					t.Errorf("Publish = %v, want an UnseenError", err)
				}
			} else if lost, ok := errors.AsType[*commit.LostError](err); !ok {
				t.Errorf("Publish = %v, want a LostError", err)
			} else {
				var got []uint64
				for _, p := range lost.Lost {
					got = append(got, p.Index)
				}
				if !slices.Equal(got, test.lost) {
					t.Errorf("lost: %v, want %v", got, test.lost)
				}
			}
			if _, after := os.Stat(out); (before == nil) != (after == nil) {
				t.Errorf("the output folder was %v, and is %v", before, after)
			}
		})
	}
}

func TestBadArguments(t *testing.T) {
	j := newJob(dir, 3)
	store := blobtest.NewMemory()
	for _, out := range []commit.Output{{}, {Dir: dir}, {UID: uid}, {Dir: dir, UID: ".."}, {Dir: dir, UID: "a/b"}, {Dir: dir, UID: "/"}} {
		if _, err := commit.Publish(t.Context(), store, out, j.seq()); err == nil {
			t.Errorf("Publish(%+v) succeeded", out)
		}
		if err := commit.Abort(t.Context(), store, out); err == nil {
			t.Errorf("Abort(%+v) succeeded", out)
		}
	}
	lost := errors.New("connection lost")
	_, err := commit.Publish(t.Context(), store, j.out, func(yield func(commit.Part, error) bool) {
		_ = yield(j.parts[0], nil) && yield(commit.Part{}, lost)
	})
	if !errors.Is(err, lost) {
		t.Errorf("Publish = %v, want %v", err, lost)
	}
	j.parts[1].Index = 0
	if _, err := commit.Publish(t.Context(), store, j.out, j.seq()); err == nil || !strings.Contains(err.Error(), "task 0 comes after task 0") {
		t.Errorf("Publish with one task twice = %v", err)
	}
}

// TestPartialWithoutLost: a partial output lacks the parts that are lost; a whole one of the same job, when they were made again, has them.
func TestPartialWithoutLost(t *testing.T) {
	for _, named := range []bool{false, true} {
		store := blobtest.NewMemory()
		j := newJob(dir, 5)
		if named {
			j.named()
		}
		j.prepare(t, store)
		private := dir.Join(layout.Private(uid))
		again := map[string]string{}
		for _, i := range []int{1, 4} {
			p := &j.parts[i]
			again[p.File] = j.text[j.public(p)]
			if err := store.Remove(t.Context(), private.Join(p.File)); err != nil {
				t.Fatal(err)
			}
		}
		some := *j
		some.out.Partial, some.out.Manifest.Missing = true, nil
		if s := some.publish(t, store); s.Parts != 3 {
			t.Errorf("%d parts are published, want 3", s.Parts)
		}
		var m api.Manifest
		if err := json.Unmarshal([]byte(blobtest.Get(t, store, dir.Join(layout.Partial))), &m); err != nil || !slices.Equal(m.Missing, []uint64{1, 4}) || len(m.Parts) != 3 {
			t.Errorf("manifest = %+v, %v, want that parts 1 and 4 are missing", m, err)
		}
		for file, text := range again {
			blobtest.Put(t, store, private.Join(file), text)
		}
		j.publish(t, store)
		j.verify(t, store)
	}
}

// TestPartialThenWhole retries a job that has failed with --keep-partial.
func TestPartialThenWhole(t *testing.T) {
	store := blobtest.NewMemory()
	for _, overwrite := range []bool{false, true} {
		some := newJob(dir, 5, 1, 3)
		some.out.Partial, some.out.Overwrite = true, overwrite
		some.prepare(t, store)
		some.publish(t, store)
		some.verify(t, store)

		all := newJob(dir, 5)
		all.out.Overwrite = overwrite
		for _, i := range some.absent {
			p := all.parts[i]
			blobtest.Put(t, store, dir.Join(layout.Private(uid)).Join(p.File), all.text[layout.Part(i, 5)])
		}
		all.publish(t, store)
		all.verify(t, store)
		if err := commit.Abort(t.Context(), store, all.out); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInputs: the manifest says what is known of the inputs of the parts, and a list of them that breaks off ends the publication.
func TestInputs(t *testing.T) {
	inputs := func(list []commit.Input, err error) iter.Seq2[commit.Input, error] {
		return func(yield func(commit.Input, error) bool) {
			for _, in := range list {
				if !yield(in, nil) {
					return
				}
			}
			if err != nil {
				yield(commit.Input{}, err)
			}
		}
	}
	store := blobtest.NewMemory()
	j := newJob(dir, 5, 2)
	j.out.Partial = true
	j.prepare(t, store)
	lost := errors.New("connection lost")
	j.out.Inputs = inputs([]commit.Input{{Part: 0, Name: "a"}}, lost)
	if _, err := commit.Publish(t.Context(), store, j.out, j.seq()); !errors.Is(err, lost) {
		t.Errorf("Publish = %v, want %v", err, lost)
	}
	j.out.Inputs = inputs([]commit.Input{{Part: 0, Name: "a\n\"b\""}, {Part: 1, Name: "/f", Offset: 5, Length: 6}, {Part: 2, Name: "no part"}, {Part: 3, Names: []string{"a\nb", "c"}, More: 7, Length: 8}, {Part: 4, Name: "\xff"}}, nil)
	j.publish(t, store)
	var manifest api.Manifest
	if err := json.Unmarshal([]byte(blobtest.Get(t, store, dir.Join(layout.Partial))), &manifest); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range manifest.Parts {
		got = append(got, fmt.Sprintf("%s %q %q %d %d %d", p.Part, p.Input, p.Inputs, p.InputsMore, p.Offset, p.Length))
	}
	want := []string{
		`part-00000 "a\n\"b\"" [] 0 0 0`, `part-00001 "/f" [] 0 5 6`, `part-00003 "" ["a\nb" "c"] 7 0 8`, "part-00004 \"\ufffd\" [] 0 0 0",
	}
	if strings.Join(got, ";") != strings.Join(want, ";") {
		t.Errorf("parts = %q, want %q", got, want)
	}
}

// scenario is a sequence of runs on a failing store.
type scenario struct {
	setup  func(*testing.T, blob.Store)
	run    func(*testing.T, blob.Store) error
	verify func(*testing.T, blob.Store)
	// manifest is complete only if these files exist, at any moment.
	manifest string
	files    []string
}

func scenarios() map[string]scenario {
	publish := func(j *job) func(*testing.T, blob.Store) error {
		return func(t *testing.T, store blob.Store) error {
			t.Helper()
			_, err := commit.Publish(t.Context(), store, j.out, j.seq())
			return err
		}
	}
	abort := func(j *job) func(*testing.T, blob.Store) error {
		return func(t *testing.T, store blob.Store) error { t.Helper(); return commit.Abort(t.Context(), store, j.out) }
	}
	nothing := func(t *testing.T, store blob.Store) {
		t.Helper()
		if got := blobtest.Names(t, store, dir); len(got) > 0 {
			t.Errorf("left: %q", got)
		}
	}
	whole := newJob(dir, 3).withResult("result")
	over := newJob(dir, 3)
	over.out.Overwrite = true
	partial := newJob(dir, 4, 2)
	partial.out.Partial, partial.out.Overwrite = true, true
	grown := newJob(dir, 4)
	grown.out.Overwrite = true
	names := func(j *job) []string { return slices.Sorted(maps.Keys(j.text)) }
	named := newJob(dir, 3).named()
	named.out.Overwrite = true
	earlierNamed := newJob(dir, 4).named()
	earlierNamed.out.UID = "earlier"
	interrupted := func(t *testing.T, s blob.Store) {
		t.Helper()
		earlierNamed.prepare(t, s)
		faulty := &blobtest.Faulty{Store: s, FailAt: 23}
		if err := publish(earlierNamed)(t, faulty); !errors.Is(err, blobtest.ErrInjected) {
			t.Fatalf("Publish = %v", err)
		}
		there := 0
		for name := range earlierNamed.text {
			if _, err := s.Stat(t.Context(), dir.Join(name)); err == nil {
				there++
			}
		}
		if there == 0 || there == len(earlierNamed.text) {
			t.Fatalf("%d parts are published, want some", there)
		}
	}
	return map[string]scenario{
		"publish": {
			setup: whole.prepare, run: publish(whole), manifest: layout.Success, files: names(whole),
			verify: func(t *testing.T, s blob.Store) { t.Helper(); whole.verify(t, s) },
		},
		"overwrite": {
			setup: func(t *testing.T, s blob.Store) { t.Helper(); earlier(t, s); over.prepare(t, s) }, run: publish(over),
			// This includes the earlier manifest, which is removed before its parts.
			manifest: layout.Success, files: names(over),
			verify: func(t *testing.T, s blob.Store) {
				t.Helper()
				over.verify(t, s, "notes.txt", "part-1", "part-00001.gz", "sub/part-00001")
			},
		},
		"partial": {
			setup: partial.prepare, run: publish(partial), manifest: layout.Partial, files: names(partial),
			verify: func(t *testing.T, s blob.Store) { t.Helper(); partial.verify(t, s) },
		},
		"grown": {
			setup: func(t *testing.T, s blob.Store) {
				t.Helper()
				partial.prepare(t, s)
				partial.publish(t, s)
				name := dir.Join(layout.Private(uid)).Join(grown.parts[2].File)
				blobtest.Put(t, s, name, "xxx")
				if err := s.Sync(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			},
			run: publish(grown), manifest: layout.Success, files: names(grown),
			verify: func(t *testing.T, s blob.Store) { t.Helper(); grown.verify(t, s) },
		},
		"named": {
			setup: named.prepare, run: publish(named), manifest: layout.Success, files: names(named),
			verify: func(t *testing.T, s blob.Store) { t.Helper(); named.verify(t, s) },
		},
		"named over named": {
			setup: func(t *testing.T, s blob.Store) {
				t.Helper()
				earlierNamed.prepare(t, s)
				earlierNamed.publish(t, s)
				named.prepare(t, s)
			},
			run: publish(named), manifest: layout.Success, files: names(named),
			verify: func(t *testing.T, s blob.Store) { t.Helper(); named.verify(t, s) },
		},
		"over named": {
			setup: func(t *testing.T, s blob.Store) {
				t.Helper()
				earlierNamed.prepare(t, s)
				earlierNamed.publish(t, s)
				over.prepare(t, s)
			},
			run: publish(over), verify: func(t *testing.T, s blob.Store) { t.Helper(); over.verify(t, s) },
		},
		"over interrupted": {
			setup: func(t *testing.T, s blob.Store) { t.Helper(); interrupted(t, s); over.prepare(t, s) },
			run:   publish(over), manifest: layout.Success, files: names(over),
			verify: func(t *testing.T, s blob.Store) {
				t.Helper()
				for _, name := range blobtest.Names(t, s, dir) {
					if strings.HasSuffix(name, ".vcf") {
						t.Errorf("left: %s", name)
					}
				}
			},
		},
		"abort of an interrupted named output": {setup: interrupted, run: abort(earlierNamed), verify: nothing},
		"abort of a named output": {
			setup: func(t *testing.T, s blob.Store) { t.Helper(); named.prepare(t, s); named.publish(t, s) },
			run:   abort(named), verify: nothing, manifest: layout.Success, files: names(named),
		},
		"abort of nothing":  {setup: func(t *testing.T, _ blob.Store) { t.Helper() }, run: abort(whole), verify: nothing},
		"abort of attempts": {setup: whole.prepare, run: abort(whole), verify: nothing},
		"abort of an output": {
			setup: func(t *testing.T, s blob.Store) { t.Helper(); whole.prepare(t, s); whole.publish(t, s) },
			run:   abort(whole), verify: nothing, manifest: layout.Success, files: names(whole),
		},
		"abort of a partial output": {
			setup: func(t *testing.T, s blob.Store) { t.Helper(); partial.prepare(t, s); partial.publish(t, s) },
			run:   abort(partial), verify: nothing, manifest: layout.Partial, files: names(partial),
		},
	}
}

// TestCrashAnywhere makes the store fail at each of its operations, with and without the loss of what is not durable, and runs
// again. A second failure follows, at every 13th operation of the second run, another one each time.
func TestCrashAnywhere(t *testing.T) {
	for name, sc := range scenarios() {
		for _, late := range []bool{false, true} {
			for power, lose := range map[string]func(*blobtest.Memory){
				"kept":           func(*blobtest.Memory) {},
				"lost":           func(m *blobtest.Memory) { m.Crash(nil) },
				"manifests kept": func(m *blobtest.Memory) { m.Crash(isManifest) },
				"parts kept":     func(m *blobtest.Memory) { m.Crash(func(name blob.Location) bool { return !isManifest(name) }) },
			} {
				t.Run(fmt.Sprintf("%s/late=%t/power %s", name, late, power), func(t *testing.T) {
					for first := 1; crash(t, sc, late, lose, first); first++ {
						for second := 1 + first%13; crash(t, sc, late, lose, first, second); second += 13 {
							continue
						}
					}
				})
			}
		}
	}
}

func isManifest(name blob.Location) bool {
	return name == dir.Join(layout.Success) || name == dir.Join(layout.Partial)
}

// crash runs once for each number, failing at that operation, and then to the end. It reports whether the last failure
// occurred.
func crash(t *testing.T, sc scenario, late bool, lose func(*blobtest.Memory), at ...int) bool {
	t.Helper()
	store := blobtest.NewMemory()
	sc.setup(t, store)
	died := false
	for _, k := range at {
		faulty := &blobtest.Faulty{Store: store, FailAt: k, Late: late}
		err := sc.run(t, faulty)
		died = errors.Is(err, blobtest.ErrInjected)
		if err != nil && !died {
			t.Fatalf("crashes at %v: %v", at, err)
		}
		lose(store)
		sc.wantWhole(t, store, at)
	}
	if err := sc.run(t, store); err != nil {
		t.Fatalf("after crashes at %v: %v", at, err)
	}
	sc.verify(t, store)
	store.Crash(nil)
	sc.wantWhole(t, store, at)
	return died && !t.Failed()
}

// wantWhole checks that an existing manifest is true.
func (sc scenario) wantWhole(t *testing.T, store blob.Store, at []int) {
	t.Helper()
	names := blobtest.Names(t, store, dir)
	if sc.manifest == "" || !slices.Contains(names, sc.manifest) {
		return
	}
	for _, name := range sc.files {
		if !slices.Contains(names, name) {
			t.Fatalf("crashes at %v: there is %s and no %s: %q", at, sc.manifest, name, names)
		}
		if blobtest.Get(t, store, dir.Join(name)) == "" {
			t.Fatalf("crashes at %v: there is %s, and %s is empty", at, sc.manifest, name)
		}
	}
}

// TestManyPartsNeedLittleMemory limits the memory of a publication.
func TestManyPartsNeedLittleMemory(t *testing.T) {
	const n = 200_000
	var store discard
	parts := func(yield func(commit.Part, error) bool) {
		for i := range uint64(n) {
			if !yield(commit.Part{Index: i, Size: 5, File: fmt.Sprintf("map-%d-%d", i, 1<<40+i)}, nil) {
				return
			}
		}
	}
	inputs := func(yield func(commit.Input, error) bool) {
		for i := range uint64(n) {
			if !yield(commit.Input{Part: i, Name: strings.Repeat("input ", 20), Offset: i, Length: 7}, nil) {
				return
			}
		}
	}
	if _, err := commit.Publish(t.Context(), &store, commit.Output{Dir: dir, UID: uid, Tasks: n, Inputs: inputs}, parts); err != nil {
		t.Fatal(err)
	}
	if got := store.writes.Load(); got < 2 || got > 200 {
		t.Errorf("the manifest of %d parts took %d writes, want it in pieces, none of them small", n, got)
	}
	if got := store.longest.Load(); got > 1<<20 {
		t.Errorf("longest write = %d bytes: the manifest was built in memory", got)
	}
}
