package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/view"
)

func (a *app) locksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "locks", Short: "List the locks, their holders and who waits; 'locks release NAME' takes one away",
		Long: `List what is locked: the data of jobs, then the names that users have chosen, with the holders and, in their order, those that wait. EXPIRES is when a lock
ends that its client no longer renews; a job holds its locks until it has ended.`,
		Args: a.unknownCommand,
	}
	cmd.AddCommand(a.releaseLockCommand())
	return readCommand(a, cmd, client.LocksPath, listLocks, a.printLocks)
}

// listLocks returns all pages.
func listLocks(c *client.Client, ctx context.Context) (locks []api.Lock, err error) { //nolint:revive // as a method expression of the client
	for lock, err := range c.Locks(ctx) {
		if err != nil {
			return nil, err
		}
		locks = append(locks, lock)
	}
	return locks, nil
}

func (a *app) printLocks(locks []api.Lock) error {
	if len(locks) == 0 {
		a.stderr.Printf("nothing is locked")
		return nil
	}
	now := time.Now()
	t := newTable(a.stdout, "LOCK", "STATUS", "HOLDER", "USER", "MODE", "SINCE", "EXPIRES", "FENCE", "NOTE")
	for i := range locks {
		for _, h := range locks[i].Holders {
			t.lockRow(&locks[i], &h, "held", now)
		}
		for _, h := range locks[i].Waiting {
			t.lockRow(&locks[i], &h, "waits", now)
		}
	}
	return t.flush()
}

func (t *table) lockRow(lock *api.Lock, h *api.LockHolder, status string, now time.Time) {
	fence, expires, mode := "-", "-", h.Mode
	if h.Fence > 0 {
		fence = strconv.FormatUint(h.Fence, 10)
	}
	if h.ExpiresInMillis > 0 {
		expires = durationText(time.Duration(h.ExpiresInMillis) * time.Millisecond) //nolint:gosec // at most an hour
	}
	if h.Max > 1 {
		mode = fmt.Sprintf("one of %d", h.Max)
	}
	t.row(printable(lock.Name), status, holderText(h), orDash(printable(h.User)), mode, ageText(h.Since, now), expires, fence, printable(h.Note))
}

func (a *app) releaseLockCommand() *cobra.Command {
	var cluster, holder string
	cmd := &cobra.Command{
		Use: "release NAME", Short: "Take a lock away from its holder, or a waiting request out of the queue", Args: oneArg("the name of a lock"),
		Long: `Take a lock away from its holder, or a waiting request out of the queue, with the other names of the same request. Users may do this to their own
requests, operators to those of all; it is recorded. The holder finds out at its next renewal and may still write until then: this is for holders that
are known to be gone.`,
		Example: "  bridgefour locks release nightly-export --holder db1/4242/k3J2x",
		RunE: func(cmd *cobra.Command, args []string) error {
			if holder == "" {
				return usagef(cmd, "no holder given: name it with --holder; 'bridgefour locks' lists them")
			}
			c, err := a.connect(cluster, 0)
			if err != nil {
				return err
			}
			if err := a.releaseLock(cmd.Context(), c, args[0], holder); err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&holder, "holder", "", "`name` of the holder, as it is listed")
	addCluster(cmd, &cluster)
	return cmd
}

// releaseLock ends the request of a holder for a name, and prints which it was. The DELETE succeeds also if there is none, which is an error of a name that was typed.
func (a *app) releaseLock(ctx context.Context, c *client.Client, name, holder string) error {
	lock, err := c.LockHolders(ctx, name)
	if err != nil {
		return err
	}
	all := slices.Concat(lock.Holders, lock.Waiting)
	at := slices.IndexFunc(all, func(h api.LockHolder) bool { return h.Job == 0 && h.Name == "" && h.Holder == holder })
	if at < 0 {
		return notReleased(&lock, all, holder)
	}
	if err := c.ReleaseLock(ctx, name, holder); err != nil {
		return err
	}
	if h := &all[at]; h.Fence == 0 {
		_, err = fmt.Fprintf(a.stdout, "%s no longer waited for by %s\n", printable(name), printable(holder))
	} else {
		_, err = fmt.Fprintf(a.stdout, "%s released by %s, which held it for %s with fence %d\n", printable(name), printable(holder),
			durationText(max(0, time.Since(h.Since)).Round(time.Second)), h.Fence)
	}
	return err
}

// notReleased says why a holder has no request for a name that could be ended.
func notReleased(lock *api.Lock, all []api.LockHolder, holder string) error {
	var job uint64
	if n, err := fmt.Sscanf(holder, "job %d", &job); n == 1 && err == nil && holder == fmt.Sprintf("job %d", job) {
		if at := slices.IndexFunc(all, func(h api.LockHolder) bool { return h.Job == job && h.Ended }); at >= 0 {
			text, advice := view.EndedHolder(&all[at])
			if slices.ContainsFunc(all[at].Workers, func(w api.LockWorker) bool { return w.Status == api.LockWorkerStopping }) {
				advice = cmp.Or(advice, "'bridgefour workers remove' gives up a worker that does not stop them")
			}
			if advice != "" {
				text += "; " + advice
			}
			return api.NotFound("nothing is released: job %d has ended, and has its locks until its last attempts have: %s", job, text)
		}
		return api.NotFound("nothing is released: a job has its locks until it has ended and its last attempts are stopped; 'bridgefour stop %d' stops it, and 'bridgefour explain %d' says what an end waits for", job, job)
	}
	const few = 3
	var others []string
	for i := range all[:min(few, len(all))] {
		text := holderText(&all[i])
		if all[i].Name != "" {
			text += " (as " + printable(all[i].Name) + ")"
		}
		others = append(others, text)
	}
	if more := len(all) - few; more > 0 {
		others = append(others, fmt.Sprintf("%d more", more))
	}
	text := "it is free"
	if len(all) > 0 {
		text = "it is held or waited for by " + strings.Join(others, ", ")
	}
	return api.NotFound("nothing is released: %s is not held or waited for by %s; %s ('bridgefour locks' lists holders)", printable(lock.Name), printable(holder), text)
}
