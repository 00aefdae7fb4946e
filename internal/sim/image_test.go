package sim

import (
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// image is the content of a leader's disk.
type image struct {
	begin   core.Position // if there is no snapshot yet
	state   *raftpb.HardState
	entries []*raftpb.Entry
	snaps   []savedSnapshot // newest first, at most two
}

type savedSnapshot struct {
	at   core.Position
	body []byte
}

func (d *image) start() core.Position {
	if len(d.snaps) > 0 {
		return d.snaps[0].at
	}
	return d.begin
}

// save makes a batch of raft durable; torn: only its first entries, because the machine stopped meanwhile.
func (d *image) save(m *raftpb.Message, body []byte, torn int) {
	entries := m.GetEntries()
	if torn >= 0 {
		entries = entries[:min(torn, len(entries))]
	}
	synced := d.start().Index + uint64(len(d.entries)) // the commit index on disk covers only earlier entries
	if s := m.GetSnapshot(); s != nil && torn < 0 && s.GetMetadata().GetIndex() > 0 {
		p := core.Position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm(), Members: &core.Members{}}
		if err := json.Unmarshal(s.GetData(), p.Members); err != nil {
			panic(fmt.Sprintf("members of snapshot %d: %v", p.Index, err))
		}
		d.snaps, d.entries = []savedSnapshot{{p, body}}, nil
		synced = p.Index
	}
	for _, e := range entries {
		if at := e.GetIndex(); at > d.start().Index {
			d.entries = append(d.entries[:at-d.start().Index-1:at-d.start().Index-1], e)
		}
	}
	if torn < 0 && (m.Term != nil || m.Vote != nil || m.Commit != nil) {
		commit := max(min(m.GetCommit(), synced), d.start().Index)
		d.state = &raftpb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(commit)}
	}
}

// keep makes a snapshot durable and drops the entries before it.
func (d *image) keep(s savedSnapshot) {
	if s.at.Index <= d.start().Index {
		return
	}
	n := min(len(d.entries), int(s.at.Index-d.start().Index))
	d.entries = slices.Clone(d.entries[n:])
	d.snaps = append([]savedSnapshot{s}, d.snaps[:min(1, len(d.snaps))]...)
	d.state = &raftpb.HardState{
		Term: new(d.state.GetTerm()), Vote: new(d.state.GetVote()), Commit: new(max(d.state.GetCommit(), s.at.Index)),
	}
}
