package state

import "slices"

// Tail is the last part of what an attempt wrote, compressed. It never changes.
type Tail struct {
	Log, Output           []byte
	LogBytes, OutputBytes uint64 // of the whole texts
}

// size is what a tail takes.
func (t *Tail) size() int { return len(t.Log) + len(t.Output) + tailOverhead }

// KeptTail is the tail of a failed attempt.
type KeptTail struct {
	*Tail

	Job     JobID
	Stage   uint32
	Task    uint64
	Attempt uint32
	Worker  WorkerID
	Lease   Lease
}

// Bounds of the tails that the state keeps. Of a job, the first and the last are kept; of all jobs, the last.
const (
	TailTextMax    = 65 << 10 // bytes of a text, compressed
	tailsOfJobHalf = 8
	tailsBytesMax  = 16 << 20
	tailOverhead   = 4 << 10 // bytes that count beside the texts: they bound the number of tails
)

// Tails returns what failed attempts of a job wrote last, oldest first. The tails belong to the machine: do not change them.
func (m *Machine) Tails(id JobID) []KeptTail {
	var of []KeptTail
	for _, t := range m.tails {
		if t.Job == id {
			of = append(of, t)
		}
	}
	return of
}

// keepTail adds the tail of a failed attempt. The slice that a snapshot may share is not changed, but for its spare capacity.
func (m *Machine) keepTail(t KeptTail) {
	kept, bytes := m.tails, t.size()
	var ofJob []int
	for i := range kept {
		bytes += kept[i].size()
		if kept[i].Job == t.Job {
			ofJob = append(ofJob, i)
		}
	}
	if len(ofJob) == 2*tailsOfJobHalf {
		at := ofJob[tailsOfJobHalf]
		bytes -= kept[at].size()
		kept = slices.Delete(slices.Clone(kept), at, at+1)
	}
	oldest := 0
	for ; bytes > tailsBytesMax; oldest++ {
		bytes -= kept[oldest].size()
	}
	if oldest > 0 {
		kept = slices.Clone(kept[oldest:]) // releases the others
	}
	m.tails = append(kept, t)
}

// dropTails removes the tails of a job that is forgotten.
func (m *Machine) dropTails(id JobID) {
	m.tails = slices.DeleteFunc(slices.Clone(m.tails), func(t KeptTail) bool { return t.Job == id })
}

func (c *codec) tail(t *Tail) {
	c.bytes(1, &t.Log)
	number(c, 2, &t.LogBytes)
	c.bytes(3, &t.Output)
	number(c, 4, &t.OutputBytes)
	c.end("the tail of an attempt")
	c.check(func() bool { return len(t.Log) <= TailTextMax && len(t.Output) <= TailTextMax })
}

func (c *codec) keptTail(t *KeptTail) {
	number(c, 1, &t.Job)
	number(c, 2, &t.Stage)
	number(c, 3, &t.Task)
	number(c, 4, &t.Attempt)
	number(c, 5, &t.Worker)
	number(c, 6, &t.Lease)
	nest(c, 7, made(&t.Tail), (*codec).tail)
	c.end("a kept tail")
}
