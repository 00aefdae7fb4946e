package runner

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// placeholder in an argument stands for the input's path or the item.
const placeholder = "{}"

// command is what all attempts of a command share.
type command struct {
	path   string // of the program; empty while it depends on the item
	argv   []string
	asks   bool     // an argument holds the placeholder
	dir    string   // empty: the worker's
	env    []string // the worker's own, and what is the same for all attempts
	host   string
	stdout stdoutFile
}

func (r *Runner) newCommand(j *wire.Job, program *wire.Command, folder string) (*command, *failure) {
	c := &command{dir: j.GetDir(), host: r.host, stdout: stdoutFile{folder: folder}}
	for _, arg := range program.GetArgv() {
		c.argv = append(c.argv, string(arg))
		c.asks = c.asks || strings.Contains(string(arg), placeholder)
	}
	if len(c.argv) == 0 || c.argv[0] == "" {
		return nil, failed(wire.FailureKind_BAD_PROGRAM, "the job's command is empty")
	}
	if !strings.Contains(c.argv[0], placeholder) {
		var f *failure
		if c.path, f = c.lookUp(c.argv[0]); f != nil {
			return nil, f
		}
	}
	c.env = jobEnv(os.Environ(), j, r.worker())
	return c, nil
}

// lookUp finds a program as a shell does. A name with a slash is taken from the job's folder when the program starts.
func (c *command) lookUp(name string) (string, *failure) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path, err := exec.LookPath(name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return "", failed(wire.FailureKind_BAD_PROGRAM,
			"command %q not found in PATH on %s; install it there, or give its path", name, c.host)
	}
	return path, nil
}

// arguments fills the item in: where the placeholder stands, or as the last argument if it is to be appended.
func (c *command) arguments(item string, appended bool) []string {
	if !c.asks {
		if !appended {
			return c.argv
		}
		return append(slices.Clip(c.argv), item)
	}
	argv := make([]string, len(c.argv))
	for i, arg := range c.argv {
		argv[i] = strings.ReplaceAll(arg, placeholder, item)
	}
	return argv
}

// jobEnv is the environment that all attempts of a job share.
func jobEnv(own []string, j *wire.Job, worker uint64) []string {
	const perAttempt = 6
	env := make([]string, 0, len(own)+len(j.GetSettings())+3+perAttempt)
	for _, entry := range own {
		if !strings.HasPrefix(entry, "B4_") { // of a job that this worker is itself a command of
			env = append(env, entry)
		}
	}
	output := j.GetOutput()
	if j.GetSpool() {
		output = ""
	}
	env = append(env,
		"B4_JOB="+strconv.FormatUint(j.GetId(), 10),
		"B4_OUTPUT="+output,
		"B4_WORKER="+strconv.FormatUint(worker, 10))
	settings := make([]string, 0, len(j.GetSettings()))
	for key, value := range j.GetSettings() {
		settings = append(settings, "B4_SET_"+envName(key)+"="+value)
	}
	slices.Sort(settings)
	return append(env, settings...)
}

func envName(key string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, key)
}

// attemptEnv adds what differs from attempt to attempt. It holds until it is called again.
func (c *command) attemptEnv(a *Attempt, item string) []string {
	var offset, length string
	if file := a.Split.GetFile(); file != nil && !file.GetWhole() {
		offset = strconv.FormatUint(file.GetOffset(), 10)
		length = strconv.FormatUint(file.GetLength(), 10)
	}
	// In place: c belongs to one slot, and env has room for these.
	return append(c.env,
		"B4_STAGE="+a.StageName,
		"B4_TASK="+strconv.FormatUint(a.Index, 10),
		"B4_ATTEMPT="+strconv.FormatUint(uint64(a.Number), 10),
		"B4_INPUT="+item,
		"B4_OFFSET="+offset,
		"B4_LENGTH="+length)
}

// stdoutFile takes the standard output of an attempt. It lies in the job's attempt-private folder, so that it needs only a
// new name to become an attempt's file.
//
// A process that an attempt leaves behind may keep the file open, and what it writes later must not become the output of
// another attempt. So an attempt gets a new file, or one that is empty and that no other process can have open: each
// attempt gets an opening of its own of it, and [exclusive] tells when all of those are closed. (Always to make a new one
// would double the cost of a short command that writes nothing: ext4 without a journal takes a millisecond for it.)
type stdoutFile struct {
	folder string
	path   string
	file   *os.File // nil: none
	fd     int      // of file
	given  int      // the attempt's, until it has started
}

// begin gives a file for an attempt's standard output.
func (s *stdoutFile) begin() error {
	var st syscall.Stat_t
	if s.file != nil && (syscall.Fstat(s.fd, &st) != nil || st.Nlink != 1) {
		s.close() // the folder was removed: the job was over, and is now run again
	}
	if s.file == nil {
		// Named at random: workers that share the folder know nothing of each other.
		path := filepath.Join(s.folder, ".stdout-"+strconv.FormatUint(rand.Uint64(), 36))
		file, err := createNew(s.folder, path)
		if err != nil {
			return err
		}
		s.path, s.file, s.fd = path, file, int(file.Fd())
	}
	given, err := syscall.Open(s.path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.given = given
	return nil
}

// size of what the attempt wrote.
func (s *stdoutFile) size() (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(s.fd, &st); err != nil {
		return 0, err
	}
	return st.Size, nil
}

// clear makes the file fit for another attempt, or removes it.
func (s *stdoutFile) clear() {
	if s.file == nil {
		return
	}
	if !exclusive(s.fd) {
		s.close()
		return
	}
	if size, err := s.size(); err != nil || size > 0 && s.file.Truncate(0) != nil {
		s.close()
	}
}

// errHeld is the failure of a command whose output could still change.
var errHeld = errors.New("a process that the command started still has its output open")

// take renames the file: it is the attempt's now. What is counted must be what is published, so that nothing may be able
// to write to it any more. The caller closes what take returns, which is open for reading.
func (s *stdoutFile) take(path string) (*os.File, error) {
	file, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	err = s.file.Close()
	s.file = nil
	if err == nil && !readOnly(int(file.Fd())) {
		err = errHeld
	}
	if err == nil {
		err = os.Rename(s.path, path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(s.path))
	}
	return file, nil
}

func (s *stdoutFile) close() {
	if s.file == nil {
		return
	}
	_ = s.file.Close() // empty, or of an attempt that failed
	_ = os.Remove(s.path)
	s.file = nil
}

// startFailure tells why a program could not be started.
func (c *command) startFailure(path string, argv []string, item string, err error) *failure {
	if c.dir != "" {
		if st, statErr := os.Stat(c.dir); statErr != nil || !st.IsDir() {
			cause := "not a folder"
			if statErr != nil {
				cause = bare(statErr).Error()
			}
			return failed(wire.FailureKind_BAD_PROGRAM,
				"working directory %q: %s on %s; commands run where the client stood: make the folder there, or submit from one that exists on all workers",
				c.dir, cause, c.host)
		}
	}
	switch {
	case errors.Is(err, syscall.E2BIG):
		return failed(wire.FailureKind_BAD_INPUT, "start %q: the arguments are too long for the system (the item has %d bytes)", argv[0], len(item))
	case errors.Is(err, syscall.EINVAL) && strings.IndexByte(item, 0) >= 0:
		return failed(wire.FailureKind_BAD_INPUT, "start %q: the item %q holds a zero byte, which no argument can", argv[0], item)
	case errors.Is(err, fs.ErrNotExist):
		if _, statErr := os.Stat(c.resolve(path)); statErr == nil {
			return failed(wire.FailureKind_BAD_PROGRAM, "start %q: the interpreter that its first line names is not on %s", path, c.host)
		}
		return failed(wire.FailureKind_BAD_PROGRAM, "command %q not found on %s (looked in %q)", argv[0], c.host, filepath.Dir(c.resolve(path)))
	case errors.Is(err, fs.ErrPermission):
		if info, statErr := os.Stat(c.resolve(path)); statErr == nil && info.IsDir() {
			return failed(wire.FailureKind_BAD_PROGRAM, "command %q is a folder on %s; name the program in it", path, c.host)
		}
		return failed(wire.FailureKind_BAD_PROGRAM, "command %q is not executable on %s; chmod +x it", path, c.host)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ELOOP):
		return failed(wire.FailureKind_BAD_PROGRAM, "start %q on %s: %v", path, c.host, err)
	}
	// The worker is short of something: memory, processes. Another one, or this one later, may do better.
	return failed(wire.FailureKind_PROGRAM_ERROR, "start %q on %s: %v", path, c.host, err)
}

func (c *command) resolve(path string) string {
	if filepath.IsAbs(path) || c.dir == "" {
		return path
	}
	return filepath.Join(c.dir, path)
}
