package commit

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// partList stores parts in about 80 bytes each: they are iterated several times, and there may be millions.
type partList struct {
	parts  []partEntry
	names  []byte // of the files, concatenated; behind each, if it has one of its own, a zero byte and its name below the output folder
	result Part   // of the collect stage; File is empty if there is none
}

type partEntry struct {
	index, size, records, checksum uint64
	nameEnd                        uint64 // in names
	maker                          layout.Maker
}

func collect(parts iter.Seq2[Part, error]) (*partList, error) {
	l := &partList{}
	for part, err := range parts {
		if err != nil {
			return nil, fmt.Errorf("list of parts: %w", err)
		}
		if part.Result {
			l.result = part
			continue
		}
		if n := len(l.parts); n > 0 && l.parts[n-1].index >= part.Index {
			return nil, fmt.Errorf("list of parts: task %d comes after task %d", part.Index, l.parts[n-1].index)
		}
		if part.Name != "" {
			if clean, err := layout.CleanName(part.Name); err != nil || clean != part.Name {
				return nil, fmt.Errorf("list of parts: task %d has the name %q: %w", part.Index, part.Name, err)
			}
		}
		l.add(&part)
	}
	return l, nil
}

func (l *partList) add(part *Part) {
	l.names = append(l.names, part.File...)
	if part.Name != "" {
		l.names = append(append(l.names, 0), part.Name...)
	}
	l.parts = append(l.parts, partEntry{part.Index, part.Size, part.Records, part.Checksum, uint64(len(l.names)), part.Maker})
}

func (l *partList) summary() Summary {
	s := Summary{Parts: uint64(len(l.parts)), Result: l.result.File != ""}
	for i := range l.parts {
		s.Bytes += l.parts[i].size
		s.Records += l.parts[i].records
	}
	return s
}

// len is the number of files to publish: the parts, then the result.
func (l *partList) len() int {
	if l.result.File != "" {
		return len(l.parts) + 1
	}
	return len(l.parts)
}

// file returns the i-th file: File is its private name, without folder, and Name its public one below the output folder.
func (p *publication) file(i int) Part {
	l := p.list
	if i == len(l.parts) {
		result := l.result
		result.Name = layout.Result
		return result
	}
	from := uint64(0)
	if i > 0 {
		from = l.parts[i-1].nameEnd
	}
	e := &l.parts[i]
	part := Part{Index: e.index, Size: e.size, Records: e.records, Checksum: e.checksum, Maker: e.maker}
	var named bool
	if part.File, part.Name, named = strings.Cut(string(l.names[from:e.nameEnd]), "\x00"); !named {
		part.Name = layout.Part(e.index, p.out.Tasks)
	}
	return part
}

// stat finds a file in the private folder or, if the output folder is ours, published.
func (p *publication) stat(ctx context.Context, private, public string, ours bool) (blob.Info, error) {
	info, err := p.store.Stat(ctx, p.private.Join(private))
	if blob.IsMissing(err) && ours {
		info, err = p.store.Stat(ctx, p.out.Dir.Join(public))
	}
	return info, err
}

// dropAbsentResult leaves out a collected result that was over its size limit: the parts are the result, and there is no file. Its
// size is 0 then, as that of an empty result.
func (p *publication) dropAbsentResult(ctx context.Context, ours bool) error {
	if p.list.result.File == "" || p.list.result.Size > 0 {
		return nil
	}
	_, err := p.stat(ctx, p.list.result.File, layout.Result, ours)
	if blob.IsMissing(err) {
		p.list.result.File = ""
		return nil
	}
	return err
}

// check checks that every file exists with its size, in the private folder or, if the output folder is ours, published. The error is an UnseenError, or a LostError, unless
// the output is partial: then those that are lost are left out. Their content is not read: that would take as long as writing them did.
func (p *publication) check(ctx context.Context, ours, folder bool) error {
	var (
		mu   sync.Mutex // guards bad, gone and seen
		bad  = LostError{Dir: p.out.Dir, Parts: uint64(p.list.len())}
		gone bool
		seen layout.Seen
	)
	err := p.each(ctx, func(part Part) error {
		info, err := p.stat(ctx, part.File, part.Name, ours)
		missing, what := blob.IsMissing(err), ""
		switch {
		case missing:
			what = "is missing"
		case blob.IsReplaced(err), info.Folder:
			what = "is not a file"
		case err != nil:
			return err
		case uint64(info.Size) != part.Size:
			what = fmt.Sprintf("has %d bytes instead of %d", info.Size, part.Size)
		}
		mu.Lock()
		defer mu.Unlock()
		seen.Add(part.Maker, !missing)
		if what != "" {
			bad.Lost = append(bad.Lost, LostPart{part, what})
			gone = gone || missing
		}
		return nil
	})
	switch {
	case err != nil || len(bad.Lost) == 0:
		return err
	case gone && !seen.Lost(func() bool { return folder }):
		return &UnseenError{bad}
	}
	slices.SortFunc(bad.Lost, func(a, b LostPart) int { return cmp.Compare(a.Index, b.Index) })
	if p.out.Partial {
		p.leaveOut(bad.Lost)
		return nil
	}
	return &bad
}

// leaveOut drops files from the list. The manifest has their parts as missing.
func (p *publication) leaveOut(lost []LostPart) {
	list, missing := &partList{result: p.list.result}, map[uint64]bool{}
	for i := range lost {
		if lost[i].Result {
			list.result = Part{}
			continue
		}
		missing[lost[i].Index] = true
		p.out.Manifest.Missing = append(p.out.Manifest.Missing, lost[i].Index)
	}
	slices.Sort(p.out.Manifest.Missing)
	for i := range p.list.parts {
		part := p.file(i)
		if missing[part.Index] {
			continue
		}
		if !p.isNamed() {
			part.Name = ""
		}
		list.add(&part)
	}
	p.list = list
}

// publishParts publishes the files, durably.
func (p *publication) publishParts(ctx context.Context) error {
	var below []string
	if p.isNamed() {
		below = folders(p.publicNames())
	}
	if err := p.makeFolders(ctx, below); err != nil {
		return err
	}
	err := p.each(ctx, func(part Part) error {
		return p.store.Publish(ctx, p.private.Join(part.File), p.out.Dir.Join(part.Name))
	})
	if err != nil {
		return err
	}
	return syncFolders(ctx, p.store, p.out.Dir, below)
}

// each calls do for all files, several at once, for stores with a network latency. A file system renames one by one anyway.
func (p *publication) each(ctx context.Context, do func(part Part) error) error {
	const parallel, chunk = 16, 64
	var (
		wg     sync.WaitGroup
		next   atomic.Int64
		failed atomic.Pointer[error]
		n      = p.list.len()
	)
	for range min(parallel, (n+chunk-1)/chunk) {
		wg.Go(func() {
			for {
				from := int(next.Add(chunk)) - chunk
				if from >= n {
					return
				}
				for i := from; i < min(from+chunk, n); i++ {
					if ctx.Err() != nil || failed.Load() != nil {
						return
					}
					if err := do(p.file(i)); err != nil {
						failed.CompareAndSwap(nil, &err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return context.Cause(ctx)
}

// writeManifest writes the manifest under a private name first, so that it is complete and durable when published.
func (p *publication) writeManifest(ctx context.Context, name string) error {
	private := p.private.Join(name)
	w, err := p.store.Create(ctx, "", private)
	if err != nil {
		return err
	}
	defer w.Abort()
	buffered := bufio.NewWriterSize(w, 256<<10)
	if err := p.encodeManifest(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if err := w.Commit(); err != nil {
		return err
	}
	if err := p.store.Publish(ctx, private, p.out.Dir.Join(name)); err != nil {
		return err
	}
	return p.store.SyncDir(ctx, p.out.Dir)
}

// head is the manifest without parts. A later run recognizes it by the uid.
type head struct {
	api.Manifest
	Parts []api.ManifestPart `json:"parts"` // last
}

// emptyChecksum is the xxh64 of an empty file.
const emptyChecksum = 0xef46db3751d8e999

// encodeManifest writes the manifest part by part: as one value, a million of them would take a gigabyte.
func (p *publication) encodeManifest(w io.Writer) error {
	h := head{Manifest: p.out.Manifest, Parts: []api.ManifestPart{}}
	h.UID = p.out.UID
	if p.list.result.File != "" {
		h.Result = layout.Result
	}
	text, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	before, ok := bytes.CutSuffix(text, []byte("[]\n}"))
	if !ok {
		return errors.New("manifest: parts are not last")
	}
	if _, err := w.Write(before); err != nil {
		return err
	}
	var (
		line      []byte
		separator = "[\n"
	)
	inputs, stop := iter.Pull2(p.inputs())
	defer stop()
	input, err, more := inputs()
	for i := range p.list.parts {
		e := &p.list.parts[i]
		for more && err == nil && input.Part < e.index {
			input, err, more = inputs()
		}
		if err != nil {
			return fmt.Errorf("inputs of the parts: %w", err)
		}
		public := p.file(i).Name
		checksum := e.checksum
		if e.size == 0 {
			checksum = emptyChecksum // not reported for empty outputs
		}
		line = fmt.Appendf(line[:0], `%s    {"part":%q,"size":%d,"records":%d,"xxh64":"%016x"`,
			separator, public, e.size, e.records, checksum)
		if more && input.Part == e.index {
			line = appendInput(line, &input)
		}
		line = append(line, '}')
		separator = ",\n"
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	end := "\n  ]\n}\n"
	if len(p.list.parts) == 0 {
		end = "[]\n}\n"
	}
	_, err = io.WriteString(w, end)
	return err
}

// inputs is what the tasks of the parts read, as far as that is known.
func (p *publication) inputs() iter.Seq2[Input, error] {
	if p.out.Inputs == nil {
		return func(func(Input, error) bool) {}
	}
	return p.out.Inputs
}

// appendInput appends the fields of what a task reads.
func appendInput(line []byte, in *Input) []byte {
	key, value := "input", any(in.Name)
	switch {
	case len(in.Names) > 0:
		key, value = "inputs", in.Names
	case in.Name == "":
		return line
	}
	text, err := json.Marshal(value)
	if err != nil {
		return line // not of strings
	}
	line = fmt.Appendf(line, `,%q:%s`, key, text)
	if in.More > 0 {
		line = fmt.Appendf(line, `,"inputs_more":%d`, in.More)
	}
	if in.Offset > 0 {
		line = fmt.Appendf(line, `,"offset":%d`, in.Offset)
	}
	if in.Length > 0 {
		line = fmt.Appendf(line, `,"length":%d`, in.Length)
	}
	return line
}
