package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/worker"
	"github.com/bridgefour/bridgefour/jobs"
)

// faults is how many faults the rows with faults measure.
const faults = 30

// accepts sends writes to a leader, which forwards them to the one that leads, until one is accepted.
func (s server) accepts() error {
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	s.ctx = ctx
	for {
		if _, err := s.submitRange(1); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func spread(d []time.Duration) string {
	return fmt.Sprintf("median %v, p99 %v (%d)", median(d).Round(time.Millisecond), percentile(d, 99).Round(time.Millisecond), len(d))
}

// failover measures the time from kill -9 of the leader to the first write that another one accepts.
func (c *cluster) failover() (string, error) {
	times, err := repeat(faults, func() (took time.Duration, err error) {
		old, err := c.leading()
		if err != nil {
			return 0, err
		}
		start := time.Now()
		kill(c.procs[old])
		err = c.at((old + 1) % 3).accepts()
		return time.Since(start), errors.Join(err, c.start(old))
	})
	return spread(times), err
}

// detect measures the time from kill -9 of a worker until it is considered dead.
func (c *cluster) detect() (string, error) {
	times, err := repeat(faults, func() (time.Duration, error) {
		w, err := c.startWorker("--leader", c.addrs[0])
		if err == nil {
			err = c.until(func(h *api.Cluster) bool { return h.Workers > 0 })
		}
		start := time.Now()
		kill(w)
		if err == nil {
			err = c.until(func(h *api.Cluster) bool { return h.Workers == 0 })
		}
		return time.Since(start), err
	})
	return spread(times), err
}

// three runs the no-op job on one leader and on three, alternating.
func (c *cluster) three() (string, error) {
	one, err := c.b.startCluster(1, 1, loopback)
	if err != nil {
		return "", err
	}
	defer one.stop()
	return c.b.againstPlain(func() (time.Duration, error) {
		leading, err := c.leading()
		if err == nil {
			err = c.at(leading).until(func(h *api.Cluster) bool { return h.Workers > 0 })
		}
		if err != nil {
			return 0, err
		}
		return c.at(leading).timeNoop()
	}, one.timeNoop)
}

// stale measures stale reads of a job's status at a follower while a million tasks run.
func (c *cluster) stale() (string, error) {
	leading, err := c.leading()
	if err != nil {
		return "", err
	}
	c.server = c.at(leading)
	return c.readAt(c.at((leading + 1) % 3))
}

// crew is many workers in this process, so that the cost of the leaders, which are processes of their own, is measured alone.
type crew struct {
	stop context.CancelCauseFunc
	done sync.WaitGroup
}

func (c *cluster) startCrew(n, slots int) (*crew, error) {
	ctx, stop := context.WithCancelCause(c.b.ctx)
	all := &crew{stop: stop}
	for range n {
		dir, err := os.MkdirTemp(c.dir, "crew-")
		if err != nil {
			all.leave()
			return nil, err
		}
		w, err := worker.New(worker.Config{DataDir: dir, Leaders: c.addrs, Slots: slots, Version: "bench", Jobs: jobs.All()})
		if err != nil {
			all.leave()
			return nil, err
		}
		all.done.Go(func() {
			_ = w.Run(ctx) // it ends with the crew
			_ = w.Close()
		})
	}
	return all, nil
}

func (c *crew) leave() {
	c.stop(worker.ErrStopNow)
	c.done.Wait()
}

// reattach measures the time from the first write that a new leader accepts until it has adopted 800 running attempts of 100 workers.
func (c *cluster) reattach() (string, error) {
	const workers, slots = 100, 8
	all, err := c.startCrew(workers, slots)
	if err != nil {
		return "", err
	}
	defer all.leave()
	job, err := c.sleepers(workers * slots)
	if err != nil {
		return "", err
	}
	running := func(h *api.Cluster) bool { return int(h.Slots-h.Free) == workers*slots }
	times, err := repeat(faults, func() (time.Duration, error) {
		old, err := c.leading()
		if err == nil {
			err = c.at(old).until(running)
		}
		if err != nil {
			return 0, err
		}
		kill(c.procs[old])
		next := c.at((old + 1) % 3)
		err = next.accepts()
		start := time.Now()
		if err == nil {
			err = next.until(running)
		}
		return time.Since(start), errors.Join(err, c.start(old))
	})
	if err != nil {
		return "", err
	}
	leading, err := c.leading()
	if err == nil {
		err = c.at(leading).get(jobPath(&job), &job)
	}
	return fmt.Sprintf("%s; attempts run again: %d", spread(times), job.Stages[0].Retried), err
}

// sleepers submits a job whose tasks, one per file, sleep longer than the bench takes.
func (c *cluster) sleepers(n int) (job api.Job, err error) {
	dir := filepath.Join(c.dir, "sleepers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return job, err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d", i)), []byte("word\n"), 0o644); err != nil { //nolint:gosec // not secret
			return job, err
		}
	}
	leading, err := c.leading()
	if err != nil {
		return job, err
	}
	return c.at(leading).submit(fmt.Sprintf(`{"program":{"builtin":"DelayedWordCount"},"inputs":[%q],"output":%q,"set":{"timeout":"3600"}}`, dir, filepath.Join(c.dir, "slept")))
}

// idleWorkers measures the share of a core that a leader needs for a thousand idle workers.
func (c *cluster) idleWorkers() (string, error) {
	const workers = 1000
	all, err := c.startCrew(workers, 1)
	if err != nil {
		return "", err
	}
	defer all.leave()
	if err := c.until(func(h *api.Cluster) bool { return h.Workers == workers }); err != nil {
		return "", err
	}
	const span = 20 * time.Second
	time.Sleep(3 * time.Second)
	pid, start := c.procs[0].Process.Pid, time.Now()
	before, err := cpuTime(pid)
	time.Sleep(span)
	after, afterErr := cpuTime(pid)
	return fmt.Sprintf("%.1f %% of a core", 100*(after-before).Seconds()/time.Since(start).Seconds()), errors.Join(err, afterErr)
}
