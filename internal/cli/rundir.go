package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// runDir is the state of one embedded run, for --resume. It is removed when the job is done and its result printed.
//
//	lock          held (flock) by the process that runs it
//	run.json      summary for lists
//	request.json  the job request, submitted again if the process died before the log had it
//	stdin…        standard input, if it is an input, in pieces
//	failures.txt  the failed tasks with their errors, if the job has failed
//	leader/ worker-1/ …
type runDir struct {
	path string
	lock *os.File
	info runInfo
	rest *stdinPieces // of standard input; nil: nothing more comes
}

// runInfo is run.json.
type runInfo struct {
	ID       string    `json:"id"`
	Created  time.Time `json:"created"`
	Program  string    `json:"program"`
	Dir      string    `json:"dir"`
	Output   string    `json:"output,omitempty"`
	CleanEnv bool      `json:"clean_env,omitempty"`
	Secrets  bool      `json:"secrets,omitempty"` // which are not in request.json
	Growing  bool      `json:"growing,omitempty"` // the rest of standard input was still coming when it began
	Stdout   *place    `json:"stdout,omitempty"`  // where the outputs begin; nil: not a regular file
	Header   int       `json:"header,omitempty"`  // --header of the request, for --concat
	Concat   string    `json:"concat,omitempty"`  // the file of --concat, absolute
	Joblog   string    `json:"joblog,omitempty"`  // that of --joblog
	Owner    string    `json:"owner,omitempty"`   // path of the program of a user whose job it is, or "go run PACKAGE"; empty: any program continues it that has such a job

	// How it ended last; absent while it runs for the first time, and if its process was killed then.
	Status string `json:"status,omitempty"` // of its job
	Tasks  uint64 `json:"tasks,omitempty"`
	Done   uint64 `json:"done,omitempty"`
	Failed uint64 `json:"failed,omitempty"`
}

// continues is the program that continues the run.
func (i *runInfo) continues() string {
	switch {
	case i.Owner == "":
		return "bridgefour"
	case strings.HasPrefix(i.Owner, goRunCommand):
		return i.Owner
	}
	return placeholder.Quote(i.Owner)
}

// logFolder is the folder of the log of a run.
const logFolder = "leader/log"

// What is kept for --resume: so many runs, each of which takes some 50 kB, its logs and its spool, and those that were last used so long ago.
const (
	runsKept    = 20
	runsKeptFor = 30 * 24 * time.Hour
)

// acquireTimeout bounds the time for the lock of a run that a user names.
const acquireTimeout = time.Second

// Statuses of a run whose job has not ended.
const (
	runGoesOn      = "running"
	runInterrupted = "interrupted"
)

var errRunning = errors.New("in use by another process")

// newRunDir creates the state of a new run, with what info has beside the request. An input "-" of the request becomes the path of a copy of
// stdin, or of its first piece.
func newRunDir(ctx context.Context, runs string, info runInfo, req *api.JobRequest, builtins []plan.Builtin, stdin io.Reader) (*runDir, error) {
	info.ID = info.Created.Format("20060102-150405-") + strings.ToLower(rand.Text()[:4])
	info.Program, info.Dir, info.Output, info.Secrets = programText(req.Program), req.Dir, req.Output, len(req.Secrets) > 0
	d := &runDir{path: filepath.Join(runs, info.ID), info: info}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("state of the run: %w; set XDG_STATE_HOME to another folder", err)
	}
	if err := d.acquire(0); err != nil {
		return nil, err
	}
	if err := d.fill(ctx, req, builtins, stdin); err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

// fill writes the files of a new run.
func (d *runDir) fill(ctx context.Context, req *api.JobRequest, builtins []plan.Builtin, stdin io.Reader) error {
	if i := slices.Index(req.Inputs, "-"); i >= 0 {
		var err error
		if d.rest, err = takeStdin(ctx, req, builtins, d.file("stdin"), stdin); err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		req.Inputs[i], d.info.Growing = d.file("stdin"), d.rest != nil
	}
	kept := *req
	kept.Secrets = nil
	body, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	info, err := json.Marshal(d.info)
	if err != nil {
		return err
	}
	err = os.WriteFile(d.file("request.json"), body, 0o600)
	if err == nil {
		err = os.WriteFile(d.file("run.json"), info, 0o600)
	}
	if err != nil {
		return fmt.Errorf("state of the run: %w", err)
	}
	return nil
}

// record writes how the job of a run that is kept has ended, or how far it is.
func (d *runDir) record(job *api.Job) error {
	d.info.Status = runInterrupted
	d.info.Tasks, d.info.Done, d.info.Failed = job.TaskCounts()
	if job.IsEnded() {
		d.info.Status = job.Status
	}
	info, err := json.Marshal(d.info)
	if err != nil {
		return err
	}
	return datadir.WriteFile(d.file("run.json"), info)
}

func (d *runDir) file(name string) string { return filepath.Join(d.path, name) }

// acquire locks the run for this process, within some time: others that only look at it hold the lock for a moment.
func (d *runDir) acquire(within time.Duration) error {
	f, err := datadir.Lock(d.file("lock"), within)
	if errors.Is(err, datadir.ErrLocked) {
		return errors.Join(errRunning, f.Close())
	}
	if err != nil {
		return fmt.Errorf("state of the run: %w", err)
	}
	d.lock = f
	return nil
}

// release unlocks the run, so that another process can resume it.
func (d *runDir) release() error { return d.lock.Close() }

// removedSuffix is that of the folder of a run that is being removed.
const removedSuffix = ".removed"

// remove removes the state of the run. Its folder gets another name first: a process that looks at all runs, and has listed this one before,
// would make its lock again in a folder that is half removed.
func (d *runDir) remove() error {
	removed := d.path + removedSuffix
	err := os.Rename(d.path, removed)
	if err == nil {
		err = os.RemoveAll(removed)
	}
	return errors.Join(err, d.lock.Close())
}

// request is the job as it was submitted.
func (d *runDir) request() (*api.JobRequest, error) {
	body, err := os.ReadFile(d.file("request.json"))
	if err != nil {
		return nil, fmt.Errorf("state of the run: %w", err)
	}
	var req api.JobRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", d.file("request.json"), err)
	}
	return &req, nil
}

// listRuns lists this user's runs, newest first, and the folders of runs that are being removed, or were when their process was killed. Folders
// without a readable run.json are skipped: they are being created or removed. So are those of other users, whose commands have their own
// state, and links.
func listRuns(runs string) (list []*runDir, leftovers []string, err error) {
	names, err := os.ReadDir(runs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("state of runs: %w", err)
	}
	for _, name := range names {
		d := &runDir{path: filepath.Join(runs, name.Name())}
		if !name.IsDir() || !ownFolder(name) {
			continue
		}
		if strings.HasSuffix(d.path, removedSuffix) {
			leftovers = append(leftovers, d.path)
			continue
		}
		if d.readInfo() && d.info.ID == name.Name() {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b *runDir) int {
		return cmp.Or(b.info.Created.Compare(a.info.Created), strings.Compare(b.info.ID, a.info.ID))
	})
	return list, leftovers, nil
}

// readInfo reads run.json, if it can be read.
func (d *runDir) readInfo() bool {
	text, err := os.ReadFile(d.file("run.json"))
	return err == nil && json.Unmarshal(text, &d.info) == nil
}

// ownFolder reports whether a folder is this user's.
func ownFolder(e fs.DirEntry) bool {
	info, err := e.Info()
	if err != nil {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == os.Geteuid()
}

// pruneRuns removes all but the newest n runs, and those that were last used before a time, and frees the preallocated space of the logs of
// the rest. Runs in use stay as they are. What a crash has left of a run that was being removed is removed.
func pruneRuns(runs string, n int, before time.Time) error {
	all, leftovers, err := listRuns(runs)
	for _, path := range leftovers {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return err
	}
	for i, d := range all {
		used, err := os.Stat(d.file("run.json"))
		if err == nil {
			err = d.acquire(0)
		}
		switch {
		case err != nil:
		case i >= n || used.ModTime().Before(before):
			err = d.remove()
		default:
			err = errors.Join(replica.Trim(d.file(logFolder)), d.release())
		}
		if err != nil && !errors.Is(err, errRunning) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lastRun names the newest run.
const lastRun = "last"

// keptRuns lists this user's runs, newest first.
func (a *app) keptRuns() ([]*runDir, error) {
	runs, err := a.runsDir()
	if err != nil {
		return nil, err
	}
	list, _, err := listRuns(runs)
	return list, err
}

// findRun is findRun in the folder of this user's runs.
func (a *app) findRun(id string) (*runDir, error) {
	runs, err := a.runsDir()
	if err != nil {
		return nil, err
	}
	return findRun(runs, id)
}

// findRun returns the run whose ID is id or begins with it, or the newest one.
func findRun(runs, id string) (*runDir, error) {
	all, _, err := listRuns(runs)
	if err != nil {
		return nil, err
	}
	var found []*runDir
	for i, d := range all {
		if id == d.info.ID || id == lastRun && i == 0 {
			return d, nil
		}
		if strings.HasPrefix(d.info.ID, id) {
			found = append(found, d)
		}
	}
	switch {
	case len(all) == 0:
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("no run is kept; the state of unfinished runs is kept under %s", runs)}
	case len(found) == 0:
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("unknown run %q; known:\n%s", id, runTable(all))}
	case len(found) > 1:
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("ambiguous run %q; it matches:\n%s", id, runTable(found))}
	}
	return found[0], nil
}

// openRun locks the run whose ID begins with id, or the newest one that is not in use.
func openRun(runs, id string) (*runDir, error) {
	if id != "" {
		d, err := findRun(runs, id)
		if err == nil {
			err = d.acquire(acquireTimeout)
		}
		if errors.Is(err, errRunning) {
			err = fmt.Errorf("run %s is in use by another process", d.info.ID)
		}
		return d, err
	}
	all, _, err := listRuns(runs)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no run to resume; the state of unfinished runs is kept under %s", runs)
	}
	for _, d := range all {
		err := d.acquire(0)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, errRunning) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("every run is in use by another process:\n%s", runTable(all))
}

// runTable formats runs as a table.
func runTable(list []*runDir) string {
	var text strings.Builder
	t := newTable(&text)
	for _, d := range list {
		t.row("  "+d.info.ID, d.info.Created.Local().Format(time.DateTime), printable(d.info.Program), printable(d.info.Dir))
	}
	_ = t.flush() // a strings.Builder does not fail
	return strings.TrimRight(text.String(), "\n")
}

// stateDir is the folder of this user's state.
func (a *app) stateDir() (string, error) {
	if dir, ok := a.env("XDG_STATE_HOME"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, "bridgefour"), nil
	}
	if home, ok := a.env("HOME"); ok && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "bridgefour"), nil
	}
	return "", errors.New("no state directory: neither XDG_STATE_HOME nor HOME is set")
}
