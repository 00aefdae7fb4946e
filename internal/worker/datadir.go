package worker

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

const identityLen = 16 // bytes, written in hex

// Names in the data directory.
const (
	lockFile     = "lock"
	attemptsFile = "attempts" // locked by the keepers
	identityFile = "identity"
	logsDir      = "logs"
	scratchDir   = "scratch" // of versions before 0.4
	tempFile     = "temp"    // the name of the folder of temporary files
)

// inDataDir reports whether a name in the data directory is one that a worker gives.
func inDataDir(name string) bool {
	name, _, _ = strings.Cut(name, datadir.Temporary)
	return slices.Contains([]string{
		lockFile, attemptsFile, identityFile, membershipName, logsDir, scratchDir, tempFile, access.KeyFile, access.CertificateFile, access.AuthorityFile,
	}, name)
}

// dataDir is a worker's directory, locked until it is closed.
type dataDir struct {
	lock     *os.File
	attempts *os.File // locked until all keepers have ended, too
	identity string
	member   core.Membership
	temp     string // folder for temporary files
}

func openDataDir(dir string) (*dataDir, error) {
	if err := datadir.Mkdir(dir, inDataDir); err != nil {
		return nil, fmt.Errorf("worker data directory: %w", err)
	}
	lock, err := datadir.Lock(filepath.Join(dir, lockFile), datadir.KillTimeout)
	if errors.Is(err, datadir.ErrLocked) {
		return nil, errors.Join(fmt.Errorf("data directory %s is in use by another worker process; stop it, or give this one "+
			"a directory of its own with --data-dir", dir), lock.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("worker data directory: %w", err)
	}
	attempts, err := lockAttempts(dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	d := &dataDir{lock: lock, attempts: attempts}
	if err := removeTemporaries(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("worker data directory: %w", err), d.close())
	}
	if d.identity, err = loadIdentity(dir); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if d.member, err = loadMembership(dir); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if d.temp, err = openTemp(dir); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// keepersTimeout is the wait for the keepers of a process that was killed. They end what they run, and give up what does not end after ten seconds.
const keepersTimeout = 15 * time.Second

// lockAttempts waits until nothing runs any more of what an earlier process has started: the leader learns of this one that it does not.
func lockAttempts(dir string) (*os.File, error) {
	attempts, err := datadir.Lock(filepath.Join(dir, attemptsFile), keepersTimeout)
	if errors.Is(err, datadir.ErrLocked) {
		return nil, errors.Join(fmt.Errorf("attempts of the last worker process in %s have not ended after %v: try again later, or end them", dir, keepersTimeout), attempts.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("worker data directory: %w", err)
	}
	return attempts, nil
}

// openTemp removes the temporary files of a process that was killed with its keepers, which else do that, and returns the name of a folder
// for new ones.
func openTemp(dir string) (string, error) {
	path, temp := filepath.Join(dir, tempFile), runner.NewTemp()
	if old, err := os.ReadFile(path); err == nil && strings.HasPrefix(filepath.Base(string(old)), runner.TempPrefix) {
		_ = os.RemoveAll(string(old)) // what is left is of another user
	}
	if err := os.WriteFile(path, []byte(temp), 0o600); err != nil {
		return "", fmt.Errorf("worker data directory: %w", err)
	}
	return temp, nil
}

// removeTemporaries removes files that datadir.WriteFile left when the process was killed in it.
func removeTemporaries(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.Contains(e.Name(), datadir.Temporary) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// close unlocks the directory; the kernel does the same when the process dies.
func (d *dataDir) close() error { return errors.Join(d.attempts.Close(), d.lock.Close()) }

// loadIdentity reads the worker's identity, or creates one in an empty directory.
func loadIdentity(dir string) (string, error) {
	path := filepath.Join(dir, identityFile)
	text, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(text))
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != identityLen {
			return "", fmt.Errorf("%s is damaged: want %d hex digits; remove it to join the cluster as a new worker",
				path, 2*identityLen)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("worker identity: %w", err)
	}
	id := randomHex()
	if err := datadir.WriteFile(path, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("worker identity: %w", err)
	}
	return id, nil
}

// seed is for random numbers that need not be secret.
func seed() uint64 { return mathrand.Uint64() }

func randomHex() string {
	var raw [identityLen]byte
	// Never fails: crypto/rand ends the process if the system has no random numbers.
	_, _ = rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}
