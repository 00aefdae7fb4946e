package state

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
)

// requests holds the answers to submits with an idempotency key, so that a client may repeat them.
type requests struct {
	byKey map[string]*request
	order []*request // oldest first; elements never change: snapshots share them
}

type request struct {
	key  string
	job  JobID
	sum  uint64 // of the request: RequestSum
	time int64
}

// RequestSum identifies the request: FNV-1a of a fixed form of the spec. Claim is the user named by the client. The proposer computes it, and
// it is part of the submit command. Only for entries of version 1, which have no field for it, each node computes it from the received
// fields.
//
// The form is version 1, so that a key used before an upgrade is found after it. Newer fields follow it, encoded as in version 2, if they
// are not zero and come from the user. What the leader determined while it planned the job is excluded: a repeated request finds
// other files and gets another spool folder.
func (s *Spec) RequestSum(claim string) uint64 {
	r := *s
	r.User = claim
	if r.Spool {
		r.Output = ""
	}
	if r.Deferred != nil {
		r.Input = Input{Kind: InputFiles, SplitSize: r.Deferred.Split}
	}
	if r.Input.Kind == InputFiles {
		r.Input = Input{Kind: InputFiles, SplitSize: cmp.Or(r.SplitMax, r.Input.SplitSize)}
	}
	h := fnv.New64a()
	e := encoder{sum: h}
	c := codec{e: &e}
	c.spec(&r)
	c.level = 2
	number(&c, 22, &r.GraceMS)
	c.string(23, &r.Records)
	number(&c, 24, &r.Header)
	c.mapOf(25, &r.Env)
	for i := range r.Secrets { // sealed, the same value differs each time
		c.string(26, &r.Secrets[i].Name)
	}
	c.bool(27, &r.Sandbox)
	c.bool(28, &r.NoNetwork)
	number(&c, 29, &r.Placeholders)
	c.string(30, &r.Placeholder)
	c.bool(31, &r.Shell)
	records(&c, 32, &r.Input.Axes, (*codec).axis)
	number(&c, 33, &r.Input.Items)
	number(&c, 34, &r.Input.Batch)
	shuffled := r.Input.Seed != 0 // the leader chose the seed
	c.bool(35, &shuffled)
	optional(&c, 36, &r.MaxFails, (*codec).failLimit)
	number(&c, 37, &r.RetryDelayMS)
	number(&c, 38, &r.DelayMS)
	number(&c, 39, &r.MaxRunning)
	c.string(40, &r.NameParts)
	records(&c, 41, &r.Resources, (*codec).resource)
	records(&c, 45, &r.After, (*codec).dependency)
	c.string(48, &r.Combine)
	c.string(54, &r.Reduce)
	number(&c, 55, &r.Partitions)
	records(&c, 56, &r.Locks, (*codec).lockName)
	c.bool(58, &r.FailOnConflict)
	c.bool(60, &r.NoSecond)
	if r.Pack != nil && !r.Pack.Fitted {
		optional(&c, 63, &r.Pack, (*codec).packing)
	}
	_, _ = h.Write(e.buf)
	return h.Sum64()
}

// RequestSums is the sum of a request for several jobs, of which each has a RequestSum.
func RequestSums(sums []uint64) uint64 {
	h := fnv.New64a()
	for _, sum := range sums {
		_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, sum))
	}
	return h.Sum64()
}

// requestTTL is the lifetime of an idempotency key, in milliseconds.
const requestTTL = 24 * 60 * 60 * 1000

// add adds q, unless its key is empty.
func (r *requests) add(q *request) {
	if q.key == "" {
		return
	}
	r.byKey[q.key] = q
	r.order = append(r.order, q)
}

func (r *requests) expire(now int64) {
	for len(r.order) > 0 && now-r.order[0].time > requestTTL {
		delete(r.byKey, r.order[0].key)
		r.order = r.order[1:]
	}
}

// Submitted reports whether a job was submitted with this key within requestTTL.
func (m *Machine) Submitted(key string) bool {
	_, ok := m.requests.byKey[key]
	return ok
}
