package plan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/bytesize"
	"github.com/bridgefour/bridgefour/internal/record"
	"github.com/bridgefour/bridgefour/internal/state"
)

// input lists the input of the tasks.
func (p *planner) input(ctx context.Context) error {
	p.records()
	split := p.split()
	if p.packing(); p.req.Split == "" && p.fits() && !p.kind.IsCSV() && len(p.req.Inputs) > 0 { // CSV must be read to be cut
		p.result.SplitMax = split
	}
	given := 0
	for _, is := range []bool{len(p.req.Inputs) > 0, p.req.Lines != nil, p.req.Range != nil} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		p.fail("inputs", "give one of inputs, lines and range, not %d of them", given)
	case len(p.req.Inputs) > 0 && len(p.req.Each) > 0:
		p.fail("inputs", "give inputs or lists, not both")
	case (p.req.Shuffle || p.req.Limit > 0 || p.req.Batch > 0) && p.columns() == nil:
		p.fail("inputs", "shuffle, limit and batch are those of a list: give lines, a range or each")
	case len(p.req.Inputs) > 0:
		return p.inputs(ctx, split)
	case p.columns() != nil:
		return p.list()
	case p.needsInput:
		p.fail("inputs", "%s needs an input: files or folders (--input), lines (--lines) or numbers (--range)", p.req.Program.Builtin)
	default:
		p.result.Input = state.Input{Kind: state.InputNone, Tasks: 1}
	}
	return nil
}

// split returns the maximum split size; 0: files are not cut.
func (p *planner) split() uint64 {
	var size uint64
	switch text := p.req.Split; text {
	case "":
		size = p.opt.DefaultSplit
	case "none":
	default:
		var err error
		if size, err = bytesize.Parse(text); err != nil {
			p.fail("split", "%v, or none", err)
		}
	}
	if p.compiled != nil && p.compiled.TakesPath() && len(p.req.Inputs) > 0 {
		if p.req.Split != "" && p.req.Split != "none" {
			p.warn("split %s is not used: a command with {} gets whole files", p.req.Split)
		}
		return 0
	}
	return p.wholeRecords(size)
}

// Cut returns how the one input of a request is cut that is not known as a whole: at the first record behind each multiple of size, with the header
// in each piece; size 0: it must be known before, or the request is wrong.
func Cut(req *api.JobRequest, builtins []Builtin) (size uint64, kind *record.Kind, header int) {
	const sizeMax = 1 << 50
	p := &planner{req: req, opt: Options{DefaultSplit: splitDefault, Builtins: builtins}, result: Result{FirstSuccess: req.FirstSuccess}}
	p.command()
	p.line()
	p.records()
	size = p.split()
	whole := req.NameParts != "" || p.fitted() || p.kind.IsCSV() // the rest of the plan depends on all of it
	if len(p.errs) > 0 || len(req.Inputs) != 1 || whole || size > sizeMax {
		size = 0
	}
	return size, p.kind, int(p.result.Header)
}

// records validates the kind of records and the header.
func (p *planner) records() {
	var err error
	if p.kind, err = record.Parse(p.req.Records); err != nil {
		p.fail("records", "%v", err)
		p.kind = record.Lines
		return
	}
	if !p.kind.IsLines() {
		p.result.Records = p.req.Records
	}
	if p.kind.IsCSV() {
		p.result.Header = 1
	}
	if p.req.Header != nil {
		p.result.Header = p.number("header", p.req.Header, 0, 0, record.HeaderLinesMax)
	}
	switch {
	case p.result.Header > 0 && !p.kind.HasHeader():
		p.fail("header", "files of %s records have no header", p.kind)
	case (p.req.Records != "" || p.req.Header != nil) && len(p.req.Inputs) == 0:
		p.fail("records", "records and header are those of files: give an input")
	case len(p.kinds) > 0 && p.req.Records == "" && !slices.Contains(p.kinds, p.kind.String()):
		p.fail("records", "%s reads %s; without --records, each line is a record: use --records %s", p.req.Program.Builtin, strings.Join(p.kinds, ", "), p.kinds[0])
	case len(p.kinds) > 0 && !slices.Contains(p.kinds, p.kind.String()):
		p.fail("records", "%s would tear apart records of the kind %s: it reads %s; without records, each line is one", p.req.Program.Builtin, p.kind,
			strings.Join(p.kinds, ", "))
	}
}

func (p *planner) tooMany(field string, tasks float64, wayOut string) {
	p.fail(field, "%.0f tasks are too many: at most %d; %s", tasks, p.opt.TasksMax, wayOut)
}

// files makes tasks of the inputs.
func (p *planner) files(ctx context.Context, split uint64) error {
	l := &fileList{p: p, listed: state.NewFiles(0)}
	defer l.abandon()
	if len(p.req.Inputs) > 1 {
		l.seen = make(map[string]struct{})
	}
	for i, text := range p.req.Inputs {
		l.starts = append(l.starts, l.files)
		if err := l.input(ctx, inputField(i), text); err != nil {
			return err
		}
	}
	if l.files > p.opt.TasksMax {
		p.tooMany("inputs", float64(l.files), "name fewer files")
		return nil
	}
	if err := l.divide(ctx, split); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.warnWholes()
	if l.twice > 0 {
		p.warn("files that are listed more than once: %d, such as %q; each is read once", l.twice, l.firstTwice)
	}
	if l.tasks > float64(p.opt.TasksMax) {
		p.tooMany("split", l.tasks, "use a larger split")
		return nil
	}
	if l.listed.Bytes() > state.InputBytesMax || l.b.Bytes() > state.InputBytesMax {
		p.fail("inputs", "the list of files takes more than %d MiB as compressed: make several jobs of them", state.InputBytesMax>>20)
		return nil
	}
	if p.checker != nil && len(p.errs) == 0 {
		if err := p.checker.MissingInput(); err != nil {
			p.fail("inputs", "%v", err)
		}
	}
	if len(p.errs) > 0 {
		return nil
	}
	in, err := l.b.Input()
	if err != nil {
		p.fail("inputs", "%v", err)
		return nil
	}
	p.result.Input = in
	return l.latest.settle(ctx)
}

// inputField names an input of the request.
func inputField(i int) string { return fmt.Sprintf("inputs[%d]", i) }

// fileList collects files, and divides them once all are known.
type fileList struct {
	latest latest
	p      *planner
	listed *state.InputBuilder // one task for each
	files  uint64
	starts []uint64 // how many files come before each input of the request

	division
	splitMax uint64 // that of files of any size
	b        *state.InputBuilder
	tasks    float64 // may exceed every integer type, with a split of one byte

	queue  []*candidate // in order, the first ones are being examined
	wholes [reasons]whole

	packed      []state.Split // files that share the next task
	packedBytes uint64
	packedNames int // bytes

	seen       map[string]struct{} // nil: one input, and listings have no duplicates
	twice      uint64
	firstTwice string

	dir, realDir blob.Location // cache of real
}

// add adds a file.
func (l *fileList) add(field string, info *blob.Info) {
	name, size := string(info.Name), uint64(info.Size)
	l.p.warnSplice(name)
	if l.seen != nil {
		if _, ok := l.seen[name]; ok {
			if l.twice++; l.twice == 1 {
				l.firstTwice = name
			}
			return
		}
		l.seen[name] = struct{}{}
	}
	if l.p.checker != nil {
		l.p.checker.CheckInput(name)
	}
	l.latest.add(info.Modified)
	// Unknown: as a whole. If it exists again later it is read, and otherwise its task reports the error.
	unknown := info.Version == blob.Version{}
	if n := uint64(l.p.kind.Size()); !unknown && n > 0 && size%n != 0 {
		l.p.fail(field, "input %q has %d bytes, which is not a multiple of the %d of a record (--records %s)", name, size, n, l.p.req.Records)
	}
	if l.files++; l.files <= l.p.opt.TasksMax && l.listed.Bytes() <= state.InputBytesMax {
		l.listed.AddFile([]byte(name), state.Version{Size: size, Modified: info.Modified, Identity: info.Identity}, unknown)
	}
}

// input adds the files of one input.
func (l *fileList) input(ctx context.Context, field, text string) error {
	p := l.p
	if text == "" {
		p.fail(field, "empty input: name a file, a folder or a pattern")
		return nil
	}
	store, name, err := p.opt.Stores.Open(text)
	if err != nil {
		p.fail(field, "input %v", err)
		return nil
	}
	info, err := store.Stat(ctx, name)
	special, isSpecial := errors.AsType[*blob.SpecialError](err)
	switch {
	case err == nil && info.Folder:
		for _, r := range p.opt.Reserved {
			if relation := blob.Relation(ctx, name, blob.Location(r.Dir)); relation != "" {
				p.warn("input %q %s %s, %q, whose files change while the job runs; use a folder apart from it", name, relation, r.What, r.Dir)
				break
			}
		}
		return l.folder(ctx, field, store, name)
	case err == nil:
		if l := l.real(ctx, store, name); p.outputHere && isBelow(l, p.realOutput) {
			p.outputApart(field, name, l)
			return nil
		}
		l.add(field, &info)
	case errors.Is(err, fs.ErrNotExist) && isPattern(string(name)):
		return l.pattern(ctx, field, store, name)
	case errors.Is(err, fs.ErrNotExist):
		p.fail(field, "input %q does not exist: check its name; if the leader is on another machine, make it available there "+
			"under the same path", name)
	case isSpecial:
		p.fail(field, "input %v", special)
	default:
		p.fail(field, "input %q: %v", name, err)
	}
	return nil
}

// real resolves links, with a cache of the last folder.
func (l *fileList) real(ctx context.Context, store blob.Store, name blob.Location) blob.Location {
	if dir := name.Dir(); dir != l.dir {
		l.dir, l.realDir = dir, store.Resolve(ctx, dir)
	}
	return l.realDir.Join(name.Base())
}

// isHidden reports whether folders and patterns skip a name.
func isHidden(base string) bool {
	return strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")
}

// keepListed is the filter of the listing of a folder.
func keepListed(name blob.Location, _ bool) bool { return !isHidden(name.Base()) }

// folder adds the files of a folder.
func (l *fileList) folder(ctx context.Context, field string, store blob.Store, dir blob.Location) error {
	before := len(l.p.errs)
	l.p.outputApart(field, dir, store.Resolve(ctx, dir))
	n, err := l.list(ctx, field, store, dir, keepListed)
	if err == nil && n == 0 && len(l.p.errs) == before {
		l.p.fail(field, `input %q is a folder without files (names that begin with "." or "_" are skipped)`, dir)
	}
	return err
}

// list adds the files of a listing and counts them.
func (l *fileList) list(ctx context.Context, field string, store blob.Store, dir blob.Location, keep blob.Keep) (n int, err error) {
	for info, err := range store.List(ctx, dir, keep, func(target blob.Location) { l.p.link(field, target) }) {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		if err != nil && strings.HasSuffix(string(info.Name), "/") {
			l.p.fail(field, "folder %q of input %q cannot be read: %v", strings.TrimSuffix(string(info.Name), "/"), dir, err)
			continue
		}
		n++
		if err != nil {
			info.Version = blob.Version{}
		}
		l.add(field, &info)
	}
	return n, nil
}
