package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/bridgefour/bridgefour/api"
)

// TestLocksAreLinearizable records the calls of clients that take locks, wait, renew, release, hang beyond their time to live, come back, and die, on three leaders, which
// are killed, stopped, cut off and restarted. Porcupine checks the history against an ordered list of requests. Beside it, no two clients that
// exclude each other may believe at one time that they hold their locks.
func TestLocksAreLinearizable(t *testing.T) {
	t.Parallel()
	seed := *linearSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run TestLocksAreLinearizable -linear.seed %d", seed)
	g := newLinkedGroup(t, 3)
	h := &lockHistory{g: g, began: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	clients.Go(func() { h.stalled = stalledFor(ctx) })
	for i := range lockGroups * lockClients {
		clients.Go(func() { h.client(ctx, i, rand.New(rand.NewPCG(seed, uint64(i+1)))) })
	}
	faults := (&history{g: g}).makeFaults(rand.New(rand.NewPCG(seed, 0)), *linearTime)
	g.leading()
	stop()
	clients.Wait()
	redirected.CloseIdleConnections()
	grants, unknown := 0, 0
	for _, o := range h.ops {
		if o.result == lockGranted && o.kind != lockRenew {
			grants++
		}
		if !o.known() {
			unknown++
		}
	}
	t.Logf("%d faults, %d calls, %d grants, %d of unknown outcome", faults, len(h.ops), grants, unknown)
	if grants == 0 {
		t.Error("no lock was granted")
	}
	h.checkHolders(t)
	model := locksModel()
	result, info := porcupine.CheckOperationsVerbose(model, h.operations(), time.Minute)
	if result != porcupine.Illegal {
		if result == porcupine.Unknown { // a slow machine may not find out in that time
			t.Log("the history is not decided")
		}
		return
	}
	t.Log(undecided(model, h.operations()))
	file := filepath.Join(os.TempDir(), fmt.Sprintf("bridgefour-locks-%d.html", seed)) // it outlives the test
	if err := porcupine.VisualizePath(model, info, file); err != nil {
		t.Error(err)
	}
	t.Errorf("the history of the locks is not linearizable: %v; %s shows it", result, file)
}

// undecided tells of each group that is not linearizable the calls about which it could not be decided, after the longest part that is.
func undecided(model porcupine.Model, list []porcupine.Operation) string {
	var b strings.Builder
	for _, part := range model.Partition(list) {
		result, info := porcupine.CheckOperationsVerbose(model, part, 20*time.Second)
		if result == porcupine.Ok {
			continue
		}
		var longest []porcupine.Operation
		for _, partial := range info.PartialLinearizationsOperations()[0] {
			if len(partial) > len(longest) {
				longest = partial
			}
		}
		done := map[*lockOp]bool{}
		state := model.Init()
		for _, o := range longest {
			done[o.Input.(*lockOp)] = true //nolint:forcetypeassert // what operations made
			_, state = model.Step(state, o.Input, o.Output)
		}
		fmt.Fprintf(&b, "%v after %d of %d calls, with %v\n", result, len(longest), len(part), model.DescribeState(state))
		slices.SortFunc(part, func(x, y porcupine.Operation) int { return cmp.Compare(x.Call, y.Call) })
		first := slices.IndexFunc(part, func(o porcupine.Operation) bool { return !done[o.Input.(*lockOp)] }) //nolint:forcetypeassert // as above
		for _, o := range part[max(0, first-12):min(len(part), first+25)] {
			op := o.Input.(*lockOp) //nolint:forcetypeassert // as above
			fmt.Fprintf(&b, "%v %v-%v: %v\n", map[bool]string{true: "+", false: "-"}[done[op]], time.Duration(o.Call), time.Duration(o.Return), op)
		}
	}
	return b.String()
}

// Kinds of calls about the request of a holder.
const (
	lockQueue   = "queue"   // acquire, or wait
	lockTry     = "try"     // acquire without waiting
	lockRenew   = "renew"   // what is held
	lockRelease = "release" // or withdraw
)

// Results of calls.
const (
	lockUnknown  = ""
	lockGranted  = "granted"
	lockWaits    = "waits"
	lockRefused  = "refused"
	lockLost     = "lost"
	lockReleased = "released"
)

// lockOp is one call.
type lockOp struct {
	client     int
	group      int // names of different groups have nothing to do with each other
	kind       string
	holder     string // another one for each request
	names      []api.LockName
	fence      uint64 // of the grant
	place      uint64 // of one that waits or is refused
	result     string
	noEffect   bool // the call is known to have had none
	call, back time.Duration
}

func (o *lockOp) known() bool { return o.result != lockUnknown }

// lockHistory is the calls of all clients.
type lockHistory struct {
	g     *group
	began time.Time

	stalled time.Duration // see stalledFor

	mu  sync.Mutex
	ops []*lockOp
}

// stalledFor is how long this process, and the machine with it, has stood still until ctx is done: whatever it may do within a time it may do later by as much.
func stalledFor(ctx context.Context) (all time.Duration) {
	const every, noticed = 100 * time.Millisecond, 300 * time.Millisecond
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for last := time.Now(); ; {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return all
		}
		if stood := time.Since(last); stood > noticed {
			all += stood
		}
		last = time.Now()
	}
}

const (
	lockTTL     = 2 * time.Second
	lockGroups  = 4
	lockClients = 3 // of a group
)

// client makes one request after the other.
func (h *lockHistory) client(ctx context.Context, number int, random *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		group := number % lockGroups
		c := &lockClient{h: h, random: random, request: lockOp{client: number, group: group, holder: fmt.Sprintf("%d-%d", number, i), names: someNames(group, random)}}
		c.use(ctx)
	}
}

// someNames are one name or two, of which some contain others.
func someNames(group int, random *rand.Rand) (names []api.LockName) {
	some := []string{"a", "a/1", "a/2", "ab"}
	for range 1 + random.IntN(2) {
		mode := api.LockExclusive
		if random.IntN(3) == 0 {
			mode = api.LockShared
		}
		name := fmt.Sprintf("%d/%s", group, some[random.IntN(len(some))])
		if !slices.ContainsFunc(names, func(n api.LockName) bool { return n.Name == name }) {
			names = append(names, api.LockName{Name: name, Mode: mode})
		}
	}
	return names
}

// lockClient is the life of one request.
type lockClient struct {
	h       *lockHistory
	random  *rand.Rand
	request lockOp
}

// use takes a lock, holds it for a while, and releases it. It may give up, hang, or die at any point.
func (c *lockClient) use(ctx context.Context) {
	kind := lockQueue
	if c.random.IntN(4) == 0 {
		kind = lockTry
	}
	var o *lockOp
	for tries := 0; ; tries++ {
		o = c.do(ctx, kind, 0)
		switch {
		case o.result == lockGranted:
		case o.result == lockRefused, ctx.Err() != nil:
			return
		case tries > 40, c.random.IntN(60) == 0:
			c.do(ctx, lockRelease, 0) // it withdraws
			return
		case c.random.IntN(60) == 0:
			return // it dies
		default:
			chance(c.random, 100*time.Millisecond)
			continue
		}
		break
	}
	for renewals := c.random.IntN(6); renewals > 0; renewals-- {
		longest := 300 * time.Millisecond
		if c.random.IntN(10) == 0 {
			longest = 2 * lockTTL // it hangs, maybe for too long
		}
		chance(c.random, longest)
		if c.do(ctx, lockRenew, o.fence).result == lockLost {
			return
		}
	}
	if c.random.IntN(8) == 0 {
		return // it dies
	}
	for tries := 0; tries < 5 && c.do(ctx, lockRelease, 0).result == lockUnknown; tries++ {
		chance(c.random, 200*time.Millisecond)
	}
}

// do makes a call, to any of the leaders.
func (c *lockClient) do(ctx context.Context, kind string, fence uint64) *lockOp {
	o := c.request
	o.kind = kind
	r := api.LockRequest{LockTerms: api.LockTerms{Holder: o.holder, TTLMillis: uint64(lockTTL.Milliseconds()), Fence: fence}, Names: o.names}
	var body any = r
	switch kind {
	case lockQueue, lockRelease:
		operation := api.LockOperation{Op: api.LockRelease, LockRequest: r}
		if kind == lockQueue {
			operation.Op, operation.WaitMillis = api.LockAcquire, uint64(time.Hour.Milliseconds())
		}
		body = struct {
			Operations []api.LockOperation `json:"operations"`
		}{[]api.LockOperation{operation}}
	}
	text, err := json.Marshal(body)
	if err != nil {
		c.h.g.t.Error(err)
	}
	// Half of the requests bypass the network, to a leader that may be cut off.
	node := c.h.g.nodes[c.random.IntN(len(c.h.g.nodes))]
	at, client := node.address, redirected
	if c.random.IntN(2) == 0 {
		at, client = node.listen, direct
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTime)
	defer cancel()
	o.call = time.Since(c.h.began)
	a := requestAt(limited, client, http.MethodPost, "http://"+at+"/v1/locks", string(text))
	o.back = time.Since(c.h.began)
	o.understand(a)
	if !o.noEffect && !errors.Is(a.err, syscall.ECONNREFUSED) { // else it has not arrived
		c.h.mu.Lock()
		defer c.h.mu.Unlock()
		c.h.ops = append(c.h.ops, &o)
	}
	return &o
}

// understand decodes the answer.
func (o *lockOp) understand(a answer) {
	if a.err != nil {
		return
	}
	var answer struct {
		api.LockGrant
		Results []api.LockResult  `json:"results"`
		Lock    *api.LockConflict `json:"lock"`
		Type    string            `json:"type"`
		Detail  string            `json:"detail"`
	}
	if json.Unmarshal([]byte(a.body), &answer) != nil {
		return
	}
	o.noEffect = answer.Type == api.TypeNotLeader
	if len(answer.Results) == 1 {
		answer.LockGrant = answer.Results[0].LockGrant
		if p := answer.Results[0].Problem; p != nil {
			a.code, answer.Lock = p.Status, p.Lock
		}
	}
	switch lock := answer.Lock; {
	case a.code == http.StatusOK && o.kind == lockRelease:
		o.result = lockReleased
	case a.code == http.StatusOK:
		o.result, o.fence = lockGranted, answer.Fence
	case a.code != http.StatusConflict || lock == nil:
	case lock.Lost:
		o.result = lockLost
	case lock.Waiting:
		o.result, o.place = lockWaits, lock.Place
	default:
		o.result, o.place = lockRefused, lock.Place
	}
}

// excludes reports whether the names of two requests conflict.
func excludes(a, b []api.LockName) bool {
	return slices.ContainsFunc(a, func(x api.LockName) bool {
		return slices.ContainsFunc(b, func(y api.LockName) bool {
			return (x.Mode != api.LockShared || y.Mode != api.LockShared) && (strings.HasPrefix(x.Name+"/", y.Name+"/") || strings.HasPrefix(y.Name+"/", x.Name+"/"))
		})
	})
}

// checkHolders checks that the times at which clients rely on their locks do not overlap: from the answer of the grant until the release is sent, or
// the time to live after the last successful renewal was sent.
func (h *lockHistory) checkHolders(t *testing.T) {
	t.Helper()
	type tenure struct {
		*lockOp
		from, to time.Duration
	}
	held := map[string]*tenure{}
	for _, o := range h.ops { // those of one holder are in order
		switch now := held[o.holder]; {
		case o.result == lockGranted && now == nil:
			held[o.holder] = &tenure{lockOp: o, from: o.back, to: o.call + lockTTL}
		case now == nil:
		case o.kind == lockRelease:
			now.to = min(now.to, o.call)
		case o.result == lockGranted && o.back < now.to:
			now.to = o.call + lockTTL
		}
	}
	var all []*tenure
	for _, one := range held {
		if one.from < one.to {
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b *tenure) int { return cmp.Compare(a.from, b.from) })
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.from >= a.to {
				break
			}
			if excludes(a.names, b.names) {
				t.Errorf("%s with fence %d holds %v until %v, and %s with fence %d holds %v from %v", a.holder, a.fence, a.names, a.to, b.holder, b.fence, b.names, b.from)
			}
		}
	}
}

// lateMax is how long after it was sent a call of unknown outcome may take effect, on a machine that does not stall: a fault lasts for 1.5 s, and a call that is
// forwarded waits for a leader.
const lateMax = 8 * time.Second

// operations are the calls in the form of porcupine. A renewal of unknown outcome says nothing, and several other calls of unknown outcome in a row are
// as good as one.
func (h *lockHistory) operations() (list []porcupine.Operation) {
	unknown := map[string]int{} // by holder: the last operation, if its outcome is unknown
	for _, o := range h.ops {
		if o.known() {
			delete(unknown, o.holder)
			list = append(list, porcupine.Operation{ClientId: o.client, Input: o, Output: o, Call: int64(o.call), Return: int64(o.back)})
			continue
		}
		at, again := unknown[o.holder]
		late := int64(o.call + lateMax + h.stalled)
		switch {
		case o.kind == lockRenew:
		case again && list[at].Input.(*lockOp).kind == o.kind: //nolint:forcetypeassert // as below
			list[at].Return = late
		default:
			unknown[o.holder] = len(list)
			list = append(list, porcupine.Operation{ClientId: o.client, Input: o, Output: o, Call: int64(o.call), Return: late})
		}
	}
	return list
}

// lockList is a state of the model: the requests in their order. One holds its names if no earlier one excludes it. One that may have expired goes when
// the result of a call says so, or maybe when its holder calls again.
type lockList struct {
	Requests []listedLock
	Order    uint64
	Grants   []listedLock // for each name and mode, the last grant in the order of the requests whose fence is known
}

type listedLock struct {
	Holder string
	Names  []api.LockName
	Order  uint64
	Fence  uint64        // 0: not known
	Until  time.Duration // it cannot expire before
}

// before counts the earlier requests that exclude the one at i.
func (l *lockList) before(i int) (n uint64) {
	for _, r := range l.Requests[:i] {
		if excludes(r.Names, l.Requests[i].Names) {
			n++
		}
	}
	return n
}

// observe notes the fence of a grant, and reports whether it fits to those that are known: they grow in the order of requests that exclude each other.
func (l *lockList) observe(i int, fence uint64) bool {
	r := &l.Requests[i]
	if r.Fence != 0 {
		return r.Fence == fence
	}
	for _, g := range l.Grants {
		if excludes(g.Names, r.Names) && (g.Order < r.Order) != (g.Fence < fence) {
			return false
		}
	}
	r.Fence = fence
	for _, name := range r.Names {
		same := func(g listedLock) bool { return g.Names[0] == name }
		now := listedLock{Names: []api.LockName{name}, Order: r.Order, Fence: fence}
		if at := slices.IndexFunc(l.Grants, same); at < 0 {
			l.Grants = append(l.Grants, now)
		} else if l.Grants[at].Order < r.Order {
			l.Grants[at] = now
		}
	}
	return true
}

// expireBefore removes what excludes the request at i and may have expired by a time, and returns the new index of that request.
func (l *lockList) expireBefore(i int, now time.Duration) int {
	r := l.Requests[i]
	l.Requests = slices.DeleteFunc(l.Requests, func(o listedLock) bool { return o.Order < r.Order && o.Until <= now && excludes(o.Names, r.Names) })
	return slices.IndexFunc(l.Requests, func(o listedLock) bool { return o.Holder == r.Holder })
}

// find returns the index of the request of a holder, or -1.
func (l *lockList) find(holder string) int {
	return slices.IndexFunc(l.Requests, func(r listedLock) bool { return r.Holder == holder })
}

// next returns the states in which a call with its result can leave the list; none: it cannot have had that result. One of unknown outcome may have had no effect.
func (l *lockList) next(o *lockOp) (states []lockList) {
	if !o.known() {
		states = append(states, *l)
	}
	if i := l.find(o.holder); i >= 0 && l.Requests[i].Until <= o.back { // it has expired before the call
		gone := l.copy()
		gone.Requests = slices.Delete(gone.Requests, i, i+1)
		if gone.apply(o) {
			states = append(states, gone)
		}
	}
	if now := l.copy(); now.apply(o) {
		states = append(states, now)
	}
	return states
}

func (l *lockList) copy() lockList {
	own := *l
	own.Requests, own.Grants = slices.Clone(l.Requests), slices.Clone(l.Grants)
	return own
}

// apply applies a call, and reports whether it can have had its result.
func (l *lockList) apply(o *lockOp) bool {
	i := l.find(o.holder)
	remove := func() { l.Requests = slices.Delete(l.Requests, i, i+1) }
	granted := func() bool {
		i = l.expireBefore(i, o.back)
		return l.before(i) == 0 && l.observe(i, o.fence)
	}
	switch {
	case o.kind == lockRelease:
		if i >= 0 {
			remove()
		}
		return true
	case o.result == lockLost:
		return i < 0
	case o.kind == lockRenew && i < 0:
		return false
	case i < 0:
		l.Order++
		i = len(l.Requests)
		l.Requests = append(l.Requests, listedLock{Holder: o.holder, Names: o.names, Order: l.Order})
	}
	l.Requests[i].Until = max(l.Requests[i].Until, o.call+lockTTL)
	before := l.before(i)
	switch {
	case o.result == lockGranted:
		return granted()
	case o.result == lockWaits: // the place is that at the end of the call, and earlier requests may have gone since
		return before > 0 && o.place <= before
	case o.result == lockRefused:
		remove()
		return before > 0
	case o.kind == lockTry && before > 0: // of unknown outcome; what is before it may have expired
		waits := l.copy()
		if i = l.expireBefore(i, o.back); l.before(i) > 0 {
			*l = waits
			remove()
		}
	}
	return true
}

func locksModel() porcupine.Model {
	text := func(l *lockList) string {
		b, err := json.Marshal(l)
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	model := porcupine.NondeterministicModel{
		Partition: func(list []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, lockGroups)
			for _, o := range list {
				group := o.Input.(*lockOp).group //nolint:forcetypeassert // what operations made
				parts[group] = append(parts[group], o)
			}
			return slices.DeleteFunc(parts, func(part []porcupine.Operation) bool { return len(part) == 0 })
		},
		Init: func() []any { return []any{text(&lockList{})} },
		Step: func(state, input, _ any) (next []any) {
			var l lockList
			if err := json.Unmarshal([]byte(state.(string)), &l); err != nil { //nolint:forcetypeassert // what Init made
				panic(err)
			}
			for _, one := range l.next(input.(*lockOp)) { //nolint:forcetypeassert // what operations made
				next = append(next, text(&one))
			}
			return next
		},
		DescribeOperation: func(input, _ any) string { return input.(*lockOp).String() }, //nolint:forcetypeassert // as above
		DescribeState:     func(state any) string { return state.(string) },              //nolint:forcetypeassert // as above
	}
	return model.ToModel()
}

func (o *lockOp) String() string {
	return fmt.Sprintf("%s %s %v → %s fence %d place %d", o.holder, o.kind, o.names, cmp.Or(o.result, "?"), o.fence, o.place)
}

// TestLocksModel checks that the model accepts correct histories and rejects incorrect ones.
func TestLocksModel(t *testing.T) {
	t.Parallel()
	name := func(name, mode string) []api.LockName { return []api.LockName{{Name: name, Mode: mode}} }
	x, above, shared := name("0/a/1", api.LockExclusive), name("0/a", api.LockExclusive), name("0/a", api.LockShared)
	queue := func(holder string, names []api.LockName, result string, n uint64) *lockOp {
		o := &lockOp{kind: lockQueue, holder: holder, names: names, result: result}
		if result == lockGranted {
			o.fence = n
		} else {
			o.place = n
		}
		return o
	}
	of := func(kind, holder, result string, fence uint64) *lockOp {
		return &lockOp{kind: kind, holder: holder, result: result, fence: fence}
	}
	after := func(d time.Duration, o *lockOp) *lockOp {
		o.call, o.back = d, d
		return o
	}
	release := func(holder string) *lockOp { return of(lockRelease, holder, lockReleased, 0) }
	for what, test := range map[string]struct {
		ops  []*lockOp
		want bool
	}{
		"hand-over":             {[]*lockOp{queue("p", x, lockGranted, 5), queue("q", above, lockWaits, 1), release("p"), queue("q", above, lockGranted, 7)}, true},
		"two holders":           {[]*lockOp{queue("p", x, lockGranted, 5), queue("q", above, lockGranted, 7)}, false},
		"readers":               {[]*lockOp{queue("p", shared, lockGranted, 5), queue("q", shared, lockGranted, 6), queue("r", x, lockWaits, 2)}, true},
		"a reader overtakes":    {[]*lockOp{queue("p", shared, lockGranted, 5), queue("q", x, lockWaits, 1), queue("r", shared, lockGranted, 9)}, false},
		"a fence that shrinks":  {[]*lockOp{queue("p", x, lockGranted, 5), release("p"), queue("q", x, lockGranted, 4)}, false},
		"another fence":         {[]*lockOp{queue("p", x, lockGranted, 5), queue("p", x, lockGranted, 6)}, false},
		"lost without a reason": {[]*lockOp{queue("p", x, lockGranted, 5), of(lockRenew, "p", lockLost, 5)}, false},
		"lost":                  {[]*lockOp{queue("p", x, lockGranted, 5), after(lockTTL, of(lockRenew, "p", lockLost, 5))}, true},
		"expired":               {[]*lockOp{queue("p", x, lockGranted, 5), after(lockTTL, queue("q", x, lockGranted, 7))}, true},
		"not yet expired":       {[]*lockOp{queue("p", x, lockGranted, 5), after(lockTTL-1, queue("q", x, lockGranted, 7))}, false},
		"renewed meanwhile":     {[]*lockOp{queue("p", x, lockGranted, 5), after(lockTTL-1, of(lockRenew, "p", lockGranted, 5)), after(lockTTL, queue("q", x, lockGranted, 7))}, false},
		"renewed when lost":     {[]*lockOp{queue("p", x, lockGranted, 5), release("p"), of(lockRenew, "p", lockGranted, 5)}, false},
		"a wrong place":         {[]*lockOp{queue("p", x, lockGranted, 5), queue("q", x, lockWaits, 2)}, false},
		"an unknown release":    {[]*lockOp{queue("p", x, lockGranted, 5), of(lockRelease, "p", lockUnknown, 0), queue("q", x, lockWaits, 1), queue("q", x, lockGranted, 9)}, true},
		"an unknown request":    {[]*lockOp{queue("p", x, lockUnknown, 0), queue("q", x, lockWaits, 1)}, true},
		"refused, and gone": {[]*lockOp{
			queue("p", x, lockGranted, 5), {kind: lockTry, holder: "q", names: x, result: lockRefused, place: 1}, queue("r", x, lockWaits, 1),
		}, true},
	} {
		var list []porcupine.Operation
		for i, o := range test.ops {
			back := int64(10*i + 5)
			if !o.known() {
				back = 1 << 40
			}
			list = append(list, porcupine.Operation{ClientId: i, Input: o, Output: o, Call: int64(10 * i), Return: back})
		}
		if got := porcupine.CheckOperations(locksModel(), list); got != test.want {
			t.Errorf("%s: linearizable(%v) = %v, want %v", what, test.ops, got, test.want)
		}
	}
}
