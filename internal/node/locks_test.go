package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

// user is a principal that may submit.
func user(ctx context.Context, name string) context.Context {
	return access.WithPrincipal(ctx, access.Principal{Name: name, Permissions: access.Read | access.Submit})
}

// lockOf is a request for exclusive locks.
func lockOf(holder string, wait time.Duration, names ...string) *api.LockRequest {
	r := &api.LockRequest{LockTerms: api.LockTerms{Holder: holder, WaitMillis: uint64(wait.Milliseconds())}}
	for _, name := range names {
		r.Names = append(r.Names, api.LockName{Name: name})
	}
	return r
}

// conflict returns the conflict of a 409.
func conflict(t *testing.T, err error, text string) *api.LockConflict {
	t.Helper()
	problemOf(t, err, http.StatusConflict, text)
	p, _ := err.(*api.Problem) //nolint:errorlint // of problemOf
	if p == nil || p.Lock == nil {
		t.Fatalf("error = %v, which has no conflict", err)
	}
	return p.Lock
}

// TestLock acquires, renews, waits, and releases.
func TestLock(t *testing.T) {
	r := newRig(t)
	ann, bob := user(t.Context(), "ann"), user(t.Context(), "bob")
	first, err := r.node.Lock(ann, lockOf("h1", 0, "a/b", "c"))
	if err != nil || first.Fence == 0 || first.ExpiresInMillis != 30_000 {
		t.Fatalf("Lock() = %+v, %v", first, err)
	}
	again := lockOf("h1", 0, "c", "a/b")
	if got, err := r.node.Lock(ann, again); err != nil || got != first {
		t.Errorf("the same request again: %+v, %v, want %+v", got, err, first)
	}
	again.Fence = first.Fence
	if got, err := r.node.Lock(ann, again); err != nil || got != first {
		t.Errorf("a renewal: %+v, %v, want %+v", got, err, first)
	}
	again.Fence++
	_, err = r.node.Lock(ann, again)
	if c := conflict(t, err, "lost"); !c.Lost {
		t.Errorf("a renewal of another lock: %+v", c)
	}
	_, err = r.node.Lock(bob, lockOf("h1", 0, "a"))
	if c := conflict(t, err, "a: not free: user ann holds it"); c.Place != 1 || c.Holders[0].Fence != first.Fence || c.Holders[0].Holder != "" || c.Waiting {
		t.Errorf("the conflict is %+v", c)
	}
	if list, err := r.node.Locks(bob, api.LockQuery{}); err != nil || len(list.Locks) != 2 || list.Locks[1].Name != "c" || list.Locks[1].Holders[0].User != "ann" {
		t.Errorf("Locks() = %+v, %v", list, err)
	}

	granted := make(chan error, 1)
	go func() {
		got, err := r.node.Lock(bob, lockOf("h2", time.Hour, "a"))
		if err == nil && got.Fence <= first.Fence {
			err = api.Conflict("fence %d after %d", got.Fence, first.Fence)
		}
		granted <- err
	}()
	r.until("the second waits", func() bool {
		list, err := r.node.Locks(bob, api.LockQuery{Name: "a"})
		return err == nil && len(list.Locks) == 1 && len(list.Locks[0].Waiting) == 1 && list.Locks[0].Waiting[0].Place == 1
	})
	if err := r.node.Unlock(bob, "h1", []string{"c"}); err != nil {
		t.Errorf("the release of what another user has: %v", err)
	}
	if err := r.node.Unlock(ann, "h1", []string{"c"}); err != nil {
		t.Error(err)
	}
	if err := <-granted; err != nil {
		t.Errorf("the second request: %v", err)
	}
	_, err = r.node.Lock(ann, lockOf("h3", time.Millisecond, "a"))
	if c := conflict(t, err, "user bob holds it"); c.Waiting {
		t.Errorf("the wait is over: %+v", c)
	}
	operator := access.WithPrincipal(t.Context(), access.Principal{Name: "eve", Permissions: access.Read | access.Submit | access.Operate})
	if list, err := r.node.Locks(operator, api.LockQuery{}); err != nil || len(list.Locks) != 1 || len(list.Locks[0].Waiting) != 0 {
		t.Errorf("Locks() = %+v, %v, want one that nothing waits for", list, err)
	}
	if err := r.node.Unlock(operator, "h2", []string{"a"}); err != nil {
		t.Error(err)
	}
	if list, err := r.node.Locks(operator, api.LockQuery{}); err != nil || len(list.Locks) != 0 {
		t.Errorf("after the release by an operator, Locks() = %+v, %v", list, err)
	}
}

// TestLockBatch carries out operations in their order.
func TestLockBatch(t *testing.T) {
	r := newRig(t)
	ann := user(t.Context(), "ann")
	op := func(op string, wait time.Duration, holder string) api.LockOperation {
		return api.LockOperation{Op: op, LockRequest: *lockOf(holder, wait, "a")}
	}
	results, err := r.node.LockBatch(ann, []api.LockOperation{
		op(api.LockAcquire, 0, "h1"), op(api.LockAcquire, 0, "h2"), op(api.LockAcquire, time.Hour, "h3"), op(api.LockRelease, 0, "h1"), op(api.LockAcquire, 0, "h3"),
	})
	if err != nil || len(results) != 5 {
		t.Fatalf("LockBatch() = %+v, %v", results, err)
	}
	if results[0].Fence == 0 || results[1].Problem == nil || results[2].Problem == nil || results[3] != (api.LockResult{}) || results[4].Fence <= results[0].Fence {
		t.Errorf("LockBatch() = %+v", results)
	}
	if _, err := r.node.LockBatch(ann, nil); err == nil {
		t.Error("a batch of no operations was accepted")
	}
}

// TestLockHolderHasOneRequest: a name is in one request of a holder, so its release frees it.
func TestLockHolderHasOneRequest(t *testing.T) {
	r := newRig(t)
	ann := user(t.Context(), "ann")
	if _, err := r.node.Lock(ann, lockOf("h", 0, "a", "b")); err != nil {
		t.Fatal(err)
	}
	for _, wait := range []time.Duration{0, time.Hour} {
		for name, says := range map[string]string{"b": `holder "h" has requested "a", "b" already`, "b/c": "would wait for itself"} {
			_, err := r.node.Lock(ann, lockOf("h", wait, name))
			problemOf(t, err, http.StatusConflict, says)
		}
	}
	if err := r.node.Unlock(ann, "h", []string{"b"}); err != nil {
		t.Error(err)
	}
	if list, err := r.node.Locks(ann, api.LockQuery{}); err != nil || len(list.Locks) > 0 {
		t.Errorf("Locks() = %+v, %v, want none", list, err)
	}
}

// TestLockBatchConflict: the refusal of an operation names what was in its way then, and of another user no more than a list does.
func TestLockBatchConflict(t *testing.T) {
	r := newRig(t)
	ann, bob := user(t.Context(), "ann"), user(t.Context(), "bob")
	acquire := func(holder string) api.LockOperation {
		return api.LockOperation{Op: api.LockAcquire, LockRequest: *lockOf(holder, 0, "n")}
	}
	release := acquire("one")
	release.Op = api.LockRelease
	results, err := r.node.LockBatch(ann, []api.LockOperation{acquire("one"), acquire("two"), release, acquire("two")})
	if err != nil || len(results) != 4 {
		t.Fatalf("LockBatch() = %+v, %v", results, err)
	}
	if c := conflict(t, results[1].Problem, "n: not free: one holds it"); len(c.Holders) != 1 || c.Holders[0].Holder != "one" || c.Place != 1 {
		t.Errorf("the conflict is %+v, want the holder of then", c)
	}
	results, err = r.node.LockBatch(bob, []api.LockOperation{acquire("x")})
	if err != nil {
		t.Fatal(err)
	}
	if c := conflict(t, results[0].Problem, "n: not free: user ann holds it"); c.Holders[0].Holder != "" {
		t.Errorf("the conflict is %+v, want no holder of another user", c)
	}
}

// TestLockRequests: what a request may be.
func TestLockRequests(t *testing.T) {
	r := newRig(t)
	for _, wrong := range []func(*api.LockRequest){
		func(r *api.LockRequest) { r.Holder = "" },
		func(r *api.LockRequest) { r.Names = nil },
		func(r *api.LockRequest) { r.Names[0].Name = "/" },
		func(r *api.LockRequest) { r.Names[0].Mode = "loud" },
		func(r *api.LockRequest) { r.TTLMillis = 999 },
		func(r *api.LockRequest) { r.Max, r.Names[0].Mode = 2, api.LockShared },
	} {
		req := lockOf("h", 0, "a")
		wrong(req)
		_, err := r.node.Lock(t.Context(), req)
		problemOf(t, err, http.StatusUnprocessableEntity, "")
	}
}

// TestLockWaitEnds: a call that waits ends with the leadership, and with its client.
func TestLockWaitEnds(t *testing.T) {
	r := newRig(t)
	ann := user(t.Context(), "ann")
	if _, err := r.node.Lock(ann, lockOf("h1", 0, "a")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	gone, leave := context.WithCancel(ann)
	for holder, ctx := range map[string]context.Context{"h2": gone, "h3": ann} {
		go func() {
			_, err := r.node.Lock(ctx, lockOf(holder, time.Hour, "a"))
			ended <- err
		}()
	}
	r.until("both wait", func() bool {
		list, err := r.node.Locks(ann, api.LockQuery{})
		return err == nil && len(list.Locks[0].Waiting) == 2
	})
	leave()
	if err := <-ended; err == nil {
		t.Error("a call whose client is gone was granted")
	}
	r.log.depose()
	if err := <-ended; !api.IsStatus(err, http.StatusServiceUnavailable) {
		t.Errorf("a call that waits when the leader is deposed: %v", err)
	}
}

// TestReaderOfOutput: a job that reads what another one writes waits for it, and its input is listed then.
func TestReaderOfOutput(t *testing.T) {
	r := newRig(t)
	out := filepath.Join(t.TempDir(), "out")
	req := request(1)
	req.Output = out
	writer := submit(t, r.node, req, "")
	reader := submit(t, r.node, &api.JobRequest{Inputs: []string{out + "/part-*"}, Program: api.Program{Command: []string{"cat"}}, Locks: []string{"x"}}, "")
	if reader.Status != api.JobWaiting || !reader.Locking || !slices.Equal(reader.Locks, []string{"x"}) {
		t.Errorf("the reader is %+v, want it to wait", reader)
	}
	why, err := r.node.Explain(t.Context(), reader.ID, "", 0)
	if want := fmt.Sprintf("it waits for a shared lock on %s, held by job %d", out, writer.ID); err != nil || !strings.HasPrefix(why.Reasons[0], want) {
		t.Errorf("Explain() = %+v, %v, want %q", why, err, want)
	}
	if why.Lock == nil || why.Lock.Place != 1 || !why.Lock.Data || why.Lock.Holders[0].Job != writer.ID {
		t.Errorf("it waits for %+v", why.Lock)
	}
	if err := os.MkdirAll(out, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out+"/part-00000", []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.node.Stop(t.Context(), writer.ID); err != nil { // it has written something before
		t.Fatal(err)
	}
	r.worker("alice", finishAll)
	r.until("the reader is done", func() bool {
		job, _ := r.node.Job(reader.ID)
		return job.Status == api.JobDone && !job.Locking && job.InputBytes == 2
	})
}

// TestLockLostEvent: who lost a lock is told to its user and to operators, and to others only that one was lost.
func TestLockLostEvent(t *testing.T) {
	r := newRig(t)
	lost := lockOf("h1", 0, "a")
	lost.TTLMillis = uint64(api.LockTTLMin.Milliseconds())
	if _, err := r.node.Lock(user(t.Context(), "ann"), lost); err != nil {
		t.Fatal(err)
	}
	operator := access.WithPrincipal(t.Context(), access.Principal{Name: "eve", Permissions: access.Read | access.Operate})
	bob := user(t.Context(), "bob")
	for who, ctx := range map[string]context.Context{"its user": user(t.Context(), "ann"), "another": bob, "an operator": operator} {
		enough := errors.New("enough")
		err := Owned{r.node}.Events(ctx, api.Position{}, func(e api.Event) error {
			if e.Type != api.EventLockLost {
				return nil
			}
			if sees := ctx != bob; e.User != "ann" || strings.Contains(e.Detail, `"h1"`) != sees || (e.Detail != "") != sees {
				t.Errorf("%s sees the event %+v", who, e)
			}
			return enough
		})
		if !errors.Is(err, enough) {
			t.Error(err)
		}
	}
}

// TestRenewalOfADeposedLeader: a renewal does not count if another leader may have measured the time of the lock from before.
func TestRenewalOfADeposedLeader(t *testing.T) {
	r := newRig(t)
	ann := user(t.Context(), "ann")
	grant, err := r.node.Lock(ann, lockOf("h1", 0, "a"))
	if err != nil {
		t.Fatal(err)
	}
	renewal := lockOf("h1", 0, "a")
	renewal.Fence = grant.Fence
	r.log.setSilent(true)
	renewed := make(chan error)
	go func() {
		_, err := r.node.Lock(ann, renewal)
		renewed <- err
	}()
	r.until("the renewal asks for a majority", func() bool {
		r.log.mu.Lock()
		defer r.log.mu.Unlock()
		return r.log.reading > 0
	})
	r.log.elect()
	r.log.setSilent(false)
	problemOf(t, <-renewed, http.StatusServiceUnavailable, "send the request again")
	r.until("the node learns that it leads again", func() bool {
		again, err := r.node.Lock(ann, renewal)
		return err == nil && again.Fence == grant.Fence
	})
}
