package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

// selectorsHelp describes selectors in the help of commands.
const selectorsHelp = `N is a job's number, a range such as 3-7, "last" (your newest job) or "all" (of yours), or several of them: 1,4 or 1 4. If there are
several jobs, the exit code is that of the worst.`

// selector names jobs, or the task of that name in each of them.
type selector struct {
	text     string // for messages
	from, to uint64 // jobs; of last and all, from is 0
	last     bool
	stage    string // empty: the jobs themselves
	index    uint64
}

// subject is a job (N) or a task (N/STAGE/INDEX).
type subject struct {
	job   uint64
	stage string // empty: the job
	index uint64
	of    int // so many of the command
}

// parse parses the arguments of a command.
func (s scope) parse(cmd *cobra.Command, args []string) ([]selector, error) {
	var list []selector
	for _, arg := range args {
		for text := range strings.SplitSeq(arg, ",") {
			one, err := s.parseOne(cmd, text)
			if err != nil {
				return nil, err
			}
			list = append(list, one)
		}
	}
	return list, nil
}

func (s scope) parseOne(cmd *cobra.Command, text string) (of selector, err error) {
	jobs, task, isTask := strings.Cut(text, "/")
	of.text = jobs
	if isTask {
		stage, index, _ := strings.Cut(task, "/")
		of.stage = stage
		of.index, err = strconv.ParseUint(index, 10, 64)
		switch {
		case !s.tasks:
			return of, usagef(cmd, "invalid job number %q: %s is about whole jobs", text, commandName(cmd))
		case err != nil || stage == "":
			return of, usagef(cmd, "invalid task %q: want JOB/STAGE/INDEX, such as 12/map/7", text)
		}
	}
	switch jobs {
	case "last":
		of.last = true
		return of, nil
	case "all":
		of.to = math.MaxUint64
		return of, nil
	}
	first, last, isRange := strings.Cut(jobs, "-")
	if of.from, err = strconv.ParseUint(first, 10, 64); err == nil {
		of.to = of.from
		if isRange {
			of.to, err = strconv.ParseUint(last, 10, 64)
		}
	}
	switch {
	case err != nil || of.from == 0:
		return of, usagef(cmd, `invalid job number %q: want a number, a range such as 3-7, last or all%s`, jobs, didYouMean(jobs, []string{"last", "all"}))
	case of.from > of.to:
		return of, usagef(cmd, "the range %s is empty", jobs)
	}
	return of, nil
}

// resolve returns the subjects that the selectors name, each once, and what "all" leaves out.
func (s scope) resolve(ctx context.Context, c *client.Client, selectors []selector) (list []subject, left []string, err error) {
	seen := map[subject]bool{}
	for i := range selectors {
		of := &selectors[i]
		jobs := []uint64{of.from} // if there is no such job, that is for the command to find
		if of.from != of.to || of.from == 0 {
			var more []string
			if jobs, more, err = s.list(ctx, c, of); err != nil {
				return nil, nil, err
			}
			left = append(left, more...)
		}
		for _, id := range jobs {
			if found := (subject{job: id, stage: of.stage, index: of.index}); !seen[found] {
				seen[found] = true
				list = append(list, found)
			}
		}
	}
	for i := range list {
		list[i].of = len(list)
	}
	return list, left, nil
}

// list returns the jobs of a selector that is not a single number, in ascending order, and those that it leaves out. last and all are about
// those of the user.
func (s scope) list(ctx context.Context, c *client.Client, of *selector) (ids []uint64, left []string, err error) {
	q := api.JobQuery{Limit: api.JobLimitMax}
	if of.from == 0 {
		who, err := c.Identity(ctx)
		if err != nil {
			return nil, nil, err
		}
		q.User = who.User
		if !of.last && s.leaves == nil {
			q.Status = s.all
		}
	}
	for job, err := range c.Jobs(ctx, q) {
		if err != nil {
			return nil, nil, err
		}
		if of.from == 0 && !of.last && s.leaves != nil {
			if why := s.leaves(&job); why != "" {
				left = append(left, fmt.Sprintf("job %d (%s)", job.ID, why))
				continue
			}
		}
		if job.ID < of.from || of.last && len(ids) == 1 {
			break
		}
		if job.ID <= of.to || of.last {
			ids = append(ids, job.ID)
		}
	}
	if len(ids) == 0 && (of.last || of.from > 0) {
		return nil, nil, api.NotFound("there is no job %s: 'bridgefour jobs' lists them", of.text)
	}
	slices.Reverse(ids)
	slices.Reverse(left)
	return ids, left, nil
}

// afterScope is what --after may name.
var afterScope = scope{all: liveStatuses()} //nolint:gochecknoglobals // a constant

// after parses the jobs that a request comes after.
func (a *app) after(cmd *cobra.Command, r *api.JobRequest) (selectors []selector, how []string, err error) {
	for i, text := range r.After {
		job, suffix, typed := strings.Cut(text, ":")
		of, err := afterScope.parseOne(cmd, job)
		if err == nil && typed && suffix != "ok" && suffix != "any" {
			err = usagef(cmd, "%q: want %[2]s:ok, which must be done, or %[2]s:any, however it ends", text, job)
		}
		if err != nil {
			return nil, nil, usagef(cmd, "%s: %v", a.fieldName(fmt.Sprintf("body.after[%d]", i)), err)
		}
		selectors, how = append(selectors, of), append(how, strings.TrimPrefix(text, job))
	}
	return selectors, how, nil
}

// resolveAfter replaces the selectors among the jobs that a request comes after by their jobs.
func (a *app) resolveAfter(cmd *cobra.Command, c *client.Client, r *api.JobRequest) error {
	selectors, how, err := a.after(cmd, r)
	if err != nil {
		return err
	}
	r.After = nil
	for i := range selectors {
		list, _, err := afterScope.resolve(cmd.Context(), c, selectors[i:i+1])
		if err != nil {
			return orInterrupted(cmd.Context(), err)
		}
		for _, s := range list {
			r.After = append(r.After, strconv.FormatUint(s.job, 10)+how[i])
		}
	}
	return nil
}

// scope is what the arguments of a command may name.
type scope struct {
	tasks bool     // N/STAGE/INDEX too
	all   []string // statuses of the jobs that "all" stands for; none: any
	// leaves says why "all" does not stand for a job, which the user is told; empty: it does. Nil: all of these statuses, and no others.
	leaves func(*api.Job) string
}

// args implements cobra.PositionalArgs: it accepts any number of selectors, but none that is empty.
func (s scope) args(cmd *cobra.Command, args []string) error {
	what := "a job's number"
	if s.tasks {
		what = "a job's number or a task's name"
	}
	switch {
	case len(args) == 0:
		return usagef(cmd, "%s: missing argument: want %s", commandName(cmd), what)
	case slices.Contains(args, ""):
		return usagef(cmd, "%s: missing argument: want %s; the one given is empty; is a variable unset?", commandName(cmd), what)
	}
	_, err := s.parse(cmd, args)
	return err
}

// subjects returns what the arguments of cmd name. It says which jobs "all" leaves out.
func (a *app) subjects(ctx context.Context, cmd *cobra.Command, s scope, args []string, c *client.Client) ([]subject, error) {
	selectors, err := s.parse(cmd, args)
	if err != nil {
		return nil, err
	}
	list, left, err := s.resolve(ctx, c, selectors)
	if err != nil {
		return nil, orInterrupted(ctx, err)
	}
	switch {
	case len(left) > 0:
		a.stderr.Printf("left out: %s", someOf(left))
	case len(list) == 0:
		a.stderr.Printf("no such jobs")
	}
	return list, nil
}

// each calls do with each subject that the arguments of cmd name. If there are several, it prints their errors, and returns one that has the
// code of the worst.
func (a *app) each(ctx context.Context, cmd *cobra.Command, s scope, args []string, c *client.Client, do func(subject) error) error {
	list, err := a.subjects(ctx, cmd, s, args, c)
	if err != nil {
		return err
	}
	worst := exitDone
	for _, subject := range list {
		err := do(subject)
		switch {
		case err == nil:
			continue
		case len(list) == 1 || ctx.Err() != nil || errors.Is(err, client.ErrUnreachable) || readerLeft(err):
			return orInterrupted(ctx, err)
		}
		worst = worse(worst, a.report(err))
	}
	if worst == exitDone {
		return nil
	}
	return &exitError{code: worst}
}

// worse is the worse one of two exit codes.
func worse(a, b int) int {
	order := []int{exitDone, exitPartial, exitStopped, exitFailed}
	rank := func(code int) int {
		if i := slices.Index(order, code); i >= 0 {
			return i
		}
		return len(order) // the command could not do what it was asked for
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// namedMax is how many of what may be many are named.
const namedMax = 10

// someOf names a few of what may be many.
func someOf(list []string) string {
	text := strings.Join(list[:min(len(list), namedMax)], ", ")
	if more := len(list) - namedMax; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
