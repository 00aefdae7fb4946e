package commit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strconv"
	"strings"
	"syscall"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// Output describes the output of a job.
type Output struct {
	Dir   blob.Location
	UID   string // of the job; unlike its number never reused
	Tasks uint64 // of the stage whose outputs are the parts; determines the length of their names
	// Overwrite removes an earlier output. Other files in Dir stay.
	Overwrite bool
	// Partial publishes the outputs that exist, under the manifest _PARTIAL. A later Publish without Partial replaces that.
	Partial bool
	// Manifest without Parts and Result, which Publish adds.
	Manifest api.Manifest
}

// validate prevents the removal of anything but the job's own folder.
func (o Output) validate() error {
	if o.Dir == "" || o.UID == "" || strings.Contains(o.UID, "/") || strings.HasPrefix(o.UID, ".") {
		return fmt.Errorf("invalid output %q of job uid %q: both must be set, and the uid must be a file name", o.Dir, o.UID)
	}
	return nil
}

// Part is the output of a task.
type Part struct {
	Result   bool // the collected result instead of a part; one of size 0 may have no file
	Index    uint64
	Size     uint64
	Records  uint64
	Checksum uint64 // xxh64
	File     string // name in the job's private folder
}

// Summary counts the content of an output.
type Summary struct {
	Parts, Bytes, Records uint64
	Result                bool // has a collected result
}

// private returns the folder that the job's attempts write to.
func (o Output) private() blob.Location { return o.Dir.Join(layout.Private(o.UID)) }

// OccupiedError reports that the output folder contains another output.
type OccupiedError struct {
	Dir   blob.Location
	Names []string // some of its content
}

func (e *OccupiedError) Error() string {
	return fmt.Sprintf("output %q holds another output (%s); remove it, or submit the job with --overwrite",
		e.Dir, strings.Join(e.Names, ", "))
}

// PartsError reports parts that differ from what the tasks wrote.
type PartsError struct {
	Dir     blob.Location
	Bad     uint64 // missing or of another size
	Parts   uint64
	Samples []string
}

func (e *PartsError) Error() string {
	return fmt.Sprintf("%d of %d parts of output %q differ from what the tasks wrote (%s): %s was changed, or is "+
		"not the same folder on all workers",
		e.Bad, e.Parts, e.Dir, strings.Join(e.Samples, ", "), e.Dir.Join(layout.Temporary))
}

// Publish makes an output complete. It is idempotent: it may be called again with the same parts after it failed, after a crash at
// any point, and after it succeeded. parts is read once.
func Publish(ctx context.Context, store blob.Store, out Output, parts iter.Seq2[Part, error]) (Summary, error) {
	if err := out.validate(); err != nil {
		return Summary{}, err
	}
	list, err := collect(parts)
	if err != nil {
		return Summary{}, err
	}
	p := publication{store: store, out: out, private: out.private(), list: list}
	if err := p.run(ctx); err != nil {
		return Summary{}, fmt.Errorf("publish output %q: %w", out.Dir, err)
	}
	return list.summary(), nil
}

// publication is one call of Publish.
type publication struct {
	store   blob.Store
	out     Output
	private blob.Location
	list    *partList
}

func (p *publication) run(ctx context.Context) error {
	// Two jobs of one cluster never share an output, but those of two embedded clusters may: both would find it empty, and replace
	// each other's parts.
	unlock, err := lock(ctx, p.store, p.out.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	own, err := ownership(ctx, p.store, p.out)
	if err != nil {
		return err
	}
	manifest := layout.Success
	if p.out.Partial {
		manifest = layout.Partial
	}
	if err := p.dropAbsentResult(ctx, own.any()); err != nil {
		return err
	}
	// The manifest is written last: if it exists, only the cleanup is left. But a partial output may have grown.
	if !own.success || p.out.Partial {
		if err := p.check(ctx, own.any()); err != nil {
			return err
		}
		if err := p.claim(ctx, own); err != nil {
			return err
		}
		if err := p.publishParts(ctx); err != nil {
			return err
		}
		if err := p.writeManifest(ctx, manifest); err != nil {
			return err
		}
	}
	if !p.out.Partial && own.partial {
		if err := p.store.Remove(ctx, p.out.Dir.Join(layout.Partial)); err != nil {
			return err
		}
	}
	return removePrivate(ctx, p.store, p.out)
}

// lock locks dir against other publications, if the store supports locks.
func lock(ctx context.Context, store blob.Store, dir blob.Location) (unlock func(), err error) {
	locker, ok := store.(blob.Locker)
	if !ok {
		return func() {}, nil
	}
	if err := store.MkdirAll(ctx, dir); err != nil { // a job without parts has not created it
		return nil, err
	}
	return locker.LockDir(ctx, dir)
}

// owned lists the signs that the output folder belongs to this job.
type owned struct{ mark, success, partial bool }

func (o owned) any() bool { return o.mark || o.success || o.partial }

func ownership(ctx context.Context, store blob.Store, out Output) (owned, error) {
	var (
		own  owned
		errs [3]error
	)
	own.success, errs[0] = isManifestOf(ctx, store, out.Dir.Join(layout.Success), out.UID)
	own.partial, errs[1] = isManifestOf(ctx, store, out.Dir.Join(layout.Partial), out.UID)
	_, errs[2] = store.Stat(ctx, out.private().Join(layout.Mark))
	own.mark = errs[2] == nil
	if isMissing(errs[2]) {
		errs[2] = nil
	}
	return own, errors.Join(errs[:]...)
}

// isMissing reports whether a file does not exist, including one below another file.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// claim makes the output folder this job's.
func (p *publication) claim(ctx context.Context, own owned) error {
	if !own.any() {
		if err := p.clearEarlier(ctx); err != nil {
			return err
		}
	}
	if own.mark {
		return nil
	}
	return setMark(ctx, p.store, p.private)
}

// setMark sets the mark durably.
func setMark(ctx context.Context, store blob.Store, private blob.Location) error {
	w, err := store.Create(ctx, "", private.Join(layout.Mark))
	if err != nil {
		return err
	}
	return w.Commit()
}

// clearEarlier removes an earlier output, or fails with an OccupiedError.
func (p *publication) clearEarlier(ctx context.Context) error {
	names, err := outputFiles(ctx, p.store, p.out.Dir)
	if err != nil || len(names) == 0 {
		return err
	}
	if !p.out.Overwrite {
		occupied := &OccupiedError{Dir: p.out.Dir}
		for _, name := range names[:min(len(names), 3)] {
			occupied.Names = append(occupied.Names, name.Base())
		}
		if more := len(names) - len(occupied.Names); more > 0 {
			occupied.Names = append(occupied.Names, "and "+strconv.Itoa(more)+" more")
		}
		return occupied
	}
	return removeOutput(ctx, p.store, p.out.Dir, names)
}

// outputFiles lists the files in dir that a job may have published: manifests first, then the result and the parts.
func outputFiles(ctx context.Context, store blob.Store, dir blob.Location) ([]blob.Location, error) {
	var manifests, rest []blob.Location
	keep := func(name blob.Location, folder bool) bool {
		base := name.Base()
		return !folder && layout.IsPublished(base)
	}
	for info, err := range store.List(ctx, dir, keep) {
		switch base := info.Name.Base(); {
		case err != nil && !isMissing(err):
			return nil, err
		case layout.IsManifest(base):
			manifests = append(manifests, info.Name)
		default:
			rest = append(rest, info.Name)
		}
	}
	return append(manifests, rest...), nil
}

// removeOutput removes the files listed by outputFiles. First the manifest, durably: an output that lacks parts must never look
// complete.
func removeOutput(ctx context.Context, store blob.Store, dir blob.Location, names []blob.Location) error {
	manifests := 0
	for manifests < len(names) && layout.IsManifest(names[manifests].Base()) {
		manifests++
	}
	for _, group := range [][]blob.Location{names[:manifests], names[manifests:]} {
		if len(group) == 0 {
			continue
		}
		if err := store.Remove(ctx, group...); err != nil {
			return err
		}
		if err := store.SyncDir(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// removePrivate removes the job's private folder, durably: nothing would remove it later.
func removePrivate(ctx context.Context, store blob.Store, out Output) error {
	temporary := out.Dir.Join(layout.Temporary)
	if err := store.RemoveAll(ctx, out.private()); err != nil {
		return err
	}
	if err := store.RemoveEmpty(ctx, temporary); err != nil {
		return err
	}
	// Other jobs may still use _temporary.
	if err := store.SyncDir(ctx, temporary); err != nil {
		return err
	}
	return store.SyncDir(ctx, out.Dir)
}

// Abort removes everything of a job from its output folder: what its attempts wrote and what an unfinished Publish has published.
// The folder itself and its earlier content stay. Abort is idempotent, as Publish is.
func Abort(ctx context.Context, store blob.Store, out Output) error {
	if err := out.validate(); err != nil {
		return err
	}
	if err := abort(ctx, store, out); err != nil {
		return fmt.Errorf("remove output %q: %w", out.Dir, err)
	}
	return nil
}

func abort(ctx context.Context, store blob.Store, out Output) error {
	own, err := ownership(ctx, store, out)
	if err != nil {
		return err
	}
	if own.any() {
		if !own.mark {
			// The manifest, which also identifies the parts as ours, is removed before them.
			if err := setMark(ctx, store, out.private()); err != nil {
				return err
			}
		}
		names, err := outputFiles(ctx, store, out.Dir)
		if err != nil {
			return err
		}
		if err := removeOutput(ctx, store, out.Dir, names); err != nil {
			return err
		}
	}
	return removePrivate(ctx, store, out)
}

// isManifestOf reports whether the file is a manifest of the job uid. As a manifest may contain a million parts, it is read only
// up to the uid, which Publish writes before them.
func isManifestOf(ctx context.Context, store blob.Store, name blob.Location, uid string) (bool, error) {
	r, err := store.Open(ctx, name, 0)
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	got := manifestUID(r)
	return got == uid, r.Close()
}

// manifestUID returns "" for other files of that name, such as the empty one of Hadoop.
func manifestUID(r io.Reader) string {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return ""
	}
	for d.More() {
		key, err := d.Token()
		if err != nil || key == "parts" {
			return ""
		}
		var value any
		if d.Decode(&value) != nil {
			return ""
		}
		if uid, ok := value.(string); ok && key == "uid" {
			return uid
		}
	}
	return ""
}
