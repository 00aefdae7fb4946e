package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// lockClients is the number of clients of the rows with several.
const lockClients = 64

// kept keeps the connections of many clients.
func kept(clients int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: clients, MaxIdleConnsPerHost: clients}}
}

// acquire locks a name, and waits for it if need be.
func (s server) acquire(c *http.Client, name, holder string) error {
	return s.do(c, http.MethodPut, "/v1/locks/"+name, fmt.Sprintf(`{"holder":%q,"wait_ms":60000}`, holder), &api.LockGrant{})
}

func (s server) release(c *http.Client, name, holder string) error {
	return s.send(c, http.MethodDelete, "/v1/locks/"+name+"?holder="+holder, "")
}

// write is a write that is logged, and changes nothing.
func (s server) write(c *http.Client, user string) error {
	return s.do(c, http.MethodPut, "/v1/retention/"+user, `{"keep_jobs":5}`, &api.Retention{})
}

// lock compares the durations of an acquire of a free lock and of another write, of one client, in turn.
func (c *cluster) lock() (string, error) {
	client := kept(1)
	var times [2][]time.Duration
	for range 1000 {
		for i, measure := range []func() error{
			func() error { return c.acquire(client, "free", "one") },
			func() error { return c.write(client, "one") },
		} {
			start := time.Now()
			if err := measure(); err != nil {
				return "", err
			}
			times[i] = append(times[i], time.Since(start))
		}
		if err := c.release(client, "free", "one"); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("p50 %v; another write %v: %.2f", median(times[0]), median(times[1]), float64(median(times[0]))/float64(median(times[1]))), nil
}

// together lets clients repeat something for a second, and returns the rate.
func together(clients int, do func(client int) error) (perSecond float64, err error) {
	const span = time.Second
	var group sync.WaitGroup
	var mu sync.Mutex
	n, start := 0, time.Now()
	for i := range clients {
		group.Go(func() {
			done := 0
			var failed error
			for failed == nil && time.Since(start) < span {
				failed = do(i)
				done++
			}
			mu.Lock()
			defer mu.Unlock()
			n, err = n+done, errors.Join(err, failed)
		})
	}
	group.Wait()
	return float64(n) / time.Since(start).Seconds(), err
}

// lockPairs compares pairs of acquire and release with other writes, each of many clients, in turn.
func (c *cluster) lockPairs() (string, error) {
	client := kept(lockClients)
	var pairs, writes []time.Duration // of one
	for round := range c.b.runs + 1 {
		p, err := together(lockClients, func(i int) error {
			name := fmt.Sprintf("lock-%d", i)
			return errors.Join(c.acquire(client, name, name), c.release(client, name, name))
		})
		if err != nil {
			return "", err
		}
		w, err := together(lockClients, func(i int) error { return c.write(client, fmt.Sprintf("user-%d", i)) })
		if err != nil {
			return "", err
		}
		if round > 0 { // the first one is a warm-up
			pairs, writes = append(pairs, time.Duration(float64(time.Second)/p)), append(writes, time.Duration(float64(time.Second)/w))
		}
	}
	return fmt.Sprintf("%.0f pairs/s; half of %.0f other writes/s: %.2f", 1/median(pairs).Seconds(), 1/median(writes).Seconds(), 2*medianRatio(writes, pairs)), nil
}

// lockBatches measures pairs in batches of a thousand operations.
func (c *cluster) lockBatches() (string, error) {
	const clients = 4
	bodies := make([]string, clients)
	for i := range bodies {
		var batch struct {
			Operations []api.LockOperation `json:"operations"`
		}
		for n := range api.LockOperationsMax / 2 {
			r := api.LockRequest{LockTerms: api.LockTerms{Holder: fmt.Sprintf("client-%d", i)}, Names: []api.LockName{{Name: fmt.Sprintf("%d/%d", i, n)}}}
			batch.Operations = append(batch.Operations, api.LockOperation{Op: api.LockAcquire, LockRequest: r}, api.LockOperation{Op: api.LockRelease, LockRequest: r})
		}
		body, err := json.Marshal(batch)
		if err != nil {
			return "", err
		}
		bodies[i] = string(body)
	}
	client := kept(clients)
	var rates []time.Duration
	for range c.b.runs {
		perSecond, err := together(clients, func(i int) error {
			var answer api.LockResults
			if err := c.do(client, http.MethodPost, "/v1/locks", bodies[i], &answer); err != nil {
				return err
			}
			for _, r := range answer.Results {
				if r.Problem != nil {
					return r.Problem
				}
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		rates = append(rates, time.Duration(float64(time.Second)/perSecond))
	}
	return fmt.Sprintf("%.0f pairs/s", api.LockOperationsMax/2/median(rates).Seconds()), nil
}

// handOvers lets a hundred clients hold one lock ten times each.
func (c *cluster) handOvers() (string, error) {
	const clients, each = 100, 10
	client := kept(clients)
	var times []time.Duration
	for range c.b.runs {
		start := time.Now()
		var group sync.WaitGroup
		failed := make([]error, clients)
		for i := range clients {
			group.Go(func() {
				holder := fmt.Sprintf("client-%d", i)
				for range each {
					if failed[i] = errors.Join(c.acquire(client, "one", holder), c.release(client, "one", holder)); failed[i] != nil {
						return
					}
				}
			})
		}
		group.Wait()
		if err := errors.Join(failed...); err != nil {
			return "", err
		}
		times = append(times, time.Since(start))
	}
	return fmt.Sprintf("%v", median(times).Round(time.Millisecond)), nil
}

// lockedJobs measures a leader while ten thousand jobs wait for one output: its CPU, a submit, and the time from the end of a job to the start of the next.
func (c *cluster) lockedJobs() (string, error) {
	const jobs, ahead = 10_000, 200
	client := kept(lockClients)
	submit := func(command string) (job api.Job, err error) {
		err = c.do(client, http.MethodPost, "/v1/jobs", fmt.Sprintf(`{"program":%s,"range":{"from":1,"to":1},"output":%q,"overwrite":true}`, command, filepath.Join(c.dir, "out")), &job)
		return job, err
	}
	first, err := submit(`{"command":["sleep","3600"]}`)
	if err != nil {
		return "", err
	}
	var group sync.WaitGroup
	failed := make([]error, lockClients)
	for i := range lockClients {
		group.Go(func() {
			for n := i; n < jobs-ahead && failed[i] == nil; n += lockClients {
				_, failed[i] = submit(`{"builtin":"AlwaysOk"}`)
			}
		})
	}
	group.Wait()
	if err := errors.Join(failed...); err != nil {
		return "", err
	}
	var submits, handOvers []time.Duration
	for range ahead {
		start := time.Now()
		if _, err := submit(`{"builtin":"AlwaysOk"}`); err != nil {
			return "", err
		}
		submits = append(submits, time.Since(start))
	}
	const span = 10 * time.Second
	pid, start := c.procs[0].Process.Pid, time.Now()
	before, err := cpuTime(pid)
	time.Sleep(span)
	after, afterErr := cpuTime(pid)
	share := 100 * (after - before).Seconds() / time.Since(start).Seconds()
	if err := errors.Join(err, afterErr, c.post(jobPath(&first)+"/stop", "", &first)); err != nil {
		return "", err
	}
	ended := first.Ended
	for id := first.ID + 1; id <= first.ID+ahead; id++ {
		job := api.Job{ID: id}
		if err := c.wait(&job); err != nil {
			return "", err
		}
		if ended != nil && job.Started != nil {
			handOvers = append(handOvers, job.Started.Sub(*ended))
		}
		ended = job.Ended
	}
	return fmt.Sprintf("CPU %.1f %% of a core, submit %v, hand-over %v", share, median(submits), median(handOvers)), nil
}
