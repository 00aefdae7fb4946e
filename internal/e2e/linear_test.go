package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/bridgefour/bridgefour/api"
)

var (
	linearSeed = flag.Uint64("linear.seed", 0, "the seed of TestLinearizable; 0: random")
	linearTime = flag.Duration("linear.time", 20*time.Second, "how long TestLinearizable makes faults")
)

// TestLinearizable records the operations of several clients on three leaders, which are killed, stopped, cut off and restarted, and lets
// porcupine check that they are linearizable. An operation of unknown outcome may have taken effect at any time after its call.
//
// The operations are submit, stop, retry, and strong reads of one job and of the newest one. Each is sent to one leader, which may be any, also
// one that wrongly considers itself leader.
//
// A build that serves strong reads without a majority, and one that acknowledges entries that only the leader has, fail it: see doc.go.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	seed := *linearSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run TestLinearizable -linear.seed %d", seed)
	g := newLinkedGroup(t, 3)
	g.worker("worker-1", "--slots", "300")
	g.untilAlive(1)
	h := &history{g: g, began: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() { h.client(ctx, i, rand.New(rand.NewPCG(seed, uint64(i+1)))) })
	}
	faults := h.makeFaults(rand.New(rand.NewPCG(seed, 0)), *linearTime)
	g.leading()
	stop()
	clients.Wait()
	redirected.CloseIdleConnections()
	h.settle()
	t.Logf("%d faults, %d operations, %d of unknown outcome, %d jobs", faults, len(h.ops), h.unknown, len(h.names))

	for what, check := range map[string]struct {
		model porcupine.Model
		ops   []porcupine.Operation
	}{
		"numbers": {numbersModel(), h.of(func(o *op) bool { return o.kind == opSubmit || o.kind == opNewest })},
		"lives":   {livesModel(), h.of(func(o *op) bool { return o.kind != opNewest && (o.kind != opSubmit || o.job != 0) })},
	} {
		parts := [][]porcupine.Operation{check.ops}
		if check.model.Partition != nil {
			parts = check.model.Partition(check.ops)
		}
		check.model.Partition = nil
		for _, part := range parts {
			result, info := porcupine.CheckOperationsVerbose(check.model, part, time.Minute)
			if result != porcupine.Illegal {
				if result == porcupine.Unknown { // a slow machine may not find out in that time
					t.Logf("the history of the %s, of %d operations, is not decided", what, len(part))
				}
				continue
			}
			for _, o := range part {
				t.Logf("%v to %v: client %d: %s", time.Duration(o.Call), time.Duration(o.Return), o.ClientId, describe(o.Input, o.Output))
			}
			file := filepath.Join(os.TempDir(), fmt.Sprintf("bridgefour-%s-%d.html", what, seed)) // it outlives the test
			if err := porcupine.VisualizePath(check.model, info, file); err != nil {
				t.Error(err)
			}
			t.Errorf("the history of the %s is not linearizable: %v; %s shows it", what, result, file)
		}
	}
}

// Kinds of operations.
const (
	opSubmit = "submit"
	opStop   = "stop"
	opRetry  = "retry"
	opRead   = "read"
	opNewest = "newest" // the number of the newest job
)

// op is one operation. The answer is valid only if it is known.
type op struct {
	client     int
	kind       string
	job        uint64 // what it is about, or was answered
	name       string // of a submit
	at         string // the leader
	call, back time.Duration
	known      bool
	code       int
	status     string // of the job, in the answer
}

// stopped reports whether the answer says that the job is stopped; otherwise it is not over.
func (o *op) stopped() bool { return o.status == api.JobStopped }

// history is the operations of all clients.
type history struct {
	g     *group
	began time.Time

	mu      sync.Mutex
	ops     []*op
	recent  []uint64 // jobs that are worked with
	names   map[string]uint64
	unknown int
}

// client sends one request after the other to leaders.
func (h *history) client(ctx context.Context, number int, random *rand.Rand) {
	node, answered := h.g.nodes[0], false
	for i := 0; ctx.Err() == nil; i++ {
		chance(random, 50*time.Millisecond) // two cores are for the leaders too
		if !answered || random.IntN(50) == 0 {
			node = h.g.nodes[random.IntN(len(h.g.nodes))]
		}
		o := &op{client: number, name: fmt.Sprintf("job %d of client %d", i, number)}
		h.mu.Lock()
		recent := len(h.recent)
		if recent > 0 {
			o.job = h.recent[max(0, recent-6)+random.IntN(min(6, recent))]
		}
		h.mu.Unlock()
		switch n := random.IntN(100); {
		case n < 5 || recent == 0:
			o.kind, o.job = opSubmit, 0
		case n < 20:
			o.kind = opStop
		case n < 40:
			o.kind = opRetry
		case n < 50:
			o.kind, o.job = opNewest, 0
		default:
			o.kind = opRead
		}
		// Half of the requests go through the network, and may be redirected to the leader; half bypass it, to a leader that may be
		// cut off.
		at, inside := node.address, random.IntN(2) == 0
		if inside {
			at = node.listen
		}
		answered = h.do(ctx, o, at, inside)
	}
}

// opTime is the timeout of an operation, whose outcome is unknown then.
const opTime = 1500 * time.Millisecond

// do executes one operation, and reports whether there was an answer.
func (h *history) do(ctx context.Context, o *op, at string, inside bool) bool {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTime)
	defer cancel()
	method, path, body := http.MethodGet, fmt.Sprintf("/v1/jobs/%d?consistency=strong", o.job), ""
	switch o.kind {
	case opSubmit:
		method, path, body = http.MethodPost, "/v1/jobs", tiny(o.name, "exec sleep 60")
	case opStop, opRetry:
		method, path = http.MethodPost, fmt.Sprintf("/v1/jobs/%d/%s", o.job, o.kind)
	case opNewest:
		path = "/v1/jobs?limit=1&consistency=strong"
	}
	client := redirected
	if inside {
		client = direct
	}
	o.at, o.call = at, time.Since(h.began)
	a := requestAt(limited, client, method, "http://"+at+path, body)
	o.back = time.Since(h.began)
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.understand(a) {
		if o.kind == opSubmit && o.known {
			h.recent = append(h.recent, o.job)
		}
		h.ops = append(h.ops, o)
	}
	return a.err == nil && a.code < http.StatusInternalServerError
}

// redirected follows redirects and keeps connections, like ordinary clients.
var redirected = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// understand decodes the answer; false: the operation had no effect, so it can be left out.
func (o *op) understand(a answer) bool {
	o.code = a.code
	if errors.Is(a.err, syscall.ECONNREFUSED) {
		return false
	}
	write := o.kind == opSubmit || o.kind == opStop || o.kind == opRetry
	switch a.code {
	case http.StatusOK, http.StatusCreated, http.StatusNotFound, http.StatusConflict:
		o.known = true
	default:
		return write // it may or may not have been done; a read that was not answered says nothing
	}
	switch {
	case a.code == http.StatusNotFound || a.code == http.StatusConflict:
	case o.kind == opNewest:
		var list api.JobList
		o.known = json.Unmarshal([]byte(a.body), &list) == nil
		if len(list.Jobs) > 0 {
			o.job = list.Jobs[0].ID
		}
	default:
		var job api.Job
		o.known = json.Unmarshal([]byte(a.body), &job) == nil
		o.job, o.status = job.ID, job.Status
	}
	return o.known || write
}

// makeFaults loses leaders in every way, one after the other or two at once, and repairs them.
func (h *history) makeFaults(random *rand.Rand, long time.Duration) int {
	g := h.g
	n := 0
	for end := time.Now().Add(long); time.Now().Before(end); n++ {
		var node *node
		if random.IntN(3) > 0 {
			node = g.leading()
		} else {
			node = g.nodes[random.IntN(len(g.nodes))]
		}
		back := h.makeFault(random, node)
		// Some faults end before they are detected, some after another leader was elected; some overlap.
		chance(random, 1500*time.Millisecond)
		back()
		if random.IntN(2) == 0 {
			g.leading()
			chance(random, time.Second)
		}
	}
	return n
}

// chance waits for a random time, up to a maximum.
func chance(random *rand.Rand, most time.Duration) {
	moment := time.NewTimer(time.Duration(random.Int64N(int64(most))))
	<-moment.C
}

// makeFault loses a leader, and returns the repair.
func (h *history) makeFault(random *rand.Rand, n *node) (back func()) {
	switch random.IntN(6) {
	case 0:
		n.kill()
		return n.start
	case 1:
		n.signal(syscall.SIGSTOP)
		return func() { n.signal(syscall.SIGCONT) }
	case 2:
		n.g.net.set(true, append(n.in(true), n.out(true)...)...)
	case 3:
		n.g.net.set(true, append(n.in(false), n.out(false)...)...)
	case 4:
		n.g.net.set(true, n.in(random.IntN(2) == 0)...)
	default:
		n.g.net.set(true, n.out(random.IntN(2) == 0)...)
	}
	return n.g.net.heal
}

// settle finds the outcome of submits for which it is unknown: the name of a job identifies its submit.
func (h *history) settle() {
	t := h.g.t
	h.names = map[string]uint64{}
	for job, err := range h.g.client.Jobs(t.Context(), api.JobQuery{Limit: api.JobLimitMax}) {
		if err != nil {
			t.Fatal(err)
		}
		if other := h.names[job.Name]; other != 0 {
			t.Errorf("%q was submitted once, and is job %d and job %d", job.Name, other, job.ID)
		}
		h.names[job.Name] = job.ID
		if job.Status == api.JobFailed { // no model has it
			t.Errorf("job %d has failed: %s", job.ID, job.Error)
		}
	}
	for _, o := range h.ops {
		if o.known {
			continue
		}
		h.unknown++
		if o.kind == opSubmit {
			o.job = h.names[o.name]
		}
	}
}

// of returns the operations of one model, in the form of porcupine.
func (h *history) of(wanted func(*op) bool) []porcupine.Operation {
	end := time.Since(h.began) + time.Hour
	var list []porcupine.Operation
	for _, o := range h.ops {
		if !wanted(o) {
			continue
		}
		back := o.back
		if !o.known {
			back = end
		}
		list = append(list, porcupine.Operation{ClientId: o.client, Input: o, Output: o, Call: int64(o.call), Return: int64(back)})
	}
	return list
}

// numbersModel is a counter: each submit gets the next number.
func numbersModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return uint64(0) },
		Step: func(state, input, _ any) (bool, any) {
			newest, o := state.(uint64), input.(*op) //nolint:forcetypeassert // what Init and of made
			switch {
			case o.kind == opNewest:
				return o.job == newest, newest
			case o.job == 0: // a submit that left no trace
				return true, newest
			default:
				return o.job == newest+1, newest + 1
			}
		},
		DescribeOperation: describe, DescribeState: func(state any) string { return fmt.Sprint(state) },
	}
}

// States of a job. A job that is being stopped ends some time later.
const (
	absent   = "absent"
	active   = "active"
	stopping = "stopping"
	stopped  = "stopped"
)

// livesModel is the states of each job.
func livesModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(list []porcupine.Operation) [][]porcupine.Operation {
			byJob := map[uint64][]porcupine.Operation{}
			for _, o := range list {
				id := o.Input.(*op).job //nolint:forcetypeassert // what of made
				byJob[id] = append(byJob[id], o)
			}
			var parts [][]porcupine.Operation
			for _, part := range byJob {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return absent },
		Step: func(state, input, _ any) (bool, any) {
			return nextLife(state.(string), input.(*op)) //nolint:forcetypeassert // what Init and of made
		},
		DescribeOperation: describe, DescribeState: func(state any) string { return state.(string) }, //nolint:forcetypeassert // as above
	}
}

// nextLife returns the state of a job after an operation; false: the operation cannot have had its outcome.
func nextLife(life string, o *op) (bool, string) {
	refused := o.known && o.code != http.StatusOK && o.code != http.StatusCreated
	if o.known && (o.code == http.StatusNotFound) != (life == absent) && o.kind != opSubmit {
		return false, life
	}
	switch {
	case o.kind == opSubmit:
		return life == absent, active
	case life == absent: // not there, and said so, or of unknown outcome
		return true, life
	case o.kind == opRead && o.stopped():
		return life == stopping || life == stopped, stopped
	case o.kind == opRead:
		return life == active || life == stopping, life
	case o.kind == opStop && life == active:
		return !refused, stopping
	case o.kind == opStop: // it is what was asked for
		return !refused && (!o.stopped() || life != active), map[bool]string{true: stopped, false: life}[o.stopped()]
	case refused: // a retry: the job is not stopped, or not yet
		return life == active || life == stopping, life
	case !o.known && life != stopping && life != stopped:
		return true, life
	default:
		return life == stopping || life == stopped, active
	}
}

func describe(input, _ any) string {
	o := input.(*op) //nolint:forcetypeassert // what of made
	text := o.kind + " " + strconv.FormatUint(o.job, 10)
	switch {
	case !o.known:
		text += " → ?"
	default:
		text += fmt.Sprintf(" → %d %s", o.code, o.status)
	}
	return text + " at " + o.at
}

// TestModels checks that the models accept correct histories and reject incorrect ones.
func TestModels(t *testing.T) {
	t.Parallel()
	known := func(kind string, job uint64, code int, stopped bool) *op {
		status := map[bool]string{true: api.JobStopped, false: api.JobRunning}[stopped]
		return &op{kind: kind, job: job, code: code, status: status, known: true}
	}
	unknown := func(kind string, job uint64) *op { return &op{kind: kind, job: job} }
	for _, test := range []struct {
		name  string
		model porcupine.Model
		ops   []*op // one after the other
		want  bool
	}{
		{"numbers in order", numbersModel(), []*op{known(opSubmit, 1, 201, false), known(opNewest, 1, 200, false), known(opSubmit, 2, 201, false)}, true},
		{"a lost submit", numbersModel(), []*op{known(opSubmit, 1, 201, false), known(opSubmit, 1, 201, false)}, false},
		{"a stale newest", numbersModel(), []*op{known(opSubmit, 1, 201, false), known(opNewest, 0, 200, false)}, false},
		{"an unknown submit", numbersModel(), []*op{unknown(opSubmit, 1), known(opNewest, 0, 200, false), known(opSubmit, 2, 201, false)}, true},
		{"a submit without a trace", numbersModel(), []*op{unknown(opSubmit, 0), known(opSubmit, 1, 201, false)}, true},
		{
			"a life", livesModel(),
			[]*op{
				known(opSubmit, 1, 201, false), known(opRead, 1, 200, false), known(opStop, 1, 200, false), known(opRetry, 1, 409, false),
				known(opRead, 1, 200, true), known(opRetry, 1, 200, false), known(opRead, 1, 200, false),
			},
			true,
		},
		{"a job that is not there", livesModel(), []*op{known(opSubmit, 1, 201, false), known(opRead, 1, 404, false)}, false},
		{"stopped by no client", livesModel(), []*op{known(opSubmit, 1, 201, false), known(opRead, 1, 200, true)}, false},
		{
			"a stale read after a retry", livesModel(),
			[]*op{known(opSubmit, 1, 201, false), known(opStop, 1, 200, false), known(opRetry, 1, 200, false), known(opRead, 1, 200, true)},
			false,
		},
		{
			"a stale read after stopped", livesModel(),
			[]*op{known(opSubmit, 1, 201, false), known(opStop, 1, 200, false), known(opRead, 1, 200, true), known(opRead, 1, 200, false)},
			false,
		},
		{"an unknown stop", livesModel(), []*op{known(opSubmit, 1, 201, false), unknown(opStop, 1), known(opRead, 1, 200, false), known(opRead, 1, 200, true)}, true},
		{"a refused stop", livesModel(), []*op{known(opSubmit, 1, 201, false), known(opStop, 1, 409, false)}, false},
	} {
		var list []porcupine.Operation
		for i, o := range test.ops {
			back := int64(10*i + 5)
			if !o.known {
				back = 1 << 40
			}
			list = append(list, porcupine.Operation{ClientId: i, Input: o, Output: o, Call: int64(10 * i), Return: back})
		}
		if got := porcupine.CheckOperations(test.model, list); got != test.want {
			var told []string
			for _, o := range test.ops {
				told = append(told, describe(o, o))
			}
			t.Errorf("%s: linearizable(%s) = %v, want %v", test.name, strings.Join(told, "; "), got, test.want)
		}
	}
}
