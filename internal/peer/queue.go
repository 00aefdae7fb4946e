package peer

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// messageOverheadBytes and entryOverheadBytes are roughly the memory of a message and an entry besides their data.
const (
	messageOverheadBytes = 128
	entryOverheadBytes   = 32
)

// queue is a queue of messages to send, bounded in bytes.
type queue struct {
	max  int
	some chan struct{} // room for one: there are messages

	mu       sync.Mutex
	messages []*raftpb.Message
	bytes    int
}

func newQueue(bytesMax int) queue { return queue{max: bytesMax, some: make(chan struct{}, 1)} }

func bytesOf(m *raftpb.Message) int {
	n := messageOverheadBytes + len(m.GetContext())
	for _, e := range m.GetEntries() {
		n += entryOverheadBytes + len(e.GetData())
	}
	return n
}

// put adds m unless the queue is full. A message that alone is larger than the bound fits an empty queue.
func (q *queue) put(m *raftpb.Message) bool {
	n := bytesOf(m)
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.messages) > 0 && q.bytes+n > q.max {
		return false
	}
	q.messages, q.bytes = append(q.messages, m), q.bytes+n
	signal(q.some)
	return true
}

// pop removes messages of about bytesMax together, the oldest first; at least one, if there is any.
func (q *queue) pop(bytesMax int) []*raftpb.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.messages) && (n == 0 || bytes < bytesMax) {
		bytes += bytesOf(q.messages[n])
		n++
	}
	taken := q.messages[:n:n]
	q.messages, q.bytes = q.messages[n:], q.bytes-bytes
	if len(q.messages) == 0 {
		q.messages = nil // release what was sent
	}
	return taken
}

// clear drops all messages, and reports whether there were any.
func (q *queue) clear() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped := len(q.messages) > 0
	q.messages, q.bytes = nil, 0
	return dropped
}
