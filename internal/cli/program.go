package cli

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// MainOfJobs runs the command line of a program of jobs and returns its exit code.
func MainOfJobs(all []bridgefour.Job) int {
	a := processApp("", all)
	a.program, a.own = placeholder.Quote(os.Args[0]), true
	if executable, err := os.Executable(); err == nil && isGoRun(executable) {
		a.program = goRun()
	}
	a.stderr.program = a.program
	args := os.Args[1:]
	if err := a.checkJobs(all); err != nil {
		a.stderr.Printf("%s: %v", a.baseName(), err)
		return exitUsage
	}
	switch n := len(args); {
	case n == 1 && args[0] == "--describe":
		return a.report(a.describe(all))
	case n == 2 && args[1] == "--describe":
		if i := slices.Index(a.builtinNames(), args[0]); i >= 0 {
			return a.report(a.describe(all[i : i+1]))
		}
	}
	return a.main(context.Background(), a.withRun(args))
}

// jobsLabels is how many jobs of a program have a label each at most: a worker has at most 256.
const jobsLabels = 128

// jobLabels are the labels that the jobs of this program need. Nil: these are the jobs that all workers have.
func (a *app) jobLabels() map[string]string {
	if !a.own {
		return nil
	}
	text := strings.Join(a.jobNames(), ",")
	const shown = 60
	if len(text) > shown {
		text = fmt.Sprintf("%s-%x", text[:shown], sha256.Sum256([]byte(text)))[:shown+17]
	}
	return map[string]string{state.LabelJobs: text}
}

// workerLabels are the labels of a worker of this program: other workers of a cluster may be other programs.
func (a *app) workerLabels() map[string]string {
	labels := a.jobLabels()
	names := a.jobNames()
	if !a.own || labels[state.LabelJobs] == strings.Join(names, ",") {
		return labels
	}
	for _, name := range names[:min(len(names), jobsLabels)] { // workers of other programs than the leader's do not run the rest
		if key := state.LabelJob + name; len(key) <= wire.TextBytesMax {
			labels[key] = ""
		}
	}
	return labels
}

// jobNames are the names of the jobs of this program, sorted.
func (a *app) jobNames() []string {
	names := a.builtinNames()
	slices.Sort(names)
	return names
}

// baseName is the name of this program, without its folder.
func (a *app) baseName() string {
	if a.own {
		return filepath.Base(os.Args[0])
	}
	return "bridgefour"
}

// owner is the path of this program, or the command that builds and runs it, if the job of a request is its own.
func (a *app) owner(req *api.JobRequest) string {
	if !a.own || req.Program.Builtin == "" {
		return ""
	}
	path, err := os.Executable()
	switch {
	case err != nil:
		return os.Args[0]
	case isGoRun(path):
		return goRun()
	}
	return path
}

// goRunPath matches the paths of executables that "go run" makes: the file is gone when it ends, or lies in the build cache.
var goRunPath = regexp.MustCompile(`/go-build[0-9]+/b001/exe/[^/]+$|/[0-9a-f]{64}-d/[^/]+$`)

func isGoRun(executable string) bool { return goRunPath.MatchString(filepath.ToSlash(executable)) }

const goRunCommand = "go run "

// goRun is the command that runs a program which "go run" has built, in its module. Of a program that was named by its files, it is that of the folder.
func goRun() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Path != "" && info.Path != "command-line-arguments" {
		return goRunCommand + info.Path
	}
	return goRunCommand + "."
}

// renamed names a program instead of bridgefour in a text that quotes its commands, as in 'bridgefour jobs'.
func renamed(program, text string) string {
	return strings.ReplaceAll(text, "'bridgefour ", "'"+program+" ")
}

// nameOwn names this program in the help of all commands if it is one of a user.
func (a *app) nameOwn(root *cobra.Command) {
	if !a.own {
		return
	}
	root.Use, root.Annotations = a.baseName(), map[string]string{cobra.CommandDisplayNameAnnotation: a.program}
	commands := []*cobra.Command{root}
	for len(commands) > 0 {
		c := commands[0]
		commands = append(commands[1:], c.Commands()...)
		c.Long = renamed(a.program, c.Long)
		c.Example = strings.ReplaceAll(c.Example, "  bridgefour ", "  "+a.program+" ")
		c.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = renamed(a.program, f.Usage) })
	}
}

// jobExample is the line of an example in the help of a command, about a job that the program has: a built-in one, with its arguments, unless it has its own.
func (a *app) jobExample(command, builtin string) string {
	if !a.own || len(a.jobs) == 0 {
		return "  bridgefour " + command + " " + builtin
	}
	d := program.Describe(a.jobs[0])
	arguments := d.Example
	if arguments == "" && !d.NoInput {
		arguments = "--input books/ --output results"
	}
	return strings.TrimRight("  bridgefour "+command+" "+placeholder.Quote(d.Name)+" "+arguments, " ")
}

// checkJobs refuses jobs that could not be told apart, or not be run.
func (a *app) checkJobs(all []bridgefour.Job) error {
	if len(all) == 0 {
		return fmt.Errorf("the program has no job: give engine.Main those that bridgefour.New returns")
	}
	commands := []string{"help"} // cobra adds it
	for _, c := range a.root().Commands() {
		commands = append(append(commands, c.Name()), c.Aliases...)
	}
	for i, job := range all {
		_, mapper := job.(bridgefour.Mapper)
		_, staged := job.(stage.Job)
		switch {
		case !mapper && !staged:
			return fmt.Errorf("job %q was not made by bridgefour.New, and has no method Map(context.Context, *bridgefour.Task) error", job.Name())
		case job.Name() == "" || strings.HasPrefix(job.Name(), "-"):
			return fmt.Errorf("a job has the name %q; want one that is not empty and does not begin with a hyphen", job.Name())
		case slices.ContainsFunc(all[:i], func(other bridgefour.Job) bool { return other.Name() == job.Name() }):
			return fmt.Errorf("two jobs have the name %q", job.Name())
		case slices.Contains(commands, job.Name()):
			return fmt.Errorf("a job has the name %q, which is that of a command of this program: give it another one", job.Name())
		}
	}
	return nil
}

// withRun inserts "run NAME" into arguments without a command if there is one job, and "run" before the name of a job and before --resume.
func (a *app) withRun(args []string) []string {
	resumes := len(args) > 0 && (args[0] == "--resume" || strings.HasPrefix(args[0], "--resume=")) // a run, which has its job
	if len(args) > 0 && slices.Contains(a.builtinNames(), args[0]) || resumes {
		return append([]string{"run"}, args...)
	}
	command := len(args) > 0 && (!strings.HasPrefix(args[0], "-") || args[0] == "--version" || args[0] == "--config" || strings.HasPrefix(args[0], "--config="))
	if command || len(a.jobs) != 1 {
		return args
	}
	return append([]string{"run", a.jobs[0].Name()}, args...)
}

// jobDescription is what --describe prints of a job.
type jobDescription struct {
	Name     string               `json:"name"`
	Summary  string               `json:"summary,omitempty"`
	Input    bool                 `json:"input"` // it needs one
	Collects bool                 `json:"collects,omitempty"`
	First    bool                 `json:"first_success,omitempty"` // done when one task succeeds
	Records  []string             `json:"records,omitempty"`       // kinds that it reads; none: all
	Stages   []stageDescription   `json:"stages,omitempty"`        // with the defaults of the settings; none if these are not enough
	Settings []settingDescription `json:"settings,omitempty"`
	Error    string               `json:"error,omitempty"` // of the job itself: it cannot be run
}

type stageDescription struct {
	Name       string `json:"name"`
	Partition  string `json:"partition,omitempty"` // hash or range; empty: the first stage
	Partitions int    `json:"partitions,omitempty"`
}

type settingDescription struct {
	Key      string `json:"key"`
	Type     string `json:"type"`
	Usage    string `json:"usage,omitempty"`
	Default  string `json:"default,omitempty"`
	Required bool   `json:"required,omitempty"`
}

// describe prints jobs of the program as JSON. The error is about those that cannot be run.
func (a *app) describe(jobs []bridgefour.Job) error {
	list := make([]jobDescription, 0, len(jobs))
	var broken error
	for _, job := range jobs {
		d := describeJob(job)
		if list = append(list, d); d.Error != "" {
			broken = errors.Join(broken, errors.New(d.Error))
		}
	}
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	err := e.Encode(struct {
		Jobs []jobDescription `json:"jobs"`
	}{list})
	return errors.Join(err, broken)
}

func describeJob(job bridgefour.Job) jobDescription {
	d := program.Describe(job)
	out := jobDescription{Name: d.Name, Summary: d.Summary, Input: !d.NoInput, Collects: d.Collects, First: d.FirstSuccess, Records: d.Records}
	for _, s := range d.Settings {
		kind := s.Type
		if kind == "" {
			kind = "text"
		}
		out.Settings = append(out.Settings, settingDescription{s.Key, kind, s.Usage, s.Default, s.Required})
	}
	staged, ok := job.(stage.Job)
	switch {
	case d.Broken != nil:
		out.Error = fmt.Sprintf("job %s: %v", d.Name, d.Broken)
		return out
	case !ok:
		out.Stages = []stageDescription{{Name: "map"}}
		return out
	}
	p, err := staged.Plan(nil)
	if err != nil {
		if _, defect := errors.AsType[*stage.DefectError](err); defect {
			out.Error = err.Error()
		}
		return out
	}
	for i, s := range p.Stages() {
		described := stageDescription{Name: s.Name, Partitions: s.Partitions}
		if i > 0 {
			described.Partition = "hash"
			if s.Partition == stage.ByRange {
				described.Partition = "range"
			}
		}
		out.Stages = append(out.Stages, described)
	}
	return out
}
