package commit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

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
	// Partial publishes the outputs that exist, under the manifest _PARTIAL, which lists those that are lost as missing. A later Publish without Partial
	// replaces that.
	Partial bool
	// Manifest without Parts and Result, which Publish adds.
	Manifest api.Manifest
	// Inputs is what the tasks of the parts read, by part, ascending; nil: not known. It is read while the manifest is written.
	Inputs iter.Seq2[Input, error]
}

// Input is what the task of a part reads.
type Input struct {
	Part           uint64
	Name           string   // a file or an item; empty: not known, or several
	Names          []string // several: the first ones
	More           uint64   // besides these
	Offset, Length uint64   // in the file
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
	Maker    layout.Maker
	File     string // name in the job's private folder
	Name     string // below the output folder; empty: part-NNNNN, or the collected result
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
	// Torn: there are parts, and neither a manifest nor another job's private folder: so it looks if a job was interrupted while it published, and has lost what it had in its
	// private folder, which says so.
	Torn bool
}

func (e *OccupiedError) Error() string {
	if e.Torn {
		return fmt.Sprintf("output %q holds parts without a manifest (%s): perhaps this job has published them, was interrupted, and %s was removed, which said so. "+
			"Remove them and retry the job, or submit it with --overwrite", e.Dir, strings.Join(e.Names, ", "), e.Dir.Join(layout.Temporary))
	}
	return fmt.Sprintf("output %q holds another output (%s); remove it, or submit the job with --overwrite",
		e.Dir, strings.Join(e.Names, ", "))
}

// LostError reports parts that are missing, or have another size than their tasks wrote. Nothing was changed.
type LostError struct {
	Dir   blob.Location
	Parts uint64 // of the output
	Lost  []LostPart
}

// LostPart is a part that is lost.
type LostPart struct {
	Part
	What string // is wrong with it
}

func (e *LostError) Error() string {
	return fmt.Sprintf("%d of %d parts of output %q are not what the tasks wrote (%s): %s was changed", len(e.Lost), e.Parts, e.Dir,
		e.samples(func(p *LostPart) string { return p.File + " " + p.What }), e.Dir.Join(layout.Temporary))
}

// samples describes some of the parts.
func (e *LostError) samples(describe func(*LostPart) string) string {
	const most = 3
	var list []string
	for i := range e.Lost[:min(len(e.Lost), most)] {
		list = append(list, describe(&e.Lost[i]))
	}
	if len(e.Lost) > most {
		list = append(list, "…")
	}
	return strings.Join(list, ", ")
}

// UnseenError reports parts that are missing, perhaps only for this worker.
type UnseenError struct{ LostError }

func (e *UnseenError) Error() string {
	return fmt.Sprintf("%d of %d parts of output %q are missing (%s); does this worker see the folder that the others write to?", len(e.Lost), e.Parts, e.Dir,
		e.samples(func(p *LostPart) string { return p.File }))
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
	return p.list.summary(), nil
}

// Check returns a LostError or an UnseenError if a part is missing, or has another size than its task has written, of an output whose parts stay in the private folder. It changes nothing.
func Check(ctx context.Context, store blob.Store, out Output, parts iter.Seq2[Part, error]) error {
	if err := out.validate(); err != nil {
		return err
	}
	list, err := collect(parts)
	if err != nil {
		return err
	}
	p := publication{store: store, out: out, private: out.private(), list: list}
	there, err := p.folderExists(ctx)
	if err != nil {
		return err
	}
	return p.check(ctx, false, there)
}

// publication is one call of Publish.
type publication struct {
	store   blob.Store
	out     Output
	private blob.Location
	list    *partList
}

func (p *publication) run(ctx context.Context) error {
	there, err := p.folderExists(ctx)
	if err != nil {
		return err
	}
	if !there { // the lock creates it, and this worker would seem to see it the next time
		if err := p.dropAbsentResult(ctx, false); err != nil {
			return err
		}
		if err := p.check(ctx, false, there); err != nil {
			return err
		}
	}
	// Two jobs of one cluster never share an output, but those of two embedded clusters may: both would find it empty, and replace
	// each other's parts.
	unlock, err := lock(ctx, p.store, p.out.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := superseded(ctx, p.store, p.out); err != nil {
		return err
	}
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
		if err := p.check(ctx, own.any(), there); err != nil {
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

// folderExists reports whether the output folder exists.
func (p *publication) folderExists(ctx context.Context) (bool, error) {
	_, err := p.store.Stat(ctx, p.out.Dir)
	if blob.IsMissing(err) {
		return false, nil
	}
	return err == nil, err
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
	if blob.IsMissing(errs[2]) {
		errs[2] = nil
	}
	return own, errors.Join(errs[:]...)
}

// claim makes the output folder this job's.
func (p *publication) claim(ctx context.Context, own owned) error {
	if !own.any() {
		if err := p.clearEarlier(ctx); err != nil {
			return err
		}
	}
	if p.isNamed() {
		if !own.any() {
			if err := p.checkFree(ctx); err != nil {
				return err
			}
		}
		if err := recordNames(ctx, p.store, p.private, p.publicNames()); err != nil {
			return err
		}
	}
	if own.mark {
		return nil
	}
	return setMark(ctx, p.store, p.out)
}

// clearEarlier removes an earlier output, or fails with an OccupiedError.
func (p *publication) clearEarlier(ctx context.Context) error {
	privates, err := privateFolders(ctx, p.store, p.out.Dir)
	if err != nil {
		return err
	}
	files, err := outputFiles(ctx, p.store, p.out.Dir, privates...)
	if err != nil {
		return err
	}
	if p.out.Overwrite {
		return files.remove(ctx, p.store, p.out.Dir, p.private)
	}
	found := slices.Concat(files.manifests, files.parts)
	for _, name := range files.named { // some may be recorded, and not published yet
		if len(found) > 0 {
			break
		}
		if _, err := p.store.Stat(ctx, name); err == nil {
			found = append(found, name)
		} else if !blob.IsMissing(err) {
			return err
		}
	}
	rivals := slices.ContainsFunc(privates, func(private blob.Location) bool { return private != p.private })
	return occupied(p.out.Dir, found, len(files.manifests) == 0 && !rivals)
}

// occupied returns an OccupiedError if there are files.
func occupied(dir blob.Location, files []blob.Location, torn bool) error {
	if len(files) == 0 {
		return nil
	}
	e := &OccupiedError{Dir: dir, Torn: torn}
	for _, name := range files[:min(len(files), 3)] {
		rest, _ := name.Below(dir)
		e.Names = append(e.Names, rest)
	}
	if more := len(files) - len(e.Names); more > 0 {
		e.Names = append(e.Names, "and "+strconv.Itoa(more)+" more")
	}
	return e
}

// published are the files that jobs have published in a folder, or may have.
type published struct {
	manifests, parts []blob.Location
	named            []blob.Location // parts that have other names than part-NNNNN
}

// outputFiles lists the files in dir that a job may have published, with those whose names are recorded in the private folders.
func outputFiles(ctx context.Context, store blob.Store, dir blob.Location, privates ...blob.Location) (files published, err error) {
	keep := func(name blob.Location, folder bool) bool {
		base := name.Base()
		return !folder && layout.IsPublished(base)
	}
	for info, err := range store.List(ctx, dir, keep, nil) {
		switch base := info.Name.Base(); {
		case err != nil && !blob.IsMissing(err):
			return files, err
		case layout.IsManifest(base):
			files.manifests = append(files.manifests, info.Name)
		default:
			files.parts = append(files.parts, info.Name)
		}
	}
	if len(files.manifests) > 0 {
		if files.named, err = listedNames(ctx, store, dir); err != nil {
			return files, err
		}
	}
	for _, private := range privates {
		names, err := recordedNames(ctx, store, dir, private)
		if err != nil {
			return files, err
		}
		files.named = append(files.named, names...)
	}
	files.named = within(ctx, store, dir, files.named)
	return files, nil
}

// remove removes the files. First the manifest, durably: an output that lacks parts must never look complete. Names that only the manifest
// lists are recorded in the private folder before.
func (f *published) remove(ctx context.Context, store blob.Store, dir, private blob.Location) error {
	relative := func(yield func(string) bool) {
		for _, name := range f.named {
			if rest, _ := name.Below(dir); !yield(rest) {
				return
			}
		}
	}
	if len(f.named) > 0 {
		if err := recordNames(ctx, store, private, relative); err != nil {
			return err
		}
	}
	below := folders(relative)
	for _, group := range [][]blob.Location{f.manifests, slices.Concat(f.parts, f.named)} {
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
	if len(below) == 0 {
		return nil
	}
	for _, folder := range below {
		if err := store.RemoveEmpty(ctx, dir.Join(folder)); err != nil {
			return err
		}
	}
	return syncFolders(ctx, store, dir, below)
}

// syncFolders makes changes in folders below dir durable. The list is that of folders.
func syncFolders(ctx context.Context, store blob.Store, dir blob.Location, list []string) error {
	for _, folder := range list {
		if err := store.SyncDir(ctx, dir.Join(folder)); err != nil {
			return err
		}
	}
	return store.SyncDir(ctx, dir)
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
	late := (*SupersededError)(nil)
	if err := superseded(ctx, store, out); err != nil && !errors.As(err, &late) {
		return err
	}
	if own.any() && late == nil {
		if !own.mark {
			// The manifest, which also identifies the parts as ours, is removed before them.
			if err := setMark(ctx, store, out); err != nil {
				return err
			}
		}
		files, err := outputFiles(ctx, store, out.Dir, out.private())
		if err != nil {
			return err
		}
		if err := files.remove(ctx, store, out.Dir, out.private()); err != nil {
			return err
		}
	}
	return removePrivate(ctx, store, out)
}

// isManifestOf reports whether the file is a manifest of the job uid.
func isManifestOf(ctx context.Context, store blob.Store, name blob.Location, uid string) (bool, error) {
	head, err := headOf(ctx, store, name)
	return head.UID == uid, err
}
