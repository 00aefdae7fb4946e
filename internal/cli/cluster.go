package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/state"
)

func (a *app) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Show the cluster's health", Args: noArgs, Example: "  bridgefour cluster\n  bridgefour cluster --json"}
	return readCommand(a, cmd, client.ClusterPath, (*client.Client).Cluster, a.printCluster)
}

func (a *app) statusCommand() *cobra.Command {
	var r readFlags
	jobs := scope{}
	cmd := &cobra.Command{
		Use: "status [N]", Short: "Show the cluster's health, as 'cluster' does, or jobs, as 'job' does",
		Example: "  bridgefour status\n  bridgefour status last",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return jobs.args(cmd, args)
		},
		ValidArgsFunction: a.completeJobs(jobs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return read(a, cmd, r, client.ClusterPath, (*client.Client).Cluster, a.printCluster)
			}
			return a.showJobs(cmd, args, jobs, r)
		},
	}
	r.add(cmd)
	return cmd
}

func (a *app) printCluster(cluster api.Cluster) error {
	t := newTable(a.stdout)
	t.row("cluster", cluster.ID)
	t.row("status", cluster.Status)
	if cluster.NotReady != "" {
		t.row("not ready", printableLines(cluster.NotReady))
	}
	if cluster.Insecure != "" {
		t.row("access", printableLines(cluster.Insecure))
	}
	t.row("version", fmt.Sprintf("%s (feature level %d)", cluster.Version, cluster.Level))
	t.row("leader", leaderText(&cluster))
	t.row("workers", fmt.Sprintf("%d alive, %d dead", cluster.Workers, cluster.Dead))
	t.row("slots", fmt.Sprintf("%d, %d free", cluster.Slots, cluster.Free))
	t.row("jobs", fmt.Sprintf("%d not over", cluster.Jobs))
	t.row("kept jobs", keptText(&cluster.Kept, time.Now()))
	t.row("spool", printable(cluster.Spool))
	return t.flush()
}

func leaderText(c *api.Cluster) string {
	role := "unknown"
	if c.Leader != 0 {
		role = fmt.Sprintf("%d of %d", c.Leader, c.Leaders)
	}
	text := fmt.Sprintf("%s (term %d, log position %d)", role, c.Term, c.Index)
	if c.Node != c.Leader {
		text += fmt.Sprintf("; answered by leader %d", c.Node)
	}
	return text
}

func (a *app) workersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "workers", Short: "List the workers; 'workers drain W' and 'workers remove W' remove one", Args: a.unknownCommand,
		Example: "  bridgefour workers\n  bridgefour workers drain 3",
	}
	cmd.AddCommand(a.drainCommand(), a.removeCommand())
	return readCommand(a, cmd, client.WorkersPath, (*client.Client).Workers, a.printWorkers)
}

func (a *app) printWorkers(workers []api.Worker) error {
	if len(workers) == 0 {
		a.stderr.Printf("no workers; 'bridgefour worker' starts one")
		return nil
	}
	now := time.Now()
	t := newTable(a.stdout, "WORKER", "STATUS", "SLOTS", "BUSY", "QUEUED", "MEMORY", "RESOURCES", "HOST", "ADDRESS", "CONFINEMENT", "LABELS", "VERSION", "SEEN")
	for _, w := range workers {
		status := w.Status
		if w.Aside {
			status += ", quarantined: " + cmp.Or(w.Cause, "failing") // older leaders send no cause
		}
		memory := "-"
		if w.Memory > 0 {
			memory = bytesText(w.Memory)
		}
		var resources []string
		for _, r := range w.Resources {
			resources = append(resources, fmt.Sprintf("%s %d/%d", r.Name, r.Used, r.Total))
		}
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(w.Labels)) {
			if !strings.HasPrefix(k, state.LabelJob) { // there may be many, and LabelJobs begins with them
				labels = append(labels, k+"="+w.Labels[k])
			}
		}
		t.row(strconv.FormatUint(w.ID, 10), status, strconv.Itoa(int(w.Slots)), strconv.Itoa(int(w.Busy)), strconv.Itoa(int(w.Queued)),
			memory, orDash(strings.Join(resources, ", ")), orDash(w.Host), orDash(w.Address), orDash(strings.Join(w.Confinement, ", ")), orDash(strings.Join(labels, ",")), orDash(w.Version), ageText(w.Seen, now))
	}
	return t.flush()
}

func (a *app) drainCommand() *cobra.Command {
	var r readFlags
	cmd := &cobra.Command{
		Use: "drain W", Short: "Let a worker finish its attempts and leave", Args: oneArg("a worker's number"),
		Example: "  bridgefour workers drain 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := a.numbered(cmd, "worker", args, r.cluster)
			if err != nil {
				return err
			}
			w, err := c.DrainWorker(cmd.Context(), id)
			return a.answer(cmd.Context(), err, w, r.json, "worker %d is draining: it finishes %d running attempts, takes no more, and leaves\n", w.ID, w.Busy)
		},
	}
	r.add(cmd)
	return cmd
}

func (a *app) removeCommand() *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use: "remove W", Short: "Remove a worker; its attempts are run on other workers", Args: oneArg("a worker's number"),
		Long: `Remove a worker. A live one stops its attempts and ends; they are run on other workers. The removal of a lost one says that its machine is gone: locks
of jobs that had attempts there are free at once. Remove no lost worker that may still run.`,
		Example: "  bridgefour workers remove 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := a.numbered(cmd, "worker", args, cluster)
			if err != nil {
				return err
			}
			w, _ := c.Worker(cmd.Context(), id) // for the note alone
			if err := c.RemoveWorker(cmd.Context(), id); err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			a.noteToken(w.Token)
			_, err = fmt.Fprintf(a.stdout, "worker %d removed\n", id)
			return err
		},
	}
	addCluster(cmd, &cluster)
	return cmd
}

// noteToken says how to keep other machines from joining as one that was removed did. token is empty if they cannot.
func (a *app) noteToken(token string) {
	if token != "" {
		a.stderr.Printf("it had joined by token %s, by which other machines can still join: 'bridgefour token revoke %[1]s' ends that", token)
	}
}
