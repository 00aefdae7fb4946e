package program

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// command is a command, with the state shared by its attempts in a slot.
type command struct {
	path     string               // of the program; empty while it depends on the item
	argv     []string             // as the job has it
	args     *placeholder.Command // argv
	dir      string               // empty: the worker's
	env      []string             // jobEnv
	envMore  []string             // of the attempt
	ownTemp  bool                 // env has TMPDIR
	confined keeper.Confinement
	user     *User // nil: that of this process
	host     string
}

func (l *Loader) command(j *wire.Job, user *User, program *wire.Command) (Program, *Failure) {
	c := &command{dir: j.GetDir(), host: l.Host, confined: l.Confinement, user: user}
	c.confined.Sandbox = c.confined.Sandbox || j.GetSandbox()
	c.confined.NoNetwork = c.confined.NoNetwork || j.GetNoNetwork()
	for _, arg := range program.GetArgv() {
		c.argv = append(c.argv, string(arg))
	}
	mode := placeholder.Mode(program.GetPlaceholders()) //nolint:gosec // unknown ones are not valid
	switch {
	case len(c.argv) == 0 || c.argv[0] == "":
		return nil, Failed(wire.FailureKind_BAD_PROGRAM, "empty command")
	case !mode.Valid():
		return nil, Failed(wire.FailureKind_BAD_PROGRAM, "unknown placeholders; is this worker older than the leader?")
	}
	c.args = placeholder.Compile(c.argv, placeholder.Options{
		Mode: mode, Only: program.GetPlaceholder(), Columns: j.GetColumns(), Shell: program.GetShell(),
	})
	for _, s := range j.GetSecrets() {
		if s.GetError() != "" {
			return nil, Failed(wire.FailureKind_BAD_PROGRAM, "secret %q: %s", s.GetName(), s.GetError())
		}
	}
	c.env = l.jobEnv(os.Environ(), j, user)
	_, c.ownTemp = variable(c.env, "TMPDIR")
	if name, fixed := c.args.Program(); fixed {
		var f *Failure
		if c.path, f = c.lookUp(name); f != nil {
			return nil, f
		}
	}
	return c, nil
}

// lookUp finds a program as a shell does. A name with a slash is resolved when the program starts, in the job's folder.
func (c *command) lookUp(name string) (string, *Failure) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	searched, _ := variable(c.env, "PATH")
	for _, dir := range filepath.SplitList(searched) {
		if path, err := exec.LookPath(c.resolve(cmp.Or(dir, ".")) + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", Failed(wire.FailureKind_BAD_PROGRAM, "command %q not found in PATH on %s; install it there, or give its path", name, c.host)
}

// variable returns the value of a variable.
func variable(env []string, name string) (value string, ok bool) {
	for _, entry := range env {
		if key, value, _ := strings.Cut(entry, "="); key == name {
			return value, true
		}
	}
	return "", false
}

// reads reports whether the command reads its task's split from its standard input.
func (c *command) reads(t *Task) bool {
	if t.Job.GetBatch() {
		return !c.args.UsesItem()
	}
	return !c.args.TakesPath()
}

// arguments returns the arguments for a task. Of a list, the item is the last one if there are no placeholders.
func (c *command) arguments(t *Task) []string {
	v := placeholder.Values{Number: t.Index + 1, Slot: uint64(t.Slot)}
	items := t.Split.GetItems().GetValues()
	if items == nil {
		items = [][]byte{t.Item}
		if t.Split.GetFile() != nil {
			items[0] = []byte(t.Path)
		}
	}
	for _, value := range items {
		v.Items = append(v.Items, string(value))
	}
	return c.args.Expand(&v, t.IsItem() && !c.args.Any() && !t.Job.GetBatch())
}

// inherited are the variables that commands get from the worker. The others, such as its credentials, are not for jobs.
var inherited = []string{"PATH", "HOME", "USER", "LANG", "TZ"} //nolint:gochecknoglobals // a constant

// jobEnv returns the environment shared by all attempts of a job; own is that of this process.
func (l *Loader) jobEnv(own []string, j *wire.Job, user *User) []string {
	given := map[string]string{}
	if user != nil {
		given["HOME"], given["USER"] = user.Home, user.Name
	}
	maps.Copy(given, j.GetEnv())
	for _, s := range j.GetSecrets() {
		given[s.GetName()] = s.GetValue()
	}
	env := make([]string, 0, len(own)+len(given)+len(j.GetSettings())+3)
	for _, entry := range own {
		name, _, _ := strings.Cut(entry, "=")
		if _, replaced := given[name]; replaced || !l.EnvAll && !slices.Contains(inherited, name) {
			continue
		}
		if name != "TMPDIR" && !strings.HasPrefix(name, "B4_") { // each slot has its own; this worker may be a command of a job itself
			env = append(env, entry)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		env = append(env, name+"="+given[name])
	}
	output := j.GetOutput()
	if j.GetSpool() {
		output = ""
	}
	env = append(env,
		"B4_JOB="+strconv.FormatUint(j.GetId(), 10),
		"B4_OUTPUT="+output,
		"B4_WORKER="+strconv.FormatUint(l.Worker(), 10))
	if fence := j.GetFence(); fence != 0 {
		env = append(env, "B4_LOCK_FENCE="+strconv.FormatUint(fence, 10))
	}
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

// attemptEnv returns the variables of an attempt. The result is valid until the next call.
func (c *command) attemptEnv(t *Task, item string) []string {
	var offset, length string
	if file := t.Split.GetFile(); file != nil && !file.GetWhole() {
		offset = strconv.FormatUint(file.GetOffset(), 10)
		length = strconv.FormatUint(file.GetLength(), 10)
	}
	c.envMore = append(c.envMore[:0],
		"B4_STAGE="+t.Stage,
		"B4_TASK="+strconv.FormatUint(t.Index, 10),
		"B4_ATTEMPT="+strconv.FormatUint(uint64(t.Number), 10),
		"B4_INPUT="+item,
		"B4_OFFSET="+offset,
		"B4_LENGTH="+length)
	for _, name := range slices.Sorted(maps.Keys(t.Resources)) {
		list := strings.Join(t.Resources[name], ",")
		c.envMore = append(c.envMore, "B4_RESOURCE_"+envName(name)+"="+list)
		if name == "gpu" {
			c.envMore = append(c.envMore, "CUDA_VISIBLE_DEVICES="+list)
		}
	}
	if !c.ownTemp {
		c.envMore = append(c.envMore, "TMPDIR="+t.Keeper.Temp)
	}
	return c.envMore
}

// startFailure explains why a program could not be started.
func (c *command) startFailure(path string, argv []string, item string, err error) *Failure {
	if c.dir != "" {
		if st, statErr := os.Stat(c.dir); statErr != nil || !st.IsDir() {
			cause := "not a folder"
			if statErr != nil {
				cause = Bare(statErr).Error()
			}
			return Failed(wire.FailureKind_BAD_PROGRAM,
				"working directory %q: %s on %s; commands run in the client's working directory: create it there, or submit from one that exists on all workers",
				c.dir, cause, c.host)
		}
	}
	switch {
	case errors.Is(err, syscall.EMFILE): // as if the output could not be opened: the worker returns the attempt
		return Failed(wire.FailureKind_OUTPUT_ERROR, "start %q on %s: %v", path, c.host, err)
	case errors.Is(err, syscall.E2BIG):
		largest, size := "the item", len(item)
		for what, list := range map[string][]string{"the command": c.argv, "its environment with the job's settings": c.env} {
			if n := len(strings.Join(list, "\x00")); n > size {
				largest, size = what, n
			}
		}
		return Failed(wire.FailureKind_BAD_INPUT, "start %q: argument list too long: %s has %d bytes; the limit is 128 KiB for one argument or setting, "+
			"and usually 2 MiB for all", argv[0], largest, size)
	case errors.Is(err, syscall.EINVAL) && strings.IndexByte(item, 0) >= 0:
		return Failed(wire.FailureKind_BAD_INPUT, "start %q: item %q contains a NUL byte, which arguments cannot", argv[0], item)
	case errors.Is(err, fs.ErrNotExist):
		if _, statErr := os.Stat(c.resolve(path)); statErr == nil {
			return Failed(wire.FailureKind_BAD_PROGRAM, "start %q: the interpreter named in its first line does not exist on %s", path, c.host)
		}
		return Failed(wire.FailureKind_BAD_PROGRAM, "command %q not found on %s (looked in %q)", argv[0], c.host, filepath.Dir(c.resolve(path)))
	case errors.Is(err, fs.ErrPermission) && c.user != nil:
		return Failed(wire.FailureKind_BAD_PROGRAM, "user %q, who runs the job's commands on %s (--run-as), may not run %q, or not enter the working directory %q",
			c.user.Name, c.host, argv[0], c.dir)
	case errors.Is(err, fs.ErrPermission):
		if info, statErr := os.Stat(c.resolve(path)); statErr == nil && info.IsDir() {
			return Failed(wire.FailureKind_BAD_PROGRAM, "command %q is a folder on %s; name the program in it", path, c.host)
		}
		return Failed(wire.FailureKind_BAD_PROGRAM, "command %q is not executable on %s; chmod +x it", path, c.host)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ELOOP):
		return Failed(wire.FailureKind_BAD_PROGRAM, "start %q on %s: %v", path, c.host, err)
	}
	// The worker is out of resources, such as memory or processes: another one, or a later attempt, may succeed.
	return Failed(wire.FailureKind_PROGRAM_ERROR, "start %q on %s: %v", path, c.host, err)
}

func (c *command) resolve(path string) string {
	if filepath.IsAbs(path) || c.dir == "" {
		return path
	}
	return filepath.Join(c.dir, path)
}
