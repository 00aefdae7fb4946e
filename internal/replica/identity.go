package replica

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

const (
	walName     = "wal"
	formatFile  = "FORMAT"
	formatText  = "bridgefour log 2\n"
	headVersion = 2
)

// journalHead is the head of each log file, with the identity of the log. It never changes.
type journalHead struct {
	Version   int    `json:"version"`
	ID        uint64 `json:"id"`
	Cluster   string `json:"cluster"`
	Directory string `json:"directory"`
	// First are the first members of the cluster; nil: this one joined later, and learns the members from a snapshot.
	First *Members `json:"first,omitempty"`
	// Others are the members at the time when a new member joined; only hints.
	Others []Member `json:"others,omitempty"`
	// Overruled: First are the members as of this entry, whatever the log and the snapshots up to it say (see Recover).
	Overruled uint64 `json:"overruled,omitempty"`
}

// start is the position before the log's first entry.
func (h journalHead) start() core.Position {
	if h.First == nil {
		return core.NewMember(h.Cluster)
	}
	return core.Beginning(*h.First)
}

func decodeHead(raw []byte, walDir string) (journalHead, error) {
	var h journalHead
	if err := json.Unmarshal(raw, &h); err != nil || h.ID == 0 || h.Cluster == "" {
		return h, fmt.Errorf("%s is not a log of this program (its head is %q): use another data directory", walDir, raw)
	}
	if h.Version != headVersion {
		return h, fmt.Errorf("the log %s has version %d, this program reads %d: use the program that wrote it, or another data directory",
			walDir, h.Version, headVersion)
	}
	return h, nil
}

// markFormat writes the version of the layout if it is missing. It is not fsynced: without it only a check is lost.
func markFormat(dir string) error {
	path := filepath.Join(dir, formatFile)
	if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
		return nil
	}
	if err := os.WriteFile(path, []byte(formatText), 0o600); err != nil && !noSpace(err) {
		return fmt.Errorf("mark data directory: %w", err)
	}
	return nil
}

// checkFormat refuses a layout of another version.
func checkFormat(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, formatFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read format of the data directory: %w", err)
	}
	if len(text) > 0 && string(text) != formatText {
		return fmt.Errorf("data directory %s has the format %q, this program reads %q: use the program that wrote it, or another directory",
			dir, strings.TrimSpace(string(text)), strings.TrimSpace(formatText))
	}
	return nil
}

// InUse reports whether dir holds a log or the rest of one, which Open recovers instead of beginning a new one.
func InUse(dir string) (bool, error) {
	for _, name := range []string{formatFile, walName, recoveredName} {
		_, err := os.Stat(filepath.Join(dir, name))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("data directory: %w", err)
		}
	}
	return false, nil
}

func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// newHead returns the head for the log of a new data directory.
func (cfg Config) newHead() (journalHead, error) {
	head := journalHead{Version: headVersion, ID: cfg.ID, Cluster: cfg.Cluster, Directory: cmp.Or(cfg.Directory, randomName())}
	switch {
	case cfg.Join:
		if cfg.ID == 0 || cfg.Cluster == "" {
			return head, errors.New("a new member of a running cluster needs the id that it was assigned, and the cluster's")
		}
		head.Others = cfg.Peers
	case len(cfg.Peers) > 0:
		var err error
		if head.First, err = firstMembers(cfg.Peers); err != nil {
			return head, err
		}
		if _, ok := head.First.Get(cfg.ID); !ok {
			return head, fmt.Errorf("the first leaders do not include this one, leader %d: add it to the list", cfg.ID)
		}
		head.Cluster = cmp.Or(cfg.Cluster, nameOf(cfg.Peers))
		head.First.Cluster = head.Cluster
	default:
		head.ID = max(cfg.ID, 1)
		head.Cluster = cmp.Or(cfg.Cluster, randomName())
		head.First = &Members{Cluster: head.Cluster, List: []Member{{ID: head.ID, Address: cfg.Address, Directory: head.Directory, Voter: true}}}
	}
	return head, nil
}

// firstMembers validates the list of the first members of a cluster. The names of their directories are left out: each knows only its own,
// and the list must be the same on all.
func firstMembers(peers []Member) (*Members, error) {
	first := &Members{}
	for _, p := range peers {
		if p.ID == 0 || p.Address == "" {
			return nil, fmt.Errorf("the first leader %d at %q needs both an id, above 0, and an address", p.ID, p.Address)
		}
		first.List = append(first.List, Member{ID: p.ID, Address: p.Address, Voter: true})
	}
	slices.SortFunc(first.List, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	for i, a := range first.List {
		for _, b := range first.List[i+1:] {
			if a.ID == b.ID || a.Address == b.Address {
				return nil, fmt.Errorf("two of the first leaders are the same: %d at %s and %d at %s", a.ID, a.Address, b.ID, b.Address)
			}
		}
	}
	return first, nil
}

// nameOf derives an id for the cluster of these first members, the same on each of them.
func nameOf(peers []Member) string {
	var text []string
	for _, p := range peers {
		text = append(text, fmt.Sprintf("%d=%s", p.ID, p.Address))
	}
	slices.Sort(text)
	sum := sha256.Sum256([]byte(strings.Join(text, ",")))
	return hex.EncodeToString(sum[:8])
}

// fits refuses an existing log that does not match cfg.
func (cfg Config) fits(head journalHead) error {
	if cfg.ID != 0 && cfg.ID != head.ID {
		return fmt.Errorf("data directory %s belongs to member %d, not %d: give that id, or another directory", cfg.Dir, head.ID, cfg.ID)
	}
	if cfg.Cluster == "" || cfg.Cluster == head.Cluster {
		return nil
	}
	if head.First != nil && slices.Contains(head.First.Former, cfg.Cluster) {
		return fmt.Errorf("data directory %s belonged to cluster %s, which was recovered as cluster %s: give that one",
			cfg.Dir, cfg.Cluster, head.Cluster)
	}
	return fmt.Errorf("data directory %s belongs to cluster %s, not %s: use another directory, or give that cluster",
		cfg.Dir, head.Cluster, cfg.Cluster)
}
