package core

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Why a change of the members was refused; errors match these.
var (
	// ErrRemoved means that this member was removed from its cluster for good.
	ErrRemoved = errors.New("removed from the cluster")
	// ErrChanging means that another change of the members is under way: retry later.
	ErrChanging = errors.New("another change of the leaders is under way")
	// ErrQuorum means that the remaining members would have no quorum.
	ErrQuorum = errors.New("too few leaders would be left")
)

// Member is one member of the cluster. Its ID identifies it; its address may change.
type Member struct {
	ID      uint64 `json:"id"`
	Address string `json:"address,omitempty"` // host:port
	// Directory is the random name of its data directory, drawn when the directory is created. Empty: not known yet.
	Directory string `json:"directory,omitempty"`
	// Voter: counts for elections and commits. A learner does not; it is promoted once it has caught up.
	Voter bool `json:"voter,omitempty"`
}

// Members are the members as of some entry of the log.
type Members struct {
	Cluster string   `json:"cluster"`          // id
	Former  []string `json:"former,omitempty"` // ids that this cluster had before a recovery, oldest first
	List    []Member `json:"list"`             // by ID
	Removed []uint64 `json:"removed,omitempty"`
}

// Addresses returns the addresses of the members that have one.
func (m *Members) Addresses() []string {
	var list []string
	for _, member := range m.List {
		if member.Address != "" {
			list = append(list, member.Address)
		}
	}
	return list
}

// Get returns the member with an id.
func (m *Members) Get(id uint64) (Member, bool) {
	i, ok := slices.BinarySearchFunc(m.List, id, func(a Member, id uint64) int { return cmp.Compare(a.ID, id) })
	if !ok {
		return Member{}, false
	}
	return m.List[i], true
}

// clone returns a deep copy.
func (m *Members) clone() *Members {
	return &Members{
		Cluster: m.Cluster, Former: slices.Clone(m.Former), List: slices.Clone(m.List), Removed: slices.Clone(m.Removed),
	}
}

// Equal compares everything that members hold.
func (m *Members) Equal(o *Members) bool {
	return m.Cluster == o.Cluster && slices.Equal(m.Former, o.Former) && slices.Equal(m.List, o.List) && slices.Equal(m.Removed, o.Removed)
}

// Limits of the members, as of what other members send.
const (
	// MembersMax bounds the members of a cluster.
	MembersMax = 32
	// idMax bounds ids: the highest ones are names of raft's own threads.
	idMax = 1 << 62
	// NameBytesMax bounds the name of a data directory and the id of a cluster. Their own have 16 bytes.
	NameBytesMax = 128
	// AddressBytesMax bounds an address: a DNS name has up to 253 bytes.
	AddressBytesMax = 260
)

func checkID(id uint64) error {
	if id == 0 || id > idMax {
		return fmt.Errorf("invalid id %d: want 1 to %d", id, uint64(idMax))
	}
	return nil
}

// Check returns which field of a member is out of its limits.
func (m Member) Check() error {
	err := checkID(m.ID)
	switch {
	case err != nil:
	case len(m.Address) > AddressBytesMax:
		err = fmt.Errorf("its address has %d bytes, the limit is %d", len(m.Address), AddressBytesMax)
	case len(m.Directory) > NameBytesMax:
		err = fmt.Errorf("the name of its data directory has %d bytes, the limit is %d", len(m.Directory), NameBytesMax)
	}
	if err != nil {
		return fmt.Errorf("member %d: %w", m.ID, err)
	}
	return nil
}

// Check returns why these cannot be the members of a cluster.
func (m *Members) Check() error {
	if len(m.List) > MembersMax || len(m.Cluster) > NameBytesMax {
		return fmt.Errorf("%d members of a cluster whose id has %d bytes, the limits are %d and %d", len(m.List), len(m.Cluster), MembersMax, NameBytesMax)
	}
	if !slices.IsSortedFunc(m.List, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) }) {
		return errors.New("the members are not in order")
	}
	if len(m.voters()) == 0 {
		return errors.New("no member is a voter")
	}
	for _, member := range m.List {
		if err := member.Check(); err != nil {
			return err
		}
		if slices.Contains(m.Removed, member.ID) {
			return fmt.Errorf("member %d was removed", member.ID)
		}
	}
	return nil
}

func (m *Members) voters() []uint64 {
	var ids []uint64
	for _, v := range m.List {
		if v.Voter {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// ConfState returns the members in raft's form.
func (m *Members) ConfState() *raftpb.ConfState {
	conf := &raftpb.ConfState{Voters: m.voters()}
	for _, v := range m.List {
		if !v.Voter {
			conf.Learners = append(conf.Learners, v.ID)
		}
	}
	return conf
}

// nextID returns an id that was never used.
func (m *Members) nextID() uint64 {
	next := uint64(1)
	for _, v := range m.List {
		next = max(next, v.ID+1)
	}
	for _, id := range m.Removed {
		next = max(next, id+1)
	}
	return next
}

// Encode returns what DecodeMembers reads.
func (m *Members) Encode() ([]byte, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode members: %w", err)
	}
	return raw, nil
}

// DecodeMembers checks the order of the list only.
func DecodeMembers(raw []byte) (*Members, error) {
	m := &Members{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("decode members: %w", err)
	}
	for i := 1; i < len(m.List); i++ {
		if m.List[i].ID <= m.List[i-1].ID {
			return nil, fmt.Errorf("decode members: member %d follows member %d", m.List[i].ID, m.List[i-1].ID)
		}
	}
	return m, nil
}

// Op is the kind of a Change.
type Op string

// The kinds of changes.
const (
	OpAdd     Op = "add"     // a learner; ID 0 stands for one that was never used
	OpPromote Op = "promote" // a learner becomes a voter
	OpUpdate  Op = "update"  // a new address, or the name of a directory if it was not known
	OpRemove  Op = "remove"  // for good
)

// Change is one change of the members, as it is in the log.
type Change struct {
	Op     Op     `json:"op"`
	Member Member `json:"member"`
}

// plan validates and completes c. It is not needed if the members are already as c would make them.
func (m *Members) plan(c Change) (_ Change, needed bool, err error) {
	switch c.Op {
	case OpAdd:
		return m.planAdd(c)
	case OpUpdate:
		have, ok := m.Get(c.Member.ID)
		if !ok {
			return c, false, m.unknown(c.Member.ID)
		}
		if c.Member.Directory != "" && have.Directory != "" && c.Member.Directory != have.Directory {
			return c, false, fmt.Errorf("leader %d was a member with another data directory: its log is lost; "+
				"run `leaders remove %d` and join again", have.ID, have.ID)
		}
		want := have
		want.Address, want.Directory = cmp.Or(c.Member.Address, have.Address), cmp.Or(c.Member.Directory, have.Directory)
		if err := m.addressFree(want); err != nil {
			return c, false, err
		}
		return Change{Op: OpUpdate, Member: want}, want != have, nil
	case OpPromote:
		have, ok := m.Get(c.Member.ID)
		if !ok {
			return c, false, m.unknown(c.Member.ID)
		}
		return Change{Op: OpPromote, Member: have}, !have.Voter, nil
	case OpRemove:
		if slices.Contains(m.Removed, c.Member.ID) {
			return c, false, nil
		}
		have, ok := m.Get(c.Member.ID)
		if !ok {
			return c, false, m.unknown(c.Member.ID)
		}
		if have.Voter && len(m.voters()) == 1 {
			return c, false, fmt.Errorf("leader %d is the last one: remove the whole cluster instead: %w", have.ID, ErrQuorum)
		}
		return Change{Op: OpRemove, Member: have}, true, nil
	}
	return c, false, fmt.Errorf("unknown change %q of the leaders", c.Op)
}

func (m *Members) planAdd(c Change) (_ Change, needed bool, err error) {
	want := c.Member
	want.Voter = false
	for _, have := range m.List {
		if want.Directory == "" || have.Directory != want.Directory {
			continue
		}
		if want.ID != 0 && want.ID != have.ID {
			return c, false, fmt.Errorf("the data directory is that of leader %d, and it is to join as leader %d: start it without an id", have.ID, want.ID)
		}
		want.ID = have.ID
		return m.plan(Change{Op: OpUpdate, Member: want})
	}
	if slices.Contains(m.Removed, want.ID) {
		return c, false, fmt.Errorf("leader %d was removed from the cluster: ids are not used again; join without an id, "+
			"with an empty data directory: %w", want.ID, ErrRemoved)
	}
	have, ok := m.Get(want.ID)
	switch {
	case ok && have.Directory == "" && have.Address == want.Address: // one of the first members, which has not been here yet
		return m.plan(Change{Op: OpUpdate, Member: want})
	case ok:
		return c, false, fmt.Errorf("leader %d exists already, at %s with another data directory: join with another id, or without one; "+
			"if that leader is gone for good, run `leaders remove %d` first", have.ID, have.Address, have.ID)
	}
	if want.ID == 0 {
		want.ID = m.nextID()
	}
	return Change{Op: OpAdd, Member: want}, true, m.addressFree(want)
}

func (m *Members) unknown(id uint64) error {
	var ids []string
	for _, v := range m.List {
		ids = append(ids, fmt.Sprint(v.ID))
	}
	return fmt.Errorf("there is no leader %d: the leaders are %s", id, strings.Join(ids, ", "))
}

func (m *Members) addressFree(want Member) error {
	for _, have := range m.List {
		if want.Address != "" && have.Address == want.Address && have.ID != want.ID {
			return fmt.Errorf("leader %d has the address %s already: if it is gone for good, run `leaders remove %d` first",
				have.ID, have.Address, have.ID)
		}
	}
	return nil
}

// apply returns the members after c. A change that is invalid by now has no effect; all members see the same log, so they agree on that.
func (m *Members) apply(c Change) (_ *Members, applied bool) {
	planned, needed, err := m.plan(c)
	if err != nil || !needed || planned.Op != c.Op {
		return m, false
	}
	next := m.clone()
	i, found := slices.BinarySearchFunc(next.List, planned.Member.ID, func(a Member, id uint64) int { return cmp.Compare(a.ID, id) })
	switch {
	case c.Op == OpRemove:
		next.List = slices.Delete(next.List, i, i+1)
		next.Removed = append(next.Removed, planned.Member.ID)
		slices.Sort(next.Removed)
	case found:
		next.List[i] = planned.Member
		next.List[i].Voter = planned.Member.Voter || c.Op == OpPromote
	default:
		next.List = slices.Insert(next.List, i, planned.Member)
	}
	return next, true
}

// confChange is c in raft's form, without its encoding.
func (c Change) confChange() *raftpb.ConfChangeSingle {
	kind := map[Op]raftpb.ConfChangeType{
		OpAdd: raftpb.ConfChangeAddLearnerNode, OpPromote: raftpb.ConfChangeAddNode,
		OpUpdate: raftpb.ConfChangeUpdateNode, OpRemove: raftpb.ConfChangeRemoveNode,
	}[c.Op]
	return &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(c.Member.ID)}
}

// entry encodes c for the log.
func (c Change) entry() (*raftpb.ConfChangeV2, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode change of the members: %w", err)
	}
	return &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{c.confChange()}, Context: raw}, nil
}

// decodeChange decodes what entry has encoded. Raft panics on other changes.
func decodeChange(e *raftpb.Entry) (Change, *raftpb.ConfChangeV2, error) {
	var c Change
	cc := &raftpb.ConfChangeV2{}
	if e.GetType() != raftpb.EntryConfChangeV2 {
		return c, nil, fmt.Errorf("unknown entry type %v", e.GetType())
	}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return c, nil, err
	}
	if err := json.Unmarshal(cc.GetContext(), &c); err != nil {
		return c, nil, err
	}
	switch c.Op {
	case OpAdd, OpPromote, OpUpdate, OpRemove:
	default:
		return c, nil, fmt.Errorf("unknown change %q of the members: a newer version wrote it, run that one", c.Op)
	}
	if err := c.Member.Check(); err != nil {
		return c, nil, err
	}
	if len(cc.GetChanges()) != 1 || cc.GetTransition() != 0 || !proto.Equal(cc.GetChanges()[0], c.confChange()) {
		return c, nil, fmt.Errorf("raft's form of it differs from %q of member %d", c.Op, c.Member.ID)
	}
	return c, cc, nil
}

// MembersAfter applies the changes of the members in entries, committed or not, to members. Those up to the entry overruled are skipped.
func MembersAfter(members *Members, entries []*raftpb.Entry, overruled uint64) (*Members, error) {
	for _, e := range entries {
		if e.GetType() == raftpb.EntryNormal || e.GetIndex() <= overruled {
			continue
		}
		change, _, err := decodeChange(e)
		if err == nil {
			members, _ = members.apply(change)
		}
		if err != nil {
			return nil, fmt.Errorf("change of the members in entry %d: %w", e.GetIndex(), err)
		}
	}
	return members, nil
}
