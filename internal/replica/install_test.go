package replica

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// journalRig is a journal without a replica.
type journalRig struct {
	t   *testing.T
	dir string
	j   *journal
	rec *recovered
}

// open reads what is there, as a start does.
func (d *journalRig) open() {
	d.t.Helper()
	if d.j != nil {
		if err := d.j.close(); err != nil {
			d.t.Fatal(err)
		}
	}
	var err error
	d.j, d.rec, err = openJournal(Config{Dir: d.dir, ID: 1, Logger: slog.New(slog.DiscardHandler)}, d.store())
	if err != nil {
		d.t.Fatal(err)
	}
	if d.rec.body != nil {
		if err := d.rec.body.Close(); err != nil {
			d.t.Error(err)
		}
	}
}

func (d *journalRig) store() snapStore { return snapStore{dir: filepath.Join(d.dir, "snap")} }

func newJournalRig(t *testing.T) *journalRig {
	t.Helper()
	d := &journalRig{t: t, dir: t.TempDir()}
	if err := os.MkdirAll(d.store().dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.open()
	t.Cleanup(func() {
		if err := d.j.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *journalRig) save(saves ...*raftpb.Message) {
	d.t.Helper()
	if err := d.j.save(core.Batch{Saves: saves}); err != nil {
		d.t.Fatal(err)
	}
}

func entriesOf(term, from, to uint64) []*raftpb.Entry {
	var all []*raftpb.Entry
	for i := from; i <= to; i++ {
		all = append(all, &raftpb.Entry{Index: new(i), Term: new(term), Data: []byte{byte(i), byte(term)}})
	}
	return all
}

func entriesSave(term, commit, from, to uint64) *raftpb.Message {
	return &raftpb.Message{Term: new(term), Vote: new(uint64(1)), Commit: new(commit), Entries: entriesOf(term, from, to)}
}

// install is what raft has saved when a peer's snapshot at that entry comes; its file is made too.
func (d *journalRig) install(index, term uint64, behind ...*raftpb.Entry) *raftpb.Message {
	d.t.Helper()
	members := d.rec.start.Members
	p := core.Position{Index: index, Term: term, Members: members}
	if err := d.store().create(p, writeText("state")); err != nil {
		d.t.Fatal(err)
	}
	s, err := p.Snapshot()
	if err != nil {
		d.t.Fatal(err)
	}
	return &raftpb.Message{Term: new(term), Vote: new(uint64(0)), Commit: new(index), Snapshot: s, Entries: behind}
}

// want checks what a start finds: the entries from..to of that term behind start.
func (d *journalRig) want(start, term, from, to uint64) {
	d.t.Helper()
	d.open()
	if d.rec.start.Index != start {
		d.t.Errorf("starts from %d, want %d", d.rec.start.Index, start)
	}
	want := entriesOf(term, from, to)
	got := d.rec.entries
	if !slices.EqualFunc(got, want, func(a, b *raftpb.Entry) bool { return a.GetIndex() == b.GetIndex() && a.GetTerm() == b.GetTerm() }) {
		d.t.Errorf("entries %v, want %d to %d of term %d", got, from, to, term)
	}
}

func TestInstalledSnapshotVoidsWhatWasBefore(t *testing.T) {
	for _, tt := range []struct {
		name    string
		before  uint64 // last entry in the log, of term 1
		install uint64 // of term 3
	}{{"an empty log", 1, 40}, {"a gap", 10, 40}, {"the next entry", 39, 40}, {"a tail that the others have overwritten", 60, 40}} {
		t.Run(tt.name, func(t *testing.T) {
			d := newJournalRig(t)
			if tt.before > 1 {
				d.save(entriesSave(1, 1, 2, tt.before))
			}
			d.save(d.install(tt.install, 3))
			d.want(tt.install, 3, 1, 0) // nothing behind it
			if got := d.rec.state.GetTerm(); got != 3 {
				t.Errorf("term %d, want 3", got)
			}
			d.save(entriesSave(3, tt.install, tt.install+1, tt.install+5))
			d.want(tt.install, 3, tt.install+1, tt.install+5)
			// Its own snapshots do not void anything.
			p := core.Position{Index: tt.install + 2, Term: 3, Members: d.rec.start.Members}
			if err := d.store().create(p, writeText("own")); err != nil {
				t.Fatal(err)
			}
			if err := d.j.save(core.Batch{Snapshot: &p, Keep: tt.install}); err != nil {
				t.Fatal(err)
			}
			d.want(p.Index, 3, p.Index+1, tt.install+5)
			// Without its newest file, the one before it and the log do; without that too, nothing does.
			if err := d.store().remove(p); err != nil {
				t.Fatal(err)
			}
			d.want(tt.install, 3, tt.install+1, tt.install+5)
			if err := d.store().remove(core.Position{Index: tt.install, Term: 3}); err != nil {
				t.Fatal(err)
			}
			if err := d.j.close(); err != nil {
				t.Fatal(err)
			}
			_, _, err := openJournal(Config{Dir: d.dir, Logger: slog.New(slog.DiscardHandler)}, d.store())
			if err == nil || !strings.Contains(err.Error(), "no snapshot in "+d.store().dir) {
				t.Errorf("without the snapshot that came from a peer = %v", err)
			}
		})
	}
}

func TestInstallWithEntriesAroundIt(t *testing.T) {
	d := newJournalRig(t)
	// One batch: entries, a snapshot with entries behind it, more of them.
	d.save(entriesSave(1, 1, 2, 10), d.install(20, 2, entriesOf(2, 21, 22)...), entriesSave(2, 20, 23, 25))
	d.want(20, 2, 21, 25)
	// After a failed write the log is cut behind the last entry that is known to be durable: here, behind the snapshot itself.
	d.save(d.install(40, 2))
	if err := d.j.discard(); err != nil {
		t.Fatal(err)
	}
	d.save(entriesSave(2, 40, 41, 42))
	d.want(40, 2, 41, 42)
	d.save(d.install(60, 2))
	if err := d.j.w.Save(nil, entriesOf(2, 61, 65)); err != nil { // of a save that then failed
		t.Fatal(err)
	}
	if err := d.j.discard(); err != nil {
		t.Fatal(err)
	}
	d.save(&raftpb.Message{Term: new(uint64(3)), Vote: new(uint64(0)), Commit: new(uint64(60))})
	d.want(60, 2, 1, 0)
	d.save(entriesSave(3, 60, 61, 62))
	if err := d.j.discard(); err != nil {
		t.Fatal(err)
	}
	d.save(entriesSave(3, 62, 63, 64))
	d.want(60, 3, 61, 64)
}

func TestPeerSnapshotOvertakesItsOwn(t *testing.T) {
	f := newFleet(t)
	lone := f.start(Config{Dir: t.TempDir(), Address: "a1"})
	f.put(50)
	added, err := lone.AddMember(t.Context(), Member{Address: "a2"})
	if err != nil {
		t.Fatal(err)
	}
	joiner := f.start(Config{Dir: t.TempDir(), ID: added.ID, Cluster: lone.Members().Cluster, Join: true})
	f.untilVoter(added.ID)
	sure := f.put(5)
	f.same(sure, 1, 2)

	// While it writes a snapshot of its own, a newer one comes.
	f.mu.Lock()
	index := joiner.index
	f.mu.Unlock()
	writing, goOn, saved := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { saved <- joiner.SaveSnapshot(index, pausedWrite(writing, goOn)) }()
	<-writing
	p := core.Position{Index: index + 1000, Term: joiner.Status().Term, Members: new(joiner.Members())}
	s, err := p.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	other := snapStore{dir: t.TempDir()}
	if err := other.create(p, writeText("12345678")); err != nil {
		t.Fatal(err)
	}
	m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(p.Term), Snapshot: s}
	f.change(func() { f.cut[1] = true }) // the one it claims to come from knows nothing of it
	if err := joiner.ReceiveSnapshot(t.Context(), m, bytes.NewReader(readFile(t, other.path(p)))); err != nil {
		t.Fatal(err)
	}
	f.until("the snapshot", func() bool { return joiner.index == p.Index })
	close(goOn)
	if err := <-saved; err != nil {
		t.Errorf("SaveSnapshot that was overtaken = %v, want nil: there is a newer one", err)
	}
	if files := snapFiles(t, joiner.cfg.Dir); len(files) != 1 || filepath.Base(files[0]) != fileName(p) {
		t.Errorf("snapshots %v, want only %s", files, fileName(p))
	}
	f.restartAlone(2, p.Index)
}

// restartAlone starts a member again that reaches no other, and looks where it starts from.
func (f *fleet) restartAlone(id, want uint64) {
	f.t.Helper()
	m := f.restart(id)
	f.until("the snapshot", func() bool { return m.index >= want })
	if m.index != want {
		f.t.Errorf("member %d starts from %d, want %d", id, m.index, want)
	}
}

func writeText(text string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
}

// pausedWrite says when it begins and ends when it may.
func pausedWrite(begun chan<- struct{}, goOn <-chan struct{}) func(io.Writer) error {
	return func(io.Writer) error {
		close(begun)
		<-goOn
		return nil
	}
}
