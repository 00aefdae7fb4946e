package state

import (
	"slices"
	"strings"
)

// lockTable is the requests for locks, in their order, and the names that they lock.
//
// A request waits while an earlier one, held or waiting, conflicts with it, or while Max or more do that have the same Max. It counts them when it
// is added; when one goes, the counts of the later ones that conflict with it fall. So all waits point backwards in the log: there is no
// deadlock, no starvation, and none is overtaken.
//
// Cost: adding and removing walk the requests that conflict, and the nodes of the names. Requests that do not conflict cost nothing.
type lockTable struct {
	roots       [lockSpaces]pathNode
	byID        map[LockID]*Lock
	byJob       map[JobID]*Lock       // of those that are not over
	byOwner     map[uint64]*pathEntry // of clients, by ownerSum; those of one sum are a list, see pathEntry.sameSum
	first, last *Lock                 // in the order of their numbers
	lastID      LockID
	fence       uint64 // the last one that was granted
	walk        uint64 // numbers the walks, to visit a request once: Lock.seen
	clients     int    // requests of clients
	priorities  map[uint32]int
	uneven      bool    // the requests of jobs do not all have one priority, or did not before the last change
	granted     []*Lock // by the command that is being applied; see Machine.releaseOthers
}

// lockSpace is where a name is.
type lockSpace uint8

const (
	dataSpace lockSpace = iota // locations of inputs and outputs
	userSpace                  // names that users choose
	lockSpaces
)

// pathUse is how an entry uses its node.
type pathUse uint8

const (
	useExclusive pathUse = iota
	useShared
	useOutput // of a job, ended or not; locks nothing
	pathUses
)

// pathNode is a path: a component below its parent. It exists while it has entries, or nodes below it.
type pathNode struct {
	parent   *pathNode
	part     string
	children map[string]*pathNode
	entries  [pathUses]pathList
	below    [pathUses]uint32 // entries of all nodes below this one
}

// pathEntry is a name of a request, or an output of a job.
type pathEntry struct {
	node       *pathNode
	lock       *Lock // nil: an output
	job        JobID // of an output
	next, prev *pathEntry
	sameSum    *pathEntry
	use        pathUse
}

// pathList is the entries of a node, in the order in which they were added.
type pathList struct{ first, last *pathEntry }

func newLockTable() lockTable {
	t := lockTable{byID: map[LockID]*Lock{}, byJob: map[JobID]*Lock{}, byOwner: map[uint64]*pathEntry{}, priorities: map[uint32]int{}}
	t.roots[dataSpace].part = dataRoot
	return t
}

// pathParts yields the components of a name. Those of s3://bucket/key begin with "s3:".
func pathParts(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for name != "" {
			part, rest, _ := strings.Cut(name, "/")
			if part != "" && !yield(part) {
				return
			}
			name = rest
		}
	}
}

// make returns the node of a name below n, which may be new.
func (n *pathNode) make(name string) *pathNode {
	for part := range pathParts(name) {
		child := n.children[part]
		if child == nil {
			if n.children == nil {
				n.children = map[string]*pathNode{}
			}
			part = strings.Clone(part)
			child = &pathNode{parent: n, part: part}
			n.children[part] = child
		}
		n = child
	}
	return n
}

// find returns the node of a name, or the last one above it that exists.
func (n *pathNode) find(name string) (at *pathNode, exact bool) {
	for part := range pathParts(name) {
		child := n.children[part]
		if child == nil {
			return n, false
		}
		n = child
	}
	return n, true
}

// name is the path of a node: its components, joined.
func (n *pathNode) name() string {
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.part)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// add makes e the last entry of its node.
func (e *pathEntry) add() {
	list := &e.node.entries[e.use]
	if e.prev = list.last; e.prev != nil {
		e.prev.next = e
	} else {
		list.first = e
	}
	list.last = e
	for n := e.node.parent; n != nil; n = n.parent {
		n.below[e.use]++
	}
}

// remove removes e from its node, and the nodes that are empty then.
func (e *pathEntry) remove() {
	list := &e.node.entries[e.use]
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		list.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		list.last = e.prev
	}
	for n := e.node.parent; n != nil; n = n.parent {
		n.below[e.use]--
	}
	for n := e.node; n.parent != nil && len(n.children) == 0 && n.entries == [pathUses]pathList{}; n = n.parent {
		delete(n.parent.children, n.part)
	}
}

// overlaps visits the entries of one use at a node, above it and, if exact, below it: at each node the last ones first, as long as visit returns true.
// The order of the nodes varies.
func (n *pathNode) overlaps(use pathUse, exact bool, visit func(*pathEntry) bool) {
	for up := n; up != nil; up = up.parent {
		for e := up.entries[use].last; e != nil && visit(e); e = e.prev {
		}
	}
	if exact {
		n.visitBelow(use, visit)
	}
}

func (n *pathNode) visitBelow(use pathUse, visit func(*pathEntry) bool) {
	if n.below[use] == 0 {
		return
	}
	for _, child := range n.children {
		for e := child.entries[use].last; e != nil && visit(e); e = e.prev {
		}
		child.visitBelow(use, visit)
	}
}

// conflicts calls visit once for each request, with a larger number than after, that has a name in conflict with one at a node.
func (t *lockTable) conflicts(n *pathNode, shared, exact bool, after LockID, visit func(*Lock)) {
	each := func(e *pathEntry) bool {
		if e.lock.ID <= after {
			return false
		}
		if e.lock.seen != t.walk {
			e.lock.seen = t.walk
			visit(e.lock)
		}
		return true
	}
	n.overlaps(useExclusive, exact, each)
	if !shared {
		n.overlaps(useShared, exact, each)
	}
}

// against calls visit once for each request that conflicts with names, except for a Lock of its own, if it is not nil.
func (t *lockTable) against(names []LockName, own *Lock, visit func(*Lock)) {
	t.walk++
	if own != nil {
		own.seen = t.walk
	}
	for i := range names {
		n, exact := t.roots[names[i].space()].find(names[i].Name)
		t.conflicts(n, names[i].Shared, exact, 0, visit)
	}
}

// earliest is the first of the requests that conflict with names; nil: there is none.
func (t *lockTable) earliest(names []LockName) (first *Lock) {
	t.against(names, nil, func(l *Lock) {
		if first == nil || l.ID < first.ID {
			first = l
		}
	})
	return first
}

// add adds a request with the largest number, and counts what it waits for.
func (t *lockTable) add(l *Lock, names []LockName) {
	t.against(names, l, func(earlier *Lock) {
		*l.count(earlier)++
	})
	l.entries = make([]pathEntry, len(names))
	for i := range names {
		e := &l.entries[i]
		e.lock, e.node, e.use = l, t.roots[names[i].space()].make(names[i].Name), useExclusive
		if names[i].Shared {
			e.use = useShared
		}
		e.add()
	}
	t.byID[l.ID] = l
	if l.prev = t.last; l.prev != nil {
		l.prev.next = l
	} else {
		t.first = l
	}
	t.last = l
	switch {
	case l.Over:
		return
	case l.Job != 0:
		t.byJob[l.Job] = l
		t.weigh(l, 1)
		return
	}
	for i := range l.entries {
		sum := ownerSum(l.User, l.Holder, names[i].Name)
		l.entries[i].sameSum, t.byOwner[sum] = t.byOwner[sum], &l.entries[i]
	}
	t.clients++
}

// remove removes a request, and adds those that may hold their names now to granted.
func (t *lockTable) remove(l *Lock) {
	t.walk++
	l.seen = t.walk
	for i := range l.entries {
		e := &l.entries[i]
		t.conflicts(e.node, e.use == useShared, true, l.ID, func(later *Lock) {
			*later.count(l)--
			if later.Fence == 0 && later.free() {
				t.granted = append(t.granted, later)
			}
		})
	}
	for i := range l.entries {
		l.entries[i].remove()
	}
	delete(t.byID, l.ID)
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		t.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		t.last = l.prev
	}
	switch {
	case l.Over:
		return
	case l.Job != 0:
		delete(t.byJob, l.Job)
		t.weigh(l, -1)
		return
	}
	t.clients--
	for i := range l.entries {
		t.disown(&l.entries[i])
	}
}

// setOver notes that the job of a request, which holds its names, has ended, or with false, that it goes on.
func (t *lockTable) setOver(l *Lock, over bool) {
	if l.Over = over; over {
		delete(t.byJob, l.Job)
		t.weigh(l, -1)
		return
	}
	t.byJob[l.Job] = l
	t.weigh(l, 1)
}

// disown removes an entry from byOwner.
func (t *lockTable) disown(e *pathEntry) {
	sum := ownerSum(e.lock.User, e.lock.Holder, e.node.name())
	first := t.byOwner[sum]
	if first == e {
		if t.byOwner[sum] = e.sameSum; e.sameSum == nil {
			delete(t.byOwner, sum)
		}
		return
	}
	for ; first != nil; first = first.sameSum {
		if first.sameSum == e {
			first.sameSum = e.sameSum
		}
	}
}

// weigh notes that a request of a job comes, or with -1 goes.
func (t *lockTable) weigh(l *Lock, change int) {
	t.uneven = t.uneven || len(t.priorities) > 1
	if t.priorities[l.priority] += change; t.priorities[l.priority] == 0 {
		delete(t.priorities, l.priority)
	}
	t.uneven = t.uneven || len(t.priorities) > 1
}

// grant gives a request its names. The fencing number is the log position of the grant, or the number after the last one, if several are granted
// at one position.
func (t *lockTable) grant(l *Lock, index uint64, now int64) {
	t.fence = max(t.fence+1, index)
	l.Fence, l.Since = t.fence, now
}

// inherit computes the inherited priorities: a request has the highest one of those that wait for it, directly or not. Changed is called for the
// jobs whose priority is another one then.
func (t *lockTable) inherit(changed func(JobID)) {
	if !t.uneven {
		return
	}
	t.uneven = len(t.priorities) > 1
	nodes := inheritance{}
	for l := t.last; l != nil; l = l.prev {
		top := nodes.of(l)
		nodes.add(l, top)
		if l.inherited != top {
			l.inherited = top
			if l.Job != 0 && !l.Over {
				changed(l.Job)
			}
		}
	}
}

// inheritance is the highest priority of the requests after one, which are visited in reverse, at each node and below it, by their use.
type inheritance map[*pathNode]*struct{ at, below [useOutput]uint32 }

func (h inheritance) node(n *pathNode) *struct{ at, below [useOutput]uint32 } {
	if h[n] == nil {
		h[n] = &struct{ at, below [useOutput]uint32 }{}
	}
	return h[n]
}

// of is the priority of a request: its own, or a higher one of those after it that conflict.
func (h inheritance) of(l *Lock) uint32 {
	top := l.priority
	for i := range l.entries {
		e := &l.entries[i]
		uses := useShared // the uses before this one conflict
		if e.use == useExclusive {
			uses = useOutput
		}
		for use := range uses {
			top = max(top, h.node(e.node).below[use])
			for n := e.node; n != nil; n = n.parent {
				if at := h[n]; at != nil {
					top = max(top, at.at[use])
				}
			}
		}
	}
	return top
}

func (h inheritance) add(l *Lock, top uint32) {
	for i := range l.entries {
		e := &l.entries[i]
		at := &h.node(e.node).at[e.use]
		*at = max(*at, top)
		for n := e.node.parent; n != nil; n = n.parent {
			below := &h.node(n).below[e.use]
			*below = max(*below, top)
		}
	}
}

// ownedAt returns a request of a client that has one of these names; nil: there is none.
func (t *lockTable) ownedAt(owner *Lock, names []LockName) *Lock {
	for i := range names {
		for e := t.byOwner[ownerSum(owner.User, owner.Holder, names[i].Name)]; e != nil; e = e.sameSum {
			if e.lock.sameOwner(owner) && e.node.name() == names[i].Name {
				return e.lock
			}
		}
	}
	return nil
}
