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

	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// membershipFile is in the data directory.
const membershipFile = "cluster"

// membershipText is the file's form.
type membershipText struct {
	ClusterID string   `json:"cluster_id"`
	Leaders   []string `json:"leaders"`
}

// loadMembership reads which cluster the worker belongs to: none, if it has never had a leader.
func loadMembership(dir string) (core.Membership, error) {
	path := filepath.Join(dir, membershipFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return core.Membership{}, nil
	}
	if err != nil {
		return core.Membership{}, fmt.Errorf("worker's cluster: %w", err)
	}
	var m membershipText
	if err := json.Unmarshal(text, &m); err != nil {
		return core.Membership{}, fmt.Errorf("%s is damaged (%w); remove it to have the worker look for its leaders anew", path, err)
	}
	return core.Membership(m), nil
}

// keeper writes down which cluster the worker belongs to, beside the driver where it can: a disk may take its time.
type keeper struct {
	dir    string
	logger *slog.Logger
	wake   chan struct{} // holds one: there is something to write

	saving sync.Mutex // held while the file is written
	saved  core.Membership

	mu   sync.Mutex
	next core.Membership
}

func newKeeper(dir string, saved core.Membership, logger *slog.Logger) *keeper {
	return &keeper{dir: dir, saved: saved, next: saved, logger: logger, wake: make(chan struct{}, 1)}
}

// keep has m written down: at once where it is another cluster, so that a worker that dies now comes back to this one; else
// later.
func (k *keeper) keep(m core.Membership) {
	k.mu.Lock()
	moved := m.ClusterID != k.next.ClusterID
	k.next = m
	k.mu.Unlock()
	if moved {
		k.save()
		return
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run works until wake is closed. What cannot be written is tried again with the next news; until then the worker goes on
// with what it has in memory.
func (k *keeper) run() {
	for range k.wake {
		k.save()
	}
}

func (k *keeper) save() {
	k.saving.Lock()
	defer k.saving.Unlock()
	k.mu.Lock()
	m := k.next
	k.mu.Unlock()
	if m.ClusterID == k.saved.ClusterID && slices.Equal(m.Leaders, k.saved.Leaders) {
		return
	}
	text, err := json.Marshal(membershipText(m))
	if err == nil {
		err = writeDurably(k.dir, membershipFile, string(text)+"\n")
	}
	if err != nil {
		k.logger.Warn("the worker's cluster and leaders not written down", "error", err)
		return
	}
	k.saved = m
}
