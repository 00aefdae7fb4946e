package replica

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

func TestReplicasFailOverAndCatchUp(t *testing.T) {
	f := newTrio(t)
	sure := f.put(50)
	f.same(sure, 1, 2, 3)
	for range 3 {
		old := f.leader()
		if err := old.end(); err != nil {
			t.Fatal(err)
		}
		sure = append(sure, f.put(50)...)
		f.restart(old.ID())
		sure = append(sure, f.put(10)...)
		f.same(sure, 1, 2, 3)
	}
	f.until("the members' directories", func() bool { // the leaders have said theirs; the transport says the others'
		m, _ := f.leaderLocked().members.Get(f.leaderLocked().ID())
		return m.Directory != ""
	})
	// All at once.
	for _, m := range f.mates {
		if err := m.end(); err != nil {
			t.Error(err)
		}
	}
	for id := range uint64(3) {
		f.restart(id + 1)
	}
	sure = append(sure, f.put(10)...)
	f.same(sure, 1, 2, 3)
}

// leaderLocked is a leader or, without one, any node; f.mu is held.
func (f *fleet) leaderLocked() *mate {
	for _, m := range f.mates {
		if m.role.Leader {
			return m
		}
	}
	return f.mates[1]
}

func TestCutOffLeaderIsReplaced(t *testing.T) {
	f := newTrio(t)
	sure := f.put(20)
	old := f.leader()
	f.change(func() { f.cut[old.ID()] = true })
	sure = append(sure, f.put(20)...)
	f.until("the old leader's end", func() bool { return !old.role.Leader })
	ctx, cancel := context.WithTimeout(t.Context(), 8*heartbeatTicks*fleetTick)
	defer cancel()
	if index, err := old.ReadIndex(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ReadIndex of who is cut off = %d, %v", index, err)
	}
	f.change(func() { delete(f.cut, old.ID()) })
	f.same(sure, 1, 2, 3)
}

func TestNewMemberJoinsUnderLoad(t *testing.T) {
	f := newFleet(t)
	f.start(Config{Dir: t.TempDir(), Address: "a1", SnapshotBytes: 64 << 10})
	sure := f.put(3000) // several snapshots, and nothing of the beginning is left in memory
	stop, stopped := make(chan struct{}), make(chan []int)
	go func() {
		var sure []int
		for {
			select {
			case <-stop:
				stopped <- sure
				return
			default:
				sure = append(sure, f.put(20)...)
			}
		}
	}()
	for id := range uint64(2) {
		added := f.add(Member{Address: fmt.Sprint("a", id+2), Directory: fmt.Sprint("d", id+2)})
		if added.ID != id+2 {
			t.Fatalf("AddMember = %+v", added)
		}
		leader := f.leader()
		f.start(Config{
			Dir: t.TempDir(), ID: added.ID, Address: added.Address, Directory: added.Directory, SnapshotBytes: 64 << 10,
			Cluster: leader.Members().Cluster, Join: true, Peers: leader.Members().List,
		})
		f.untilVoter(added.ID)
	}
	close(stop)
	sure = append(sure, <-stopped...)
	f.same(sure, 1, 2, 3)
	for id := range uint64(2) {
		if f.mates[id+2].installs == 0 {
			t.Errorf("member %d got no snapshot", id+2)
		}
		f.restart(id + 2)
	}
	f.same(sure, 1, 2, 3)

	// One stays away for so long that the others have dropped what it lacks.
	away := f.leader().ID()%3 + 1
	if err := f.mates[away].end(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		sure = append(sure, f.put(1000)...)
	}
	back := f.restart(away)
	f.same(sure, 1, 2, 3)
	f.until("a snapshot", func() bool { return back.installs > 0 })
	segs := walFiles(t, back.cfg.Dir)
	snaps := snapFiles(t, back.cfg.Dir)
	if len(segs) > 2 || len(snaps) > 2 {
		t.Errorf("%d log files and %d snapshots are there, want no more than 2 of each", len(segs), len(snaps))
	}
	f.restart(away)
	sure = append(sure, f.put(10)...)
	f.same(sure, 1, 2, 3)
}

func TestNewMemberJoinsAnIdleCluster(t *testing.T) {
	f := newFleet(t)
	lone := f.start(Config{Dir: t.TempDir(), Address: "a1"})
	f.leader()
	for id := range uint64(4) {
		added := f.add(Member{Address: fmt.Sprint("a", id+2)})
		f.start(Config{Dir: t.TempDir(), ID: added.ID, Address: added.Address, Cluster: lone.Members().Cluster, Join: true})
		f.untilVoter(added.ID)
	}
	f.same(f.put(1), 1, 2, 3, 4, 5)
}

func TestRemovedMemberEnds(t *testing.T) {
	f := newTrio(t)
	sure := f.put(10)
	f.same(sure, 1, 2, 3)
	old := f.leader()
	if err := old.RemoveMember(t.Context(), old.ID(), false); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("a leader removes itself = %v, want ErrNotLeader", err)
	}
	err := f.onLeader(func(leader *mate) error { return leader.RemoveMember(t.Context(), old.ID(), false) })
	if err != nil {
		t.Fatal(err)
	}
	err = <-old.ended
	old.ended <- err
	if !errors.Is(err, ErrRemoved) || !containsAll(err.Error(), fmt.Sprintf("leader %d was removed", old.ID()), old.cfg.Dir, "--join") {
		t.Errorf("Run() of who was removed = %v, want ErrRemoved and the way out", err)
	}
	again := f.start(Config{Dir: old.cfg.Dir})
	if err := <-again.ended; !errors.Is(err, ErrRemoved) {
		t.Errorf("Run() after a restart = %v, want ErrRemoved", err)
	} else {
		again.ended <- err
	}
	left := slices.DeleteFunc([]uint64{1, 2, 3}, func(id uint64) bool { return id == old.ID() })
	sure = append(sure, f.put(10)...)
	f.same(sure, left...)
	if err := f.onLeader(func(leader *mate) error {
		_, err := leader.AddMember(t.Context(), Member{ID: old.ID(), Address: "x"})
		return err
	}); !errors.Is(err, ErrRemoved) {
		t.Errorf("AddMember of a removed id = %v, want ErrRemoved", err)
	}
	leader := f.leader()
	follower := f.mates[left[0]]
	if follower == leader {
		follower = f.mates[left[1]]
	}
	if _, err := follower.AddMember(t.Context(), Member{Address: "x"}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("AddMember on a follower = %v, want ErrNotLeader", err)
	}
	if err := f.onLeader(func(leader *mate) error {
		return leader.UpdateMember(t.Context(), Member{ID: follower.ID(), Address: "b:2"})
	}); err != nil {
		t.Error(err)
	}
	f.until("the new address", func() bool { m, _ := follower.members.Get(follower.ID()); return m.Address == "b:2" })
}

// TestRemovalInOneMessageIsDurable: the entry and its commit index arrive together, and are in one save.
func TestRemovalInOneMessageIsDurable(t *testing.T) {
	f := newFleet(t)
	cfg := Config{Dir: t.TempDir(), ID: 2, Address: "a2", Peers: []Member{{ID: 1, Address: "a1"}, {ID: 2, Address: "a2"}, {ID: 3, Address: "a3"}}}
	m := f.start(cfg)
	note, err := json.Marshal(core.Change{Op: core.OpRemove, Member: Member{ID: 2}})
	if err != nil {
		t.Fatal(err)
	}
	change, err := proto.Marshal(&raftpb.ConfChangeV2{
		Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(2))}}, Context: note,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Receive(t.Context(), &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(1)), Index: new(uint64(1)), LogTerm: new(uint64(1)),
		Entries: []*raftpb.Entry{
			{Index: new(uint64(2)), Term: new(uint64(1))},
			{Index: new(uint64(3)), Term: new(uint64(1)), Type: raftpb.EntryConfChangeV2.Enum(), Data: change},
		},
		Commit: new(uint64(3)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at once", "after a restart"} {
		err := <-m.ended
		m.ended <- err
		if !errors.Is(err, ErrRemoved) {
			t.Fatalf("Run() %s = %v, want ErrRemoved", when, err)
		}
		m = f.start(Config{Dir: cfg.Dir})
	}
}

func TestLeadershipIsHandedOver(t *testing.T) {
	f := newTrio(t)
	sure := f.put(10)
	for range 3 {
		var old *mate
		if err := f.onLeader(func(leader *mate) error {
			old = leader
			return leader.TransferLeadership(t.Context())
		}); err != nil {
			t.Fatal(err)
		}
		if s := old.Status(); s.Leader || s.Role == core.RoleLeader {
			t.Errorf("after the transfer the status is %+v", s)
		}
		sure = append(sure, f.put(10)...)
	}
	f.same(sure, 1, 2, 3)
	lone := start(t, Config{Dir: t.TempDir()}).lead()
	if err := lone.TransferLeadership(t.Context()); !errors.Is(err, core.ErrNoSuccessor) {
		t.Errorf("TransferLeadership of a lone leader = %v", err)
	}
}

func TestReadIndexOnEveryMember(t *testing.T) {
	f := newTrio(t)
	f.put(10)
	for id := range uint64(3) {
		m := f.mates[id+1]
		sure := f.put(1)
		leader := f.leader()
		f.mu.Lock()
		acknowledged := leader.index
		f.mu.Unlock()
		var readers sync.WaitGroup
		for range 50 {
			readers.Go(func() {
				index, err := m.ReadIndex(t.Context())
				if err != nil {
					t.Error(err)
				}
				if index < acknowledged {
					t.Errorf("member %d reads at %d, and %d was acknowledged before", m.ID(), index, acknowledged)
				}
				f.until("the entry", func() bool { return slices.Contains(m.numbers, sure[0]) })
			})
		}
		readers.Wait()
	}
	status := f.leader().Status()
	if len(status.Peers) != 2 || !status.Peers[0].Active || status.Peers[0].Match == 0 || status.Peers[0].Heard.IsZero() ||
		status.Heard.IsZero() || status.Campaigned.IsZero() || status.VotedFor != status.ID || status.Role != core.RoleLeader {
		t.Errorf("status of the leader = %+v", status)
	}
	other := f.mates[status.Peers[0].ID].Status()
	if other.Role != core.RoleFollower || other.Heard.IsZero() || other.LeaderID != status.ID || other.Peers != nil {
		t.Errorf("status of a follower = %+v", other)
	}
}

func TestHungDiskEndsLeadership(t *testing.T) {
	f := newFleet(t)
	var peers []Member
	for id := range uint64(3) {
		peers = append(peers, Member{ID: id + 1, Address: fmt.Sprint("a", id+1)})
	}
	hung := map[uint64]chan struct{}{} // closed: the disk works
	var mu sync.Mutex
	disk := func(id uint64) chan struct{} {
		mu.Lock()
		defer mu.Unlock()
		return hung[id]
	}
	hang := func(id uint64, c chan struct{}) {
		mu.Lock()
		defer mu.Unlock()
		hung[id] = c
	}
	works := make(chan struct{})
	close(works)
	for _, p := range peers {
		hung[p.ID] = works
	}
	for _, p := range peers {
		m := f.open(Config{Dir: t.TempDir(), ID: p.ID, Address: p.Address, Peers: peers})
		m.beforeSave = func() { <-disk(p.ID) }
		m.run()
	}
	sure := f.put(20)
	old := f.leader()
	broken := make(chan struct{})
	hang(old.ID(), broken)
	if err := old.Propose(t.Context(), numbered(1<<40, 8)); err != nil {
		t.Fatal(err)
	}
	f.until("another leader", func() bool {
		for _, m := range f.mates {
			if m != old && m.role.Leader {
				return true
			}
		}
		return false
	})
	for range 3 {
		sure = append(sure, f.put(20)...)
		if l := f.leader(); l == old {
			t.Fatal("it leads again, and its disk hangs")
		}
	}
	hang(old.ID(), works)
	close(broken)
	f.same(sure, 1, 2, 3)
}

func TestStoppedProcessDoesNotGoOnLeading(t *testing.T) {
	f := newTrio(t)
	f.put(5)
	old := f.leader()
	// As after SIGSTOP and SIGCONT: the time is gone, and nothing was heard meanwhile.
	stopped := make(chan struct{})
	refused := core.BeginSnapshot{Ref: old.newRef(), Index: 1 << 60}
	stop := func(core.Answer) {
		close(stopped)
		time.Sleep(2 * electionTicks * fleetTick)
	}
	if err := old.queue(t.Context(), request{input: refused, ref: refused.Ref, answer: stop}); err != nil {
		t.Fatal(err)
	}
	<-stopped
	if err := old.Propose(t.Context(), []byte("x")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("Propose = %v, want ErrNotLeader", err)
	}
	f.same(f.put(5), 1, 2, 3)
}

func TestReceivedSnapshotIsVerified(t *testing.T) {
	f := newFleet(t)
	lone := f.start(Config{Dir: t.TempDir(), Address: "a1"})
	f.put(100)
	added, err := lone.AddMember(t.Context(), Member{Address: "a2"})
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	index, numbers := lone.index, slices.Clone(lone.numbers)
	f.mu.Unlock()
	lone.save(index, numbers)
	snaps, err := lone.store.list()
	if err != nil || len(snaps) != 1 {
		t.Fatalf("snapshots = %v, %v, want one", snaps, err)
	}
	snaps[0].Members = new(lone.Members())
	status, err := snaps[0].Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: new(added.ID), Term: new(uint64(1)), Snapshot: status}
	body, err := lone.OpenSnapshot(m)
	if err != nil {
		t.Fatal(err)
	}
	file, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		t.Fatal(err)
	}
	f.change(func() { f.cut[1] = true }) // only what the test sends
	joiner := f.start(Config{Dir: t.TempDir(), ID: added.ID, Cluster: lone.Members().Cluster, Join: true})
	for i := 0; i < len(file); i += 7 {
		bad := bytes.Clone(file)
		bad[i] ^= 1
		if err := joiner.ReceiveSnapshot(t.Context(), m, bytes.NewReader(bad)); err == nil {
			t.Fatalf("taken with byte %d changed", i)
		}
		if err := joiner.ReceiveSnapshot(t.Context(), m, bytes.NewReader(file[:i])); err == nil {
			t.Fatalf("taken when cut at %d", i)
		}
	}
	broken := errors.New("connection lost")
	if err := joiner.ReceiveSnapshot(t.Context(), m, io.MultiReader(bytes.NewReader(file), errorReader{broken})); !errors.Is(err, broken) {
		t.Errorf("with a broken connection = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := joiner.ReceiveSnapshot(ctx, m, bytes.NewReader(file)); !errors.Is(err, context.Canceled) {
		t.Errorf("when none waits any more = %v", err)
	}
	if files := snapFiles(t, joiner.cfg.Dir); len(files) > 0 {
		t.Errorf("left over: %v", files)
	}
	for range 2 { // the second time it is not needed, which is no error
		if err := joiner.ReceiveSnapshot(t.Context(), m, bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
		f.until("the snapshot", func() bool { return slices.Equal(joiner.numbers, numbers) })
	}
	if joiner.installs != 1 {
		t.Errorf("%d snapshots were installed, want 1", joiner.installs)
	}
	if err := joiner.Receive(t.Context(), m); err == nil || !strings.Contains(err.Error(), "without a body") {
		t.Errorf("Receive of a snapshot = %v", err)
	}
	f.change(func() { delete(f.cut, 1) })
	f.untilVoter(added.ID)
	f.same(f.put(5), 1, 2)
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// named names a recovered cluster.
func named(id string) func(string) string { return func(string) string { return id } }

func TestRecoverFromALostMajority(t *testing.T) {
	f := newFleet(t)
	var peers []Member
	for id := range uint64(3) {
		peers = append(peers, Member{ID: id + 1, Address: fmt.Sprint("a", id+1)})
	}
	for _, p := range peers {
		f.start(Config{Dir: t.TempDir(), ID: p.ID, Address: p.Address, Peers: peers, SnapshotBytes: 64 << 10})
	}
	sure := f.put(1500)
	sure = append(sure, f.put(10)...)
	f.same(sure, 1, 2, 3)
	for _, m := range f.mates {
		if err := m.end(); err != nil {
			t.Error(err)
		}
	}
	dir, old := f.mates[2].cfg.Dir, f.mates[2].Members().Cluster
	rec, err := Recover(dir, named("new"))
	if err != nil {
		t.Fatal(err)
	}
	if rec.ID != 2 || rec.Cluster != "new" || rec.Former != old || len(rec.Dropped) != 2 || rec.Last == 0 {
		t.Errorf("Recover = %+v", rec)
	}
	if _, err := Open(Config{Dir: dir, Cluster: old}); err == nil || !containsAll(err.Error(), dir, old, "recovered as cluster new") {
		t.Errorf("Open for the former cluster = %v", err)
	}
	f.change(func() { clear(f.mates) })
	lone := f.start(Config{Dir: dir, Address: "b2", SnapshotBytes: 64 << 10})
	f.same(sure, 2)
	if m := lone.Members(); m.Cluster != "new" || !slices.Equal(m.Former, []string{old}) || len(m.List) != 1 || !slices.Equal(m.Removed, []uint64{1, 3}) {
		t.Errorf("members = %+v", m)
	}
	sure = append(sure, f.put(10)...)
	added, err := f.leader().AddMember(t.Context(), Member{Address: "a4", Directory: "d4"})
	if err != nil || added.ID != 4 {
		t.Fatalf("AddMember = %+v, %v", added, err)
	}
	f.start(Config{Dir: t.TempDir(), ID: 4, Address: "a4", Directory: "d4", Cluster: "new", Join: true})
	f.untilVoter(4)
	f.same(sure, 2, 4)
	f.restart(4)
	f.restart(2)
	sure = append(sure, f.put(5)...)
	f.same(sure, 2, 4)

	// Again, of a cluster that was recovered before.
	for _, m := range f.mates {
		if err := m.end(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Recover(dir, named("new")); err == nil || !strings.Contains(err.Error(), "needs a new id") {
		t.Errorf("Recover under the same id = %v", err)
	}
	rec, err = Recover(dir, named("newer"))
	if err != nil || rec.Cluster != "newer" || rec.Former != "new" {
		t.Fatalf("Recover again = %+v, %v", rec, err)
	}
	f.change(func() { clear(f.mates) })
	f.start(Config{Dir: dir})
	f.same(sure, 2)
	if m := f.mates[2].Members(); !slices.Equal(m.Former, []string{old, "new"}) || !slices.Equal(m.Removed, []uint64{1, 3, 4}) {
		t.Errorf("members = %+v", m)
	}
}

func TestInterruptedRecovery(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 10, 100)
	n.untilEntries(10)
	if _, err := Recover(dir, named("")); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("Recover of a running member = %v", err)
	}
	n.stop()
	// Before the new log is whole: nothing has happened.
	if err := os.MkdirAll(dir+"/"+recoveringName, 0o700); err != nil {
		t.Fatal(err)
	}
	n = start(t, Config{Dir: dir}).lead()
	old := n.Members().Cluster
	n.stop()
	// After: the start goes on with it, however much of the old log is gone.
	if _, err := Recover(dir, named("new")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/"+walName, dir+"/"+recoveredName); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/"+walName, 0o700); err != nil {
		t.Fatal(err)
	}
	n = start(t, Config{Dir: dir}).lead()
	if m := n.Members(); m.Cluster != "new" || !slices.Equal(m.Former, []string{old}) {
		t.Errorf("members = %+v", m)
	}
	n.wantNumbers(0, 10)
	if _, err := Recover(t.TempDir(), named("x")); err == nil || !strings.Contains(err.Error(), "no log") {
		t.Errorf("Recover of an empty directory = %v", err)
	}
}

// Older versions persisted any term of a message. Behind the last one there is no election.
func TestRecoverRepairsAnImpossibleTerm(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 10, 100)
	n.untilEntries(10)
	term := n.Status().Term
	n.stop()
	j, rec, err := openJournal(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}, snapStore{dir: dir + "/snap"})
	if err != nil {
		t.Fatal(err)
	}
	bad := &raftpb.HardState{Term: new(uint64(math.MaxUint64)), Vote: new(uint64(2)), Commit: rec.state.Commit}
	if err := errors.Join(j.w.Save(bad, nil), j.close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !containsAll(err.Error(), "term 18446744073709551615", "bridgefour recover") {
		t.Errorf("Open = %v", err)
	}
	if _, err := Recover(dir, named("new")); err != nil {
		t.Fatal(err)
	}
	n = start(t, Config{Dir: dir}).lead()
	n.wantNumbers(0, 10)
	if got := n.Status().Term; got <= term || got > term+2 {
		t.Errorf("term %d after the recovery, %d before", got, term)
	}
}

func TestDirectoryOfAnotherIsRefused(t *testing.T) {
	dir := t.TempDir()
	if used, err := InUse(dir); used || err != nil {
		t.Errorf("InUse of an empty directory = %v, %v", used, err)
	}
	n := start(t, Config{Dir: dir, Cluster: "ours", Directory: "d"}).lead()
	if n.Members().Cluster != "ours" || n.Directory() != "d" {
		t.Errorf("members = %+v in directory %q", n.Members(), n.Directory())
	}
	n.stop()
	if used, err := InUse(dir); !used || err != nil {
		t.Errorf("InUse of a directory with a log = %v, %v", used, err)
	}
	if _, err := Open(Config{Dir: dir, Cluster: "theirs"}); err == nil || !containsAll(err.Error(), dir, "belongs to cluster ours, not theirs") {
		t.Errorf("Open for another cluster = %v", err)
	}
	if n := start(t, Config{Dir: dir, Cluster: "ours"}).lead(); n.Directory() != "d" {
		t.Errorf("directory = %q", n.Directory())
	}
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Join: true, Cluster: "c"}, "needs the id"},
		{Config{Join: true, ID: 3}, "and the cluster's"},
		{Config{ID: 3, Peers: []Member{{ID: 1, Address: "a"}, {ID: 2, Address: "b"}}}, "do not include this one, leader 3"},
		{Config{ID: 1, Peers: []Member{{ID: 1, Address: "a"}, {ID: 1, Address: "b"}}}, "are the same"},
		{Config{ID: 1, Peers: []Member{{ID: 1, Address: "a"}, {ID: 2, Address: "a"}}}, "are the same"},
		{Config{ID: 1, Peers: []Member{{ID: 1, Address: "a"}, {ID: 2}}}, "an address"},
	} {
		tt.cfg.Dir = t.TempDir()
		if _, err := Open(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%+v) = %v, want %q", tt.cfg, err, tt.want)
		}
	}
	// Each of the first members finds the same id for the cluster.
	peers := []Member{{ID: 2, Address: "b"}, {ID: 1, Address: "a"}}
	var clusters []string
	for _, p := range peers {
		r, err := Open(Config{Dir: t.TempDir(), ID: p.ID, Peers: peers})
		if err != nil {
			t.Fatal(err)
		}
		clusters = append(clusters, r.Members().Cluster)
		slices.Reverse(peers)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if clusters[0] != clusters[1] || clusters[0] == "" {
		t.Errorf("clusters = %q, want the same", clusters)
	}
}

func TestJoinerWaitsToBeTold(t *testing.T) {
	dir := t.TempDir()
	others := []Member{{ID: 1, Address: "a1", Voter: true}}
	f := newFleet(t)
	for range 2 {
		m := f.open(Config{Dir: dir, ID: 2, Cluster: "c", Join: true, Peers: others, Tick: time.Millisecond})
		now := time.Now().Add(-time.Second)
		for i := range 5 * electionTicks {
			if _, err := m.core.Step(now.Add(time.Duration(i) * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
		m.run()
		if s := m.Status(); s.Role != core.RoleFollower || s.Term != 0 {
			t.Errorf("status = %+v, want a follower that waits", s)
		}
		if got := m.Members(); got.Cluster != "c" || !slices.Equal(got.List, others) {
			t.Errorf("members = %+v, want those it was told of", got)
		}
		if err := m.end(); err != nil {
			t.Error(err)
		}
	}
}
