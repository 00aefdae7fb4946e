package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// membershipName is the file's name in the data directory.
const membershipName = "cluster"

// membershipJSON is the file's format.
type membershipJSON struct {
	ClusterID string   `json:"cluster_id"`
	Leaders   []string `json:"leaders"`
	Waits     bool     `json:"waits,omitempty"`
}

// loadMembership reads the worker's cluster. It is empty if the worker has never had a leader.
func loadMembership(dir string) (core.Membership, error) {
	path := filepath.Join(dir, membershipName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return core.Membership{}, nil
	}
	if err != nil {
		return core.Membership{}, fmt.Errorf("worker's cluster: %w", err)
	}
	var m membershipJSON
	if err := json.Unmarshal(text, &m); err != nil {
		return core.Membership{}, fmt.Errorf("%s is damaged (%w); remove it to have the worker search for its leaders again", path, err)
	}
	return core.Membership(m), nil
}

// membershipFile saves the worker's membership, if possible in a goroutine of its own: a disk may be slow.
type membershipFile struct {
	dir    string
	logger *slog.Logger
	wake   chan struct{} // holds one: there is something to write

	writing sync.Mutex // held while the file is written
	saved   core.Membership

	mu   sync.Mutex
	next core.Membership
}

func newMembershipFile(dir string, saved core.Membership, logger *slog.Logger) *membershipFile {
	return &membershipFile{dir: dir, saved: saved, next: saved, logger: logger, wake: make(chan struct{}, 1)}
}

// save writes m: at once if the cluster has changed, because after a crash the worker must not rejoin another one; else later.
func (f *membershipFile) save(m core.Membership) {
	f.mu.Lock()
	moved := m.ClusterID != f.next.ClusterID
	f.next = m
	f.mu.Unlock()
	if moved {
		f.write()
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run works until wake is closed. A failed write is repeated with the next change; until then the worker has the membership
// in memory only.
func (f *membershipFile) run() {
	for range f.wake {
		f.write()
	}
}

func (f *membershipFile) write() {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	m := f.next
	f.mu.Unlock()
	if m.ClusterID == f.saved.ClusterID && m.Waits == f.saved.Waits && slices.Equal(m.Leaders, f.saved.Leaders) {
		return
	}
	text, err := json.Marshal(membershipJSON(m))
	if err == nil {
		err = datadir.WriteFile(filepath.Join(f.dir, membershipName), append(text, '\n'))
	}
	if err != nil {
		f.logger.Warn("membership not saved", "error", err)
		return
	}
	f.saved = m
}
