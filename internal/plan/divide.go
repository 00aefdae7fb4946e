package plan

import (
	"cmp"
	"context"
	"sort"

	"github.com/bridgefour/bridgefour/internal/bytesize"
	"github.com/bridgefour/bridgefour/internal/state"
)

// How files are divided into tasks, unless the user says how.
const (
	// tasksPerSlot keeps what runs last a small part of the whole.
	tasksPerSlot = 4
	// splitMin is the size of a split below which more of them would not be faster.
	splitMin = 1 << 20
	// slotsUnknown stands for the slots of a cluster without workers: those that come may have many.
	slotsUnknown = 64

	// packFilesMax and packNamesMax bound the files of a task and the bytes of their names: a worker gets them in one message, and a failure runs all of
	// them again.
	packFilesMax = 256
	packNamesMax = 64 << 10
)

// fits reports whether the tasks of a job may be chosen for its slots: it does not matter how its input is divided, and the user neither counts, names nor
// paces tasks.
func (p *planner) fits() bool {
	return (p.divisible || p.req.Program.Reduce != "") && !p.opt.OneByOne && p.req.Class == "" && p.req.Split != "none" &&
		p.req.NameParts == "" && p.req.MaxFails == "" && p.req.Delay == "" && !p.result.FirstSuccess
}

// packing validates how small files share tasks.
func (p *planner) packing() {
	command := p.req.Program.Builtin == ""
	switch text := p.req.Pack; text {
	case "":
		if p.fits() && !command && len(p.req.Inputs) > 0 {
			p.result.Pack = &state.Packing{Fitted: true}
		}
	case "none":
		p.result.Pack = &state.Packing{}
	default:
		size, err := bytesize.Parse(text)
		switch {
		case err != nil:
			p.fail("pack", "%v, or none", err)
		case len(p.req.Inputs) == 0:
			p.fail("pack", "small files share a task, and there are none: give an input; items of a list share one with batch")
		case command:
			p.fail("pack", "a command reads one file: to give it several, pass their names as lines (--lines) with --batch N, and {} stands for N of them")
		case p.req.NameParts != "":
			p.fail("pack", "files that share a task share its part, which has one name: leave out pack or name_parts")
		default:
			p.result.Pack = &state.Packing{Size: size}
		}
	}
}

// division is how the files of an input are divided.
type division struct {
	split     uint64 // longest split; 0: files are not cut
	pack      uint64 // bytes of files that share a task; 0: none do
	packFiles uint64 // how many do at most
}

// divide chooses a division for files of so many bytes in all.
func (p *planner) divide(split, files, bytes uint64) division {
	slots := cmp.Or(p.opt.Slots, slotsUnknown) / uint64(max(1, p.result.SlotsPerTask))
	if p.result.MaxRunning > 0 {
		slots = min(slots, uint64(p.result.MaxRunning))
	}
	tasks := tasksPerSlot * max(1, slots)
	fitting := max(splitMin, ceilDiv(bytes, tasks))
	d := division{split: split}
	if p.result.SplitMax > 0 {
		d.split = min(split, fitting)
		if files == 1 {
			d.split = p.together(d.split, bytes, max(1, slots))
		}
		d.split = p.wholeRecords(d.split)
	}
	switch pack := p.result.Pack; {
	case pack == nil:
	case pack.Fitted:
		d.pack, d.packFiles = min(cmp.Or(split, p.opt.DefaultSplit), fitting), min(packFilesMax, files/tasks)
	default:
		d.pack, d.packFiles = pack.Size, packFilesMax
	}
	return d
}

// together is a size of splits for a file, at most split, with which they are a multiple of the slots: otherwise some slots are idle while others run the last ones.
func (p *planner) together(split, bytes, slots uint64) uint64 {
	rounds := max(1, ceilDiv(ceilDiv(bytes, split), slots))
	size := ceilDiv(bytes, rounds*slots)
	if n := uint64(p.kind.Size()); n > 0 {
		size = ceilDiv(size, n) * n
	}
	if size < splitMin || size > split {
		return split
	}
	return size
}

func ceilDiv(a, b uint64) uint64 { return (a + b - 1) / b }

// wholeRecords rounds a size of splits down to records of a fixed size.
func (p *planner) wholeRecords(size uint64) uint64 {
	if n := uint64(p.kind.Size()); n > 0 && size > 0 {
		return max(size/n, 1) * n
	}
	return size
}

// divide makes tasks of the files that were listed.
func (l *fileList) divide(ctx context.Context, split uint64) error {
	listed, err := l.listed.Input()
	if err != nil {
		return err
	}
	l.splitMax, l.division = split, l.p.divide(split, listed.Tasks, listed.Bytes)
	l.b = state.NewFiles(l.split)
	n := uint64(0)
	for b := range listed.Blocks {
		files, err := listed.Files(b)
		if err != nil {
			return err
		}
		for i := range files {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			c := &candidate{field: l.field(n), name: string(files[i].Path), version: files[i].Version, whole: files[i].Whole}
			n++
			if size := c.version.Size; !c.whole && l.split > 0 && size > l.split && l.p.kind.Size() == 0 && (size-1)/l.split < l.p.opt.TasksMax {
				l.examine(ctx, c)
			}
			l.queue = append(l.queue, c)
			l.addQueued(l.examineMax())
		}
		listed.Blocks[b] = state.Block{} // its memory is not needed any more
	}
	l.addQueued(0)
	l.endPack()
	return nil
}

// field is the field of the request that has named file n.
func (l *fileList) field(n uint64) string {
	return inputField(sort.Search(len(l.starts), func(i int) bool { return l.starts[i] > n }) - 1)
}

// addTasks adds the tasks of a file, which may share its task with those before it.
func (l *fileList) addTasks(c *candidate) {
	size := c.version.Size
	if !c.whole && c.examined == nil && size <= l.pack && (l.split == 0 || size <= l.split) && l.packFiles > 1 {
		if uint64(len(l.packed)) == l.packFiles || l.packedBytes+size > l.pack || l.packedNames+len(c.name) > packNamesMax {
			l.endPack()
		}
		l.packed = append(l.packed, state.Split{Path: []byte(c.name), Version: c.version})
		l.packedBytes, l.packedNames = l.packedBytes+size, l.packedNames+len(c.name)
		return
	}
	l.endPack()
	l.tasks++
	if !c.whole && l.split > 0 && size > l.split {
		l.tasks += float64((size - 1) / l.split)
	}
	switch {
	case l.full():
	case c.boundaries != nil:
		l.b.AddCutFile([]byte(c.name), c.version, c.boundaries)
	default:
		l.b.AddFile([]byte(c.name), c.version, c.whole)
	}
}

// endPack adds the task of the files that share one.
func (l *fileList) endPack() {
	if len(l.packed) == 0 {
		return
	}
	if l.tasks++; !l.full() {
		l.b.Pack(l.packed)
	}
	l.packed, l.packedBytes, l.packedNames = l.packed[:0], 0, 0
}

// full reports whether there are more tasks than a job may have.
func (l *fileList) full() bool {
	return l.tasks > float64(l.p.opt.TasksMax) || l.b.Bytes() > state.InputBytesMax
}
