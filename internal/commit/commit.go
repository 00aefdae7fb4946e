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

// Output is where a job's output goes.
type Output struct {
	Dir   blob.Location
	UID   string // the job's: unlike its number never given twice
	Tasks uint64 // of the stage that makes the parts; decides how many digits their names have
	// Overwrite removes an earlier output. What else lies in Dir stays.
	Overwrite bool
	// Partial publishes what there is, under the manifest _PARTIAL. A later Publish of the whole takes its place.
	Partial bool
	// Manifest but for Parts, which Publish adds, and Result.
	Manifest api.Manifest
}

// validate guards against the removal of more than the job's own folder.
func (o Output) validate() error {
	if o.Dir == "" || o.UID == "" || strings.Contains(o.UID, "/") || strings.HasPrefix(o.UID, ".") {
		return fmt.Errorf("output %q of job uid %q: both must be set, and the uid be a file name", o.Dir, o.UID)
	}
	return nil
}

// Part is a task's output.
type Part struct {
	Result   bool // it is the collected result, and no part
	Index    uint64
	Size     uint64
	Records  uint64
	Checksum uint64 // xxh64
	File     string // name in the job's private folder
}

// Summary counts what an output holds.
type Summary struct {
	Parts, Bytes, Records uint64
	Result                bool // it has a collected result
}

// private is the folder that attempts of the job write to.
func (o Output) private() blob.Location { return o.Dir.Join(layout.Private(o.UID)) }

// OccupiedError says that an output folder holds another output.
type OccupiedError struct {
	Dir   blob.Location
	Names []string // some of what it holds
}

func (e *OccupiedError) Error() string {
	return fmt.Sprintf("output %q holds another output (%s); remove it, or submit the job with --overwrite",
		e.Dir, strings.Join(e.Names, ", "))
}

// PartsError says which parts are not as the tasks left them.
type PartsError struct {
	Dir     blob.Location
	Bad     uint64 // parts that are missing or have another size
	Parts   uint64
	Samples []string
}

func (e *PartsError) Error() string {
	return fmt.Sprintf("%d of %d parts of output %q are not as their tasks left them (%s): somebody has changed %s, or it is "+
		"not the same folder on all workers",
		e.Bad, e.Parts, e.Dir, strings.Join(e.Samples, ", "), e.Dir.Join(layout.Temporary))
}

// Publish makes an output complete. It may be run again after it failed or its process died at any point, also when it had
// succeeded, with the same parts. parts is read once.
func Publish(ctx context.Context, store blob.Store, out Output, parts iter.Seq2[Part, error]) (Summary, error) {
	if err := out.validate(); err != nil {
		return Summary{}, err
	}
	list, err := collect(parts)
	if err != nil {
		return Summary{}, err
	}
	p := publication{store: store, out: out, private: out.private(), list: list}
	summary := list.summary()
	if err := p.run(ctx); err != nil {
		return Summary{}, fmt.Errorf("publish output %q: %w", out.Dir, err)
	}
	return summary, nil
}

// publication is one run of Publish.
type publication struct {
	store   blob.Store
	out     Output
	private blob.Location
	list    *partList
}

func (p *publication) run(ctx context.Context) error {
	// Jobs of one cluster do not share an output, but those of two embedded ones may: both would find it empty, and each put
	// its parts over the other's.
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
	// The manifest is the last thing written: with it here, only cleaning is left. But a partial output may have grown since.
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

// lock keeps others from publishing in dir, if the store can do that.
func lock(ctx context.Context, store blob.Store, dir blob.Location) (unlock func(), err error) {
	locker, ok := store.(blob.Locker)
	if !ok {
		return func() {}, nil
	}
	if err := store.MkdirAll(ctx, dir); err != nil { // there may be no part that has made it
		return nil, err
	}
	return locker.LockDir(ctx, dir)
}

// owned says by which signs the output folder is known to be this job's.
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

// isMissing counts a file below a file as missing too.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// claim makes OUTPUT this job's.
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

// setMark is durable when it returns.
func setMark(ctx context.Context, store blob.Store, private blob.Location) error {
	w, err := store.Create(ctx, "", private.Join(layout.Mark))
	if err != nil {
		return err
	}
	return w.Commit()
}

// clearEarlier removes an earlier output, or says that there is one.
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

// outputFiles names what a job may have put into dir: manifests first, then the result and the parts.
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

// removeOutput removes what outputFiles found. The manifest goes first, and for good: an output that lacks parts must never look
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

// removePrivate removes the job's private folder, durably: nobody would look for it after a loss of power.
func removePrivate(ctx context.Context, store blob.Store, out Output) error {
	temporary := out.Dir.Join(layout.Temporary)
	if err := store.RemoveAll(ctx, out.private()); err != nil {
		return err
	}
	if err := store.RemoveEmpty(ctx, temporary); err != nil {
		return err
	}
	// Other jobs may use _temporary still; if not, it is gone from the output folder.
	if err := store.SyncDir(ctx, temporary); err != nil {
		return err
	}
	return store.SyncDir(ctx, out.Dir)
}

// Abort leaves nothing of a job in its output folder: not what its attempts wrote, nor what a Publish had got done. The folder
// itself stays, and what was in it before. It may be run again after it failed or its process died at any point.
func Abort(ctx context.Context, store blob.Store, out Output) error {
	if err := out.validate(); err != nil {
		return err
	}
	if err := abort(ctx, store, out); err != nil {
		return fmt.Errorf("remove what job left in output %q: %w", out.Dir, err)
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
			// The manifest, which tells that the parts are ours, goes before they do.
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

// isManifestOf reports whether the file is a manifest of the job uid. A manifest may hold a million parts: it is read up to
// its uid, which Publish writes before them.
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

// manifestUID gives "" for what is not a manifest of ours: Hadoop's, for one, is empty.
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
