package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/bytesize"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/jobs"
)

// linesBytesMax bounds --lines: a leader accepts requests up to 1 GiB.
const linesBytesMax = 1<<30 - 8<<20

// linesInMemory is the size up to which --lines is held in memory.
const linesInMemory = 1 << 20

// jobFlags are the flags of run and submit that describe a job.
type jobFlags struct {
	itemFlags

	asked        api.JobRequest // what flags set is sent as it is
	file         string         // describes the job, and the flags replace parts of it; empty: none does
	inputs       []string
	dir          string
	dryRun       bool
	split        string
	pack         string
	records      string
	header       int
	output       string
	set          []string
	env          []string
	envAll       bool
	secrets      []string
	retries      int
	retryDelay   time.Duration
	delay        time.Duration
	timeout      time.Duration
	grace        time.Duration
	priority     int
	slotsPerTask int
	memory       string
	resources    []string
	labels       []string
	after        []string
	onConflict   string
}

// add registers the flags. The defaults are the cluster's and are repeated here for the help only.
func (f *jobFlags) add(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.inputs, "input", nil, "`file`, folder (its files, not hidden ones) or quoted glob (*, ?, [a-z], {a,b}, and ** for folders at any depth); of run without --cluster, - is standard input, "+
		"which alone is cut into tasks while it comes; repeatable")
	f.itemFlags.add(fs, &f.asked)
	fs.StringVar(&f.output, "output", "", "`folder` for the parts and _SUCCESS; without it the result goes to stdout and nothing is kept")
	fs.BoolVar(&f.asked.Overwrite, "overwrite", false, "replace the content of --output once the new output is complete")
	fs.BoolVar(&f.asked.KeepPartial, "keep-partial", false, "publish finished parts, and _PARTIAL, if the job fails or is stopped")
	fs.StringVar(&f.asked.NameParts, "name-parts", "", "`pattern` of the names of the parts in --output, with placeholders: {sample}.vcf, {/.}.txt, {1}/{2}.csv (default part-NNNNN)")
	fs.StringVar(&f.asked.Program.Reduce, "reduce", "", "a second stage: `command line` for sh -c that reads what the tasks have written, lines KEY<TAB>VALUE, sorted by key; "+
		"each key goes to one of its tasks, whose outputs are the parts")
	fs.StringVar(&f.asked.Program.Combine, "combine", "", "`command line` for sh -c that shortens what a task has written before --reduce gets it: it reads the lines sorted by key, and writes lines KEY<TAB>VALUE")
	fs.IntVar(&f.asked.Partitions, "partitions", 0, "`number` of tasks of --reduce, or of each later stage of a built-in job, if it is not fixed (default: one for each 64 MiB of input; one for items)")
	fs.StringVar(&f.split, "split", "", "maximum split `size`, cut between records; none: one task per file. Only text is cut (default 64MiB; of built-in jobs and with --reduce as much less, "+
		"but 1MiB at least, as gives each slot 4 tasks)")
	fs.StringVar(&f.pack, "pack", "", "small files up to this `size` together share a task, 256 at most; none: each is a task (default: those of built-in jobs do if each slot has 4 tasks nevertheless, "+
		"and no option counts, names or paces tasks)")
	fs.StringVar(&f.records, "records", "lines", "`kind` of records: lines, fixed:N (bytes), start:REGEXP (a record begins with a matching line), "+
		"fasta, fastq, csv or jsonl")
	fs.IntVar(&f.header, "header", 0, "the first `N` lines of a file (rows of csv) go to each of its splits (default 1 for csv); with --csv, 0 says that its first row is one of the items")
	fs.StringArrayVar(&f.set, "set", nil, "user setting `key=value`, seen by the program; repeatable")
	fs.StringArrayVar(&f.env, "env", nil, "variable `NAME[=VALUE]` of the tasks' environment; without =VALUE, as it is here; repeatable")
	fs.BoolVar(&f.envAll, "env-all", false, "the tasks get all variables that are set here (run without --cluster: the default)")
	fs.StringArrayVar(&f.secrets, "secret", nil, "variable `NAME[=@FILE]` as --env, but encrypted in the log, and shown to nobody: its value is the "+
		"content of FILE without a newline at its end, or that of the variable here; repeatable")
	fs.StringVar(&f.dir, "dir", "", "working `folder` of the tasks (default: the one here); other paths are still taken from here")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print the first commands, the splits and what the job needs, and do nothing else")
	fs.BoolVar(&f.asked.Sandbox, "sandbox", false, "the tasks' commands can write only to their temporary folder, $TMPDIR (Linux 6.2 or newer)")
	fs.BoolVar(&f.asked.NoNetwork, "no-network", false, "the tasks' commands have no network, and no sockets at all (Linux)")
	fs.IntVar(&f.retries, "retries", 3, "how many times a failed task is run again")
	fs.DurationVar(&f.retryDelay, "retry-delay", 0, "`time` before a failed task is run again, such as 30s; each further failure doubles it, up to 16 times "+
		"as long, and up to an eighth is added at random (default 100ms, up to 30s); other tasks do not wait")
	fs.StringVar(&f.asked.MaxFails, "max-fails", "", "when more than `N|P%` tasks have failed for good, the job fails at once, and what runs is stopped (default: "+
		"all tasks run, then the job fails if one has failed)")
	fs.DurationVar(&f.delay, "delay", 0, "least `time` between the starts of two tasks, such as 500ms")
	fs.IntVar(&f.asked.MaxRunning, "max-running", 0, "at most `N` tasks run at one time, on all workers together (default: as many as there are slots for)")
	fs.BoolVar(&f.asked.NoSpeculation, "no-speculation", false, "a task that takes far longer than others gets no second attempt on another worker beside the first one")
	fs.DurationVar(&f.timeout, "timeout", 0, "maximum `time` of one attempt, such as 90s or 2h (default none)")
	fs.DurationVar(&f.grace, "grace", 2*time.Second, "`time` between SIGTERM and SIGKILL when an attempt is stopped")
	fs.IntVar(&f.priority, "priority", 50, "0 to 100; higher runs first")
	fs.IntVar(&f.slotsPerTask, "slots-per-task", 1, "slots per attempt")
	fs.StringVar(&f.memory, "memory", "", "memory limit of one attempt, such as 2GiB: of a command, that of its processes; else at least 16MiB, of which half is for sorting (default: commands have "+
		"none; others sort in 128 MiB, or less on a small machine)")
	fs.StringArrayVar(&f.resources, "resource", nil, "countable things of a worker that each attempt has for itself, `NAME=N`, such as gpu=1: it gets their ids "+
		"in $B4_RESOURCE_NAME (and those of gpu in $CUDA_VISIBLE_DEVICES); repeatable")
	fs.StringArrayVar(&f.labels, "label", nil, "only workers with this label, `key=value`; repeatable")
	fs.BoolVar(&f.asked.FirstSuccess, "first-success", false, "the job is done when one task succeeds; the others are stopped")
	fs.StringArrayVar(&f.after, "after", nil, "start when these jobs of the cluster have ended, as `JOB[,JOB][:ok|any]`, each a number, 3-7, last or all (of yours that have not ended): ok, the default: they must be done, "+
		"or this job fails, until a retry of them revives it; any: however they end; repeatable")
	fs.StringArrayVar(&f.asked.Locks, "lock", nil, "named lock `NAME[:MODE]` that the job holds while it runs, exclusive or shared (exclusive); inputs and output are locked without a flag; repeatable")
	fs.StringVar(&f.onConflict, "on-conflict", "wait", "`wait|fail`: wait for other jobs that use the same data or locks, or be refused")
	fs.StringVar(&f.asked.Name, "name", "", "display name")
}

// jobFlagNames are the names of the flags that add adds.
func jobFlagNames() []string {
	var f jobFlags
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.add(fs)
	var names []string
	fs.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// request builds the job request from the flags and arguments of cmd.
func (a *app) request(cmd *cobra.Command, f *jobFlags, args []string) (*api.JobRequest, error) {
	args, lists := cutSources(args)
	if cmd.ArgsLenAtDash() > len(args) {
		return nil, usagef(cmd, "%s and its values come behind the command, as in '%s -- echo ::: a b'", lists[0], cmd.CommandPath())
	}
	args, more := a.cutInputs(cmd, f, args)
	program, err := a.parseProgram(cmd, f, args, len(more))
	if err != nil {
		return nil, err
	}
	r := new(f.asked)
	r.Program = program
	if r.Dir, err = os.Getwd(); err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	if err := a.requestInput(cmd, f, more, lists, r); err != nil {
		return nil, err
	}
	a.warnWords(r)
	a.noteStdin()
	if f.output != "" {
		r.Output = absolute(r.Dir, f.output)
	}
	for _, s := range slices.Concat(r.Inputs, r.Program.Command, []string{r.Output, r.Name, r.Program.Shell, r.Program.Placeholder, r.NameParts}, f.set, f.labels, r.Locks) {
		if !utf8.ValidString(s) {
			return nil, usagef(cmd, "%q is not valid UTF-8: pass its folder or a matching glob instead; "+
				"items of --lines may hold any bytes", s)
		}
	}
	r.After = jobsAfter(f.after)
	changed := cmd.Flags().Changed
	if r.Split, err = sizeFlag(cmd, "split", f.split, "none"); err != nil {
		return nil, err
	}
	if r.Pack, err = sizeFlag(cmd, "pack", f.pack, "none"); err != nil {
		return nil, err
	}
	if changed("records") {
		r.Records = f.records
	}
	if changed("header") && (f.csv == "" || f.header > 1) && (len(r.Inputs) > 0 || f.file != "" || !changed("concat") || !outputsHaveHeader(r)) { // else it is about the outputs only
		r.Header = &f.header
	}
	if r.Memory, err = sizeFlag(cmd, "memory", f.memory); err != nil {
		return nil, err
	}
	if err := a.requestVariables(cmd, f, r); err != nil {
		return nil, err
	}
	if f.dir != "" {
		r.Dir = absolute(r.Dir, f.dir)
	}
	if r.Labels, err = pairs(cmd, "label", f.labels); err != nil {
		return nil, err
	}
	if changed("retries") {
		r.Retries = &f.retries
	}
	if changed("priority") {
		r.Priority = &f.priority
	}
	if changed("slots-per-task") {
		r.SlotsPerTask = f.slotsPerTask
		if f.slotsPerTask < 1 {
			return nil, usagef(cmd, "--slots-per-task is %d; an attempt takes at least 1", f.slotsPerTask)
		}
	}
	return r, f.requestPace(cmd, r)
}

// checkCommandFlags refuses flags about the commands of tasks for a built-in job, which starts none. The variables of this process are for all jobs.
func (a *app) checkCommandFlags(cmd *cobra.Command, f *jobFlags) error {
	for _, name := range []string{"dir", "env-all", "nice"} {
		if a.typed[name] {
			return usagef(cmd, "--%s is about the commands of tasks, and a built-in job starts none", name)
		}
	}
	f.asked.Sandbox, f.asked.NoNetwork = f.asked.Sandbox && a.typed["sandbox"], f.asked.NoNetwork && a.typed["no-network"]
	return nil
}

// requestPace sets when the job and its tasks start, how long they may take, and what resources each needs.
func (f *jobFlags) requestPace(cmd *cobra.Command, r *api.JobRequest) (err error) {
	for _, flag := range []struct {
		name  string
		value time.Duration
		field *string
	}{
		{"timeout", f.timeout, &r.Timeout},
		{"retry-delay", f.retryDelay, &r.RetryDelay},
		{"delay", f.delay, &r.Delay},
	} {
		if *flag.field, err = timeFlag(cmd, flag.name, flag.value); err != nil {
			return err
		}
	}
	if cmd.Flags().Changed("on-conflict") {
		if r.OnConflict = f.onConflict; f.onConflict != "wait" && f.onConflict != "fail" {
			return usagef(cmd, "--on-conflict is %q: want wait or fail", f.onConflict)
		}
	}
	if cmd.Flags().Changed("grace") {
		if f.grace < 0 {
			return usagef(cmd, "--grace is %v: want a time, as 10s, or 0", f.grace)
		}
		r.Grace = f.grace.String()
	}
	needs, err := pairs(cmd, "resource", f.resources)
	for name, value := range needs {
		if err := state.CheckResourceName(name); err != nil {
			return usagef(cmd, "--resource: %v", err)
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return usagef(cmd, "--resource %s=%s: want a number, as %s=1", name, value, name)
		}
		if r.Resources == nil {
			r.Resources = map[string]int{}
		}
		r.Resources[name] = n
	}
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("max-running") && r.MaxRunning < 1 {
		return usagef(cmd, "--max-running is %d: want at least 1", r.MaxRunning)
	}
	return nil
}

// requestInput sets the input of the request: files, with those among the arguments, or lists.
func (a *app) requestInput(cmd *cobra.Command, f *jobFlags, more, lists []string, r *api.JobRequest) error {
	var typed, given []string
	for _, name := range []string{"input", "lines", "csv", "range"} {
		if cmd.Flags().Changed(name) {
			given = append(given, "--"+name)
		}
		if a.typed[name] {
			typed = append(typed, "--"+name)
		}
	}
	if len(typed) > 0 { // a flag overrides another kind of input from the environment
		given = typed
	}
	if len(given) > 1 {
		hint := ""
		if !slices.Contains(given, "--input") {
			hint = "; for combinations, add --each NAME=a,b,c or --each NAME=1-9 to one"
		}
		return usagef(cmd, "%s are mutually exclusive: a job has one kind of input%s", strings.Join(given, " and "), hint)
	}
	if a.typed["split"] && f.file == "" && !slices.Contains(given, "--input") {
		return usagef(cmd, "--split is for the files of --input; each item of a list is a task")
	}
	if a.typed["pack"] && f.file == "" && !slices.Contains(given, "--input") {
		return usagef(cmd, "--pack is for the files of --input; --batch N gives a task N items of a list")
	}
	if !slices.Contains(given, "--input") {
		return a.requestItems(cmd, f, strings.Join(given, ""), lists, r)
	}
	for _, name := range []string{"each", "shuf", "limit", "batch", "null", "sep"} {
		if a.typed[name] {
			return usagef(cmd, "--%s is for lists, and --input gives files; --lines FILE makes a task of each line", name)
		}
	}
	if len(lists) > 0 {
		return usagef(cmd, "%s is a list, and --input gives files: a job has one kind of input", lists[0])
	}
	r.Shuffle, r.Limit, r.Batch = false, 0, 0 // the environment may set them, for lists
	for _, in := range append(slices.Clip(f.inputs), more...) {
		switch {
		case in == "":
			return usagef(cmd, "--input is empty: want a file, a folder or a glob")
		case in == "-" && (a.stdinRead || f.dryRun):
			return usagef(cmd, "--input -: standard input is read once, by the job")
		case in == "-":
			a.stdinRead = true
			r.Inputs = append(r.Inputs, in)
			continue
		}
		r.Inputs = append(r.Inputs, absoluteInput(r.Dir, in))
	}
	return nil
}

// cutInputs separates the arguments from paths before them, which a shell has made of a glob: --input *.csv -- cmd.
func (a *app) cutInputs(cmd *cobra.Command, f *jobFlags, args []string) (rest, inputs []string) {
	end := cmd.ArgsLenAtDash()
	begin := 0
	if end < 0 { // a built-in job, before or after them
		if end = len(args); end > 1 && slices.Contains(a.builtinNames(), args[0]) {
			begin = 1
		} else if end > 1 && slices.Contains(a.builtinNames(), args[end-1]) {
			end--
		}
	}
	inputs = args[begin:end]
	if !a.typed["input"] || slices.ContainsFunc(inputs, func(path string) bool { return !exists(path) }) || end-begin == len(args) && f.asked.Program.Shell == "" {
		return args, nil
	}
	return slices.Concat(args[:begin], args[end:]), inputs
}

// keepLines copies lines to a temporary file, which has no name, so that nothing is left of it when the process ends.
func (a *app) keepLines(lines io.Reader) (size int64, err error) {
	if a.lines, err = os.CreateTemp("", "bridgefour-lines-"); err != nil {
		return 0, err
	}
	if err := os.Remove(a.lines.Name()); err != nil {
		return 0, err
	}
	return io.Copy(a.lines, lines)
}

// submit submits a request, with the lines in the temporary file if there is one.
func (a *app) submit(ctx context.Context, c *client.Client, r *api.JobRequest, key string) (api.Job, error) {
	if a.lines == nil {
		return c.Submit(ctx, r, key)
	}
	defer a.lines.Close() //nolint:errcheck // it has no name: nothing is kept
	info, err := a.lines.Stat()
	if err != nil {
		return api.Job{}, err
	}
	return c.SubmitLines(ctx, r, a.lines, info.Size(), key)
}

// jobsAfter returns the values of --after, one for each job.
func jobsAfter(flags []string) (list []string) {
	for _, flag := range flags {
		jobs, how, typed := strings.Cut(flag, ":")
		for job := range strings.SplitSeq(jobs, ",") {
			if typed {
				job += ":" + how
			}
			list = append(list, strings.TrimSpace(job))
		}
	}
	return list
}

// requestVariables sets what the tasks' programs get beside their input.
func (a *app) requestVariables(cmd *cobra.Command, f *jobFlags, r *api.JobRequest) (err error) {
	if r.Set, err = pairs(cmd, "set", f.set); err != nil {
		return err
	}
	if r.Env, err = a.variables(cmd, f.env); err != nil {
		return err
	}
	r.Secrets, err = a.secrets(cmd, f.secrets)
	return err
}

// variables are the variables of --env.
func (a *app) variables(cmd *cobra.Command, given []string) (map[string]string, error) {
	env := make(map[string]string, len(given))
	for _, v := range given {
		name, value, typed := strings.Cut(v, "=")
		if !typed {
			var set bool
			if value, set = a.env(name); !set {
				return nil, usagef(cmd, "--env %s: the variable is not set here; give its value, as --env %s=VALUE", name, name)
			}
		}
		if !utf8.ValidString(name + value) {
			return nil, usagef(cmd, "--env %s: the variable is not valid UTF-8", printable(name))
		}
		env[name] = value
	}
	return env, nil
}

// secrets are the variables of --secret. Errors do not quote values, which may be typed where a file should be.
func (a *app) secrets(cmd *cobra.Command, given []string) (map[string]string, error) {
	secrets := make(map[string]string, len(given))
	for _, v := range given {
		name, file, from := strings.Cut(v, "=")
		file, isFile := strings.CutPrefix(file, "@")
		value, set := a.env(name)
		switch {
		case from && !isFile:
			return nil, usagef(cmd, "--secret %s: want NAME or NAME=@FILE: other users of this machine can see what is typed here", printable(name))
		case isFile:
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, usagef(cmd, "--secret %s: %v", printable(name), err)
			}
			value = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
		case !set:
			return nil, usagef(cmd, "--secret %s: the variable is not set here; set it, or name a file, as --secret %s=@FILE", name, name)
		}
		if !utf8.ValidString(name + value) {
			return nil, usagef(cmd, "--secret %s: the value is not valid UTF-8", printable(name))
		}
		secrets[name] = value
	}
	return secrets, nil
}

// local are variables that describe this machine or session.
var local = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"} //nolint:gochecknoglobals // a constant

// passAll completes a request for a cluster: with --env-all, it adds all variables of this process to those that the request names, except local ones and the engine's own.
func (f *jobFlags) passAll(cmd *cobra.Command, r *api.JobRequest) error {
	if slices.Contains(r.Inputs, "-") {
		return usagef(cmd, "--input -: the workers of a cluster cannot read the standard input here; put it into a file that they can read, or make a task of each line (--lines -)")
	}
	if !f.envAll {
		warnVariables(cmd, r)
		return nil
	}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		if slices.Contains(local, name) || strings.HasPrefix(name, "B4_") || strings.HasPrefix(name, "BRIDGEFOUR_") {
			continue
		}
		if !utf8.ValidString(v) {
			return usagef(cmd, "--env-all: variable %s is not valid UTF-8: unset it, or name those that are needed with --env", printable(name))
		}
		_, given := r.Env[name]
		if _, secret := r.Secrets[name]; !given && !secret {
			r.Env[name] = value
		}
	}
	return nil
}

// parseProgram parses NAME, -- CMD ARG… or --shell. So many arguments were inputs, and are not in args.
func (a *app) parseProgram(cmd *cobra.Command, f *jobFlags, args []string, inputs int) (api.Program, error) {
	p := f.asked.Program
	dash := cmd.ArgsLenAtDash() - inputs
	switch {
	case p.Shell != "" && len(args) > 0:
		return p, usagef(cmd, "both --shell and %q are given; a job runs one of them", args[0])
	case p.Shell != "":
		return p, nil
	case dash > 0:
		return p, usagef(cmd, "both a built-in job (%q) and a command after -- are given; a job runs one of them", args[0])
	case dash == 0 && len(args) == 0:
		return p, usagef(cmd, "no command after --")
	case dash == 0:
		p.Command = args
		return p, checkCommand(cmd, args[0])
	case len(args) == 0 && f.file != "":
		return p, nil
	case len(args) == 0:
		return p, usagef(cmd, "no program given: name a built-in job (%s), or put -- before a command", strings.Join(a.builtinNames(), ", "))
	case len(args) > 1:
		return p, usagef(cmd, "unexpected argument %q after the built-in job %q; put -- before a command, as in '%s -- %s'",
			args[1], args[0], cmd.CommandPath(), strings.Join(args, " "))
	}
	p.Builtin = args[0]
	return p, a.checkCommandFlags(cmd, f)
}

// checkBuiltin refuses a built-in job that this binary does not have.
func (a *app) checkBuiltin(cmd *cobra.Command, p api.Program) error {
	if p.Builtin == "" {
		return nil
	}
	if _, ok := jobs.Find(a.jobs, p.Builtin); ok {
		return nil
	}
	names := a.builtinNames()
	return usagef(cmd, "unknown built-in job %q%s; known: %s. Put -- before a command, as in '%s -- %s'",
		p.Builtin, didYouMean(p.Builtin, names), strings.Join(names, ", "), cmd.CommandPath(), p.Builtin)
}

func (a *app) builtinNames() []string {
	var names []string
	for _, job := range a.jobs {
		names = append(names, job.Name())
	}
	return names
}

// pairs parses key=value flags.
func pairs(cmd *cobra.Command, flag string, values []string) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(values))
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok || key == "" {
			return nil, usagef(cmd, "--%s %q: want KEY=VALUE", flag, v)
		}
		out[key] = value
	}
	return out, nil
}

// sizeFlag checks a size flag; it is sent to the cluster only if set. words are accepted beside sizes.
func sizeFlag(cmd *cobra.Command, flag, value string, words ...string) (string, error) {
	if !cmd.Flags().Changed(flag) {
		return "", nil
	}
	if slices.Contains(words, value) {
		return value, nil
	}
	if _, err := bytesize.Parse(value); err != nil {
		also := ""
		if len(words) > 0 {
			also = ", or " + strings.Join(words, ", ")
		}
		return "", usagef(cmd, "--%s: %v%s", flag, err, also)
	}
	return value, nil
}

// timeFlag checks a flag for a time; it is sent to the cluster only if set.
func timeFlag(cmd *cobra.Command, flag string, value time.Duration) (string, error) {
	if !cmd.Flags().Changed(flag) {
		return "", nil
	}
	if value <= 0 {
		return "", usagef(cmd, "--%s is %v: want a time above 0, as 90s or 2h", flag, value)
	}
	return value.String(), nil
}

// absolute resolves path against dir. URLs are returned unchanged.
func absolute(dir, path string) string {
	if strings.Contains(path, "://") {
		return path
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// absoluteInput is absolute for a path that may be a glob: special characters in dir are escaped.
func absoluteInput(dir, path string) string {
	if _, err := os.Lstat(path); err != nil && strings.ContainsAny(path, `*?[{}\`) && !filepath.IsAbs(path) {
		dir = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `{`, `\{`, `}`, `\}`).Replace(dir)
	}
	return absolute(dir, path)
}
