package state

import "slices"

// An input that is too large for the entry of its submit is staged: blocks of it are added to the state under the uid of the job, in
// several entries, and the submit takes them. The leader that staged them drops them if it does not submit the job, and a new leader drops
// what others have staged: their submits cannot come any more. So a staging is forgotten here only if both fail.
const (
	// StageBytes is how many bytes of blocks one entry stages, up to the last block. An input of more is staged.
	StageBytes = 1 << 20
	// InputBytesMax bounds the blocks of a job, and stagedBytesMax those that are staged at one time.
	InputBytesMax  = 256 << 20
	stagedBytesMax = 4 * InputBytesMax
	// InputsBytesMax bounds the blocks of all jobs, which every leader has in memory, beside what is not staged.
	InputsBytesMax = 4 << 30
	// stagedTTL is how long a staging is kept after its last block, in milliseconds.
	stagedTTL = 15 * 60 * 1000
)

// staging is the input of a job that is not submitted yet. Snapshots share its blocks.
type staging struct {
	uid    string
	blocks []Block
	bytes  uint64
	time   int64 // of the last block
}

// Staged returns the uids under which blocks are staged, oldest first.
func (m *Machine) Staged() []string {
	var uids []string
	for i := range m.staged {
		uids = append(uids, m.staged[i].uid)
	}
	return uids
}

func (m *Machine) stagedIndex(uid string) int {
	return slices.IndexFunc(m.staged, func(s staging) bool { return s.uid == uid })
}

// stage adds blocks. After a rejection nothing is left of the staging: its submit cannot come.
func (m *Machine) stage(c *command) *Rejection {
	i := m.stagedIndex(c.uid)
	if i < 0 && c.staged == 0 {
		m.staged = append(m.staged, staging{uid: c.uid})
		i = len(m.staged) - 1
	}
	if i < 0 || uint64(len(m.staged[i].blocks)) != c.staged {
		m.takeStaged(c.uid)
		return reject(Busy, "the input of the job is no longer staged: submit it again")
	}
	s := &m.staged[i]
	s.blocks, s.bytes, s.time = append(s.blocks, c.blocks...), s.bytes+blockBytesOf(c.blocks), m.time
	var all uint64
	for i := range m.staged {
		all += m.staged[i].bytes
	}
	switch {
	case s.bytes > InputBytesMax:
		m.takeStaged(c.uid)
		return reject(TooLarge, "the input takes more than %d MiB as compressed: make several jobs of it", InputBytesMax>>20)
	case all > stagedBytesMax:
		m.takeStaged(c.uid)
		return reject(Busy, "other jobs with large inputs are being submitted (more than %d MiB in all): try again in a moment", stagedBytesMax>>20)
	case all+m.inputs > InputsBytesMax:
		m.takeStaged(c.uid)
		return reject(Busy, "the inputs of the jobs that have not ended take more than %d MiB of each leader's memory: wait until some have ended",
			InputsBytesMax>>20)
	}
	return nil
}

// takeStaged removes a staging, and returns its blocks.
func (m *Machine) takeStaged(uid string) []Block {
	i := m.stagedIndex(uid)
	if i < 0 {
		return nil
	}
	blocks := m.staged[i].blocks
	m.staged = slices.Delete(m.staged, i, i+1)
	return blocks
}

// expireStaged drops stagings without a new block for stagedTTL.
func (m *Machine) expireStaged() {
	m.staged = slices.DeleteFunc(m.staged, func(s staging) bool { return m.time-s.time > stagedTTL })
}

// blockBytesOf is the size of blocks in the log, in messages and in memory, roughly.
func blockBytesOf(blocks []Block) (n uint64) {
	for i := range blocks {
		n += blocks[i].size()
	}
	return n
}

func (b *Block) size() uint64 {
	return uint64(len(b.Data)+len(b.Versions)+len(b.Cuts)+len(b.Packs)) + blockOverhead
}

// blockOverhead is roughly the memory of a block besides its data.
const blockOverhead = 64

// BlockBytes is the size of the blocks, in the log and in memory.
func (in *Input) BlockBytes() uint64 { return blockBytesOf(in.Blocks) }

// Bytes is the size of the complete blocks, in the log and in memory.
func (b *InputBuilder) Bytes() uint64 {
	b.bytes += blockBytesOf(b.in.Blocks[b.counted:])
	b.counted = len(b.in.Blocks)
	return b.bytes
}

// NextStage returns the blocks to be staged in the next entry, after the first staged ones; none: all are staged.
func (in *Input) NextStage(staged int) []Block {
	end, n := staged, uint64(0)
	for end < len(in.Blocks) && n < StageBytes {
		n += in.Blocks[end].size()
		end++
	}
	return in.Blocks[staged:end]
}
