package peer

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/bridgefour/bridgefour/internal/replica"
)

func TestBook(t *testing.T) {
	self := replica.Member{ID: 1, Address: "a1", Directory: "d1"}
	members := func(two replica.Member) replica.Members {
		return replica.Members{Cluster: "c", List: []replica.Member{self, two}}
	}
	logged := replica.Member{ID: 2, Address: "a2", Directory: "d2", Voter: true}
	b := newMembers()
	b.setMembers(members(logged))
	check := func(what string, addresses []string, news ...replica.Member) {
		t.Helper()
		if got := b.addresses(2); !slices.Equal(got, addresses) {
			t.Errorf("%s: addresses = %v, want %v", what, got, addresses)
		}
		if got := b.updates(self); !slices.Equal(got, news) {
			t.Errorf("%s: news = %v, want %v", what, got, news)
		}
	}
	check("known", []string{"a2"})

	b.announce(2, "a2", "d2")
	check("heard nothing new", []string{"a2"})

	b.announce(2, "moved", "d2")
	check("moved", []string{"moved", "a2"}, replica.Member{ID: 2, Address: "moved", Directory: "d2", Voter: true})

	b.setMembers(members(replica.Member{ID: 2, Address: "moved", Directory: "d2", Voter: true}))
	check("the log knows", []string{"moved"})

	b.setMembers(members(replica.Member{ID: 2, Address: "again", Directory: "d2", Voter: true}))
	check("the log has a newer address than was heard", []string{"again", "moved"})

	if !b.known(2) || b.known(5) {
		t.Errorf("known(2), known(5) = %v, %v, want true, false", b.known(2), b.known(5))
	}
	b.setMembers(replica.Members{Cluster: "c", List: []replica.Member{self}, Removed: []uint64{2}})
	check("removed", nil)
	if b.known(2) || !b.removed(2) {
		t.Errorf("known, removed = %v, %v, want false, true", b.known(2), b.removed(2))
	}
}

func TestBookLearnsDirectories(t *testing.T) {
	b := newMembers()
	b.setMembers(replica.Members{List: []replica.Member{{ID: 1, Address: "old"}, {ID: 2, Address: "a2"}}})
	b.announce(2, "a2", "d2")
	if name, logged := b.directory(2); name != "d2" || logged {
		t.Errorf("directory = %q, logged %v, want d2 of the handshake", name, logged)
	}
	want := []replica.Member{{ID: 1, Address: "a1", Directory: "d1"}, {ID: 2, Address: "a2", Directory: "d2"}}
	if got := b.updates(replica.Member{ID: 1, Address: "a1", Directory: "d1"}); !slices.Equal(got, want) {
		t.Errorf("news = %v, want %v", got, want)
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	q := newQueue(3 * (messageOverheadBytes + entryOverheadBytes + 1000))
	entry := func(bytes int) *raftpb.Message {
		return &raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{{Data: make([]byte, bytes)}}}
	}
	large := entry(1 << 20)
	if !q.put(large) {
		t.Fatal("an empty queue does not take a large message")
	}
	if q.put(entry(1)) {
		t.Error("a full queue takes a message")
	}
	if got := q.pop(1); len(got) != 1 || got[0] != large {
		t.Errorf("take() = %d messages, want the large one", len(got))
	}
	var all []*raftpb.Message
	for q.put(entry(1000)) {
		all = append(all, q.messages[len(q.messages)-1])
	}
	if len(all) != 3 {
		t.Errorf("the queue takes %d messages, want 3", len(all))
	}
	if got := q.pop(1001); len(got) != 1 {
		t.Errorf("take(1001) = %d messages, want 1", len(got))
	}
	if got := q.pop(1 << 20); !slices.Equal(got, all[1:]) {
		t.Errorf("take() = %d messages, want the 2 others in order", len(got))
	}
	if q.bytes != 0 || q.clear() {
		t.Errorf("the queue has %d bytes after everything was taken", q.bytes)
	}
}

func TestBackOff(t *testing.T) {
	var b backOff
	for _, ms := range []int{50, 100, 200, 400, 800, 1000, 1000} {
		want := time.Duration(ms) * time.Millisecond
		if got := b.next(time.Second); got > want || got < want*3/4 {
			t.Errorf("next() = %v, want three quarters of %v to all of it", got, want)
		}
	}
	for range 10 {
		b.next(refusedMax)
	}
	if got := b.next(refusedMax); got < refusedMax*3/4 {
		t.Errorf("next() = %v after many refusals, want about %v", got, refusedMax)
	}
	if got := b.next(time.Second); got > time.Second {
		t.Errorf("next() = %v with a limit of a second", got)
	}
	b.reset()
	if got := b.next(time.Second); got > backOffMin {
		t.Errorf("next() = %v after a reset, want at most %v", got, backOffMin)
	}
}
