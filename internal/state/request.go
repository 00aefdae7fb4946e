package state

import "hash/fnv"

// requests remembers the answers to submits, so that a client may ask again.
type requests struct {
	byKey map[string]*request
	order []*request // oldest first; what was appended never changes: snapshots share it
}

type request struct {
	key  string
	job  JobID
	sum  uint64 // of the request: requestSum
	time int64
}

// requestSum tells one request from another: FNV-1a of a fixed form of the spec. The sum is part of the submit command, as the
// proposer made it. Only for entries of version 1, which have no place for it, does each node compute it from the fields received.
//
// The form is specV1 of the fields of version 1, so that a key that was used before an upgrade is found after it. A field that is
// newer follows as in encoder.spec, if it is not zero and comes from the user. What the leader found or made up while it planned
// the job is no part of it: asked again, it finds other files and makes another spool folder.
func (s *Spec) requestSum() uint64 {
	r := *s
	if r.Spool {
		r.Output = ""
	}
	if r.Input.Kind == InputFiles {
		r.Input = Input{Kind: InputFiles, SplitSize: r.Input.SplitSize}
	}
	var e encoder
	e.specV1(&r)
	h := fnv.New64a()
	_, _ = h.Write(e.buf)
	return h.Sum64()
}

// requestTTL is how long an idempotency key is honoured, in milliseconds.
const requestTTL = 24 * 60 * 60 * 1000

// add remembers q. An empty key is no key: nobody can ask for it again.
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

// Submitted reports whether a submit with this key is remembered.
func (m *Machine) Submitted(key string) bool {
	_, ok := m.requests.byKey[key]
	return ok
}
