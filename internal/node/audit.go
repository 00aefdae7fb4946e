package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// auditOf returns the audit record of the request in ctx; nil: there is none, the node acts by itself.
func auditOf(ctx context.Context) *state.Audit {
	who := access.From(ctx)
	if who.Action == "" {
		return nil
	}
	return &state.Audit{User: who.Name, Role: who.Role, Token: cmp.Or(who.Token, who.Outside), Address: who.Address, Action: who.Action}
}

// audited records a request whose change is not in the state. One that was done stays done if the record cannot be written.
func (n *Node) audited(ctx context.Context, err error) {
	a := auditOf(ctx)
	if notLeader := (*api.Problem)(nil); a == nil || errors.As(err, &notLeader) && notLeader.Type == api.TypeNotLeader {
		return
	}
	if err != nil {
		a.Verdict = err.Error()
	}
	key := newID()
	if _, err := n.execute(ctx, key, func(e *state.Entry) { e.By = nil; e.Audit(key, a) }); err != nil {
		n.log.WarnContext(ctx, "no audit record", "action", a.Action, "user", a.User, "address", a.Address, "error", err)
	}
}

// Refused requests are recorded at this rate: they must not push everything else out of the history.
const (
	refusedRate  = rate.Limit(1)
	refusedBurst = 20
)

// refusals limits the records of refused requests.
type refusals struct {
	mu      sync.Mutex
	limit   *rate.Limiter
	dropped int // since the last record
	// queue holds records on their way to the log, of which only the leader has one.
	queue chan *state.Audit
}

func newRefusals() refusals {
	return refusals{limit: rate.NewLimiter(refusedRate, refusedBurst), queue: make(chan *state.Audit, refusedBurst)}
}

// next returns how many were dropped before this one, or false if it is to be dropped.
func (r *refusals) next(now time.Time) (dropped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.limit.AllowN(now, 1) {
		r.dropped++
		return 0, false
	}
	dropped, r.dropped = r.dropped, 0
	return dropped, true
}

// lose counts records that were lost on their way.
func (r *refusals) lose(records int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped += records
}

// Refused records a request that the caller refuses, if that is not too often. It does not wait. A follower's records go to the leader. If there
// is none, 20 wait for the next one; of others, and of any that are lost, the next record has the number.
func (n *Node) Refused(ctx context.Context, err error) {
	a := auditOf(ctx)
	if a == nil || !api.IsStatus(err, http.StatusUnauthorized) && !api.IsStatus(err, http.StatusForbidden) && !api.IsStatus(err, http.StatusTooManyRequests) {
		return
	}
	dropped, ok := n.refusals.next(time.Now())
	if !ok {
		return
	}
	if a.Verdict = err.Error(); dropped > 0 {
		a.Verdict = fmt.Sprintf("(and %d more) %s", dropped, a.Verdict)
	}
	n.log.WarnContext(ctx, "request refused", "action", a.Action, "user", a.User, "token", a.Token, "address", a.Address, "verdict", a.Verdict)
	select {
	case n.refusals.queue <- a:
	default:
		n.refusals.lose(dropped + 1)
	}
	for n.ready.leading() {
		select {
		case a := <-n.refusals.queue:
			n.recordRefused(a)
		default:
			return
		}
	}
}

// recordRefused adds an audit record to the log of the leader.
func (n *Node) recordRefused(a *state.Audit) {
	if c, _ := n.views.Cluster(); c.Level < 2 { // members that do not know such a record
		n.refusals.lose(1)
		return
	}
	select {
	case n.inputs <- message{in: leader.Command{Add: func(e *state.Entry) { e.Audit("", a) }}}:
	default: // the node has more to do than it can
		n.refusals.lose(1)
	}
}

// RecordRefused adds the audit record of a follower.
func (n *Node) RecordRefused(_ context.Context, r *wire.RefusedRequest) (*wire.RefusedRecorded, error) {
	if !n.ready.leading() {
		return nil, status.Error(codes.Unavailable, n.notLeader().Error())
	}
	n.recordRefused(&state.Audit{
		User: r.GetUser(), Role: r.GetRole(), Token: r.GetToken(), Address: r.GetAddress(), Action: r.GetAction(), Verdict: r.GetVerdict(),
	})
	return &wire.RefusedRecorded{}, nil
}

// forwardRefused sends the audit records of this follower to the leader until ctx is done.
func (n *Node) forwardRefused(ctx context.Context, to wire.LeaderClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-n.refusals.queue:
			r := &wire.RefusedRequest{User: a.User, Role: a.Role, Token: a.Token, Address: a.Address, Action: wire.FailureMessage(a.Action), Verdict: wire.FailureMessage(a.Verdict)}
			if _, err := to.RecordRefused(ctx, r); err != nil {
				n.refusals.lose(1)
				n.log.DebugContext(ctx, "audit record not sent to the leader", "error", err)
			}
		}
	}
}

// auditFile is a file to which the audit records of the cluster are appended, as JSON lines.
type auditFile struct {
	f       *os.File
	size    int64 // up to the end of the last whole line
	cluster string
	last    api.Position // of that line
}

// auditLine is a line of the file.
type auditLine struct {
	Time    time.Time `json:"time"`
	Cluster string    `json:"cluster"`
	Index   uint64    `json:"index"`
	Seq     uint32    `json:"seq"`
	Job     uint64    `json:"job,omitempty"`
	Worker  uint64    `json:"worker,omitempty"`
	Missing bool      `json:"missing,omitempty"` // records before this position may be missing
	*api.Audit
}

// openAudit opens the file at path, which only this user can read, and finds where it ends. A line that was cut off is removed.
func openAudit(path string) (*auditFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit file: %w", err)
	}
	a := &auditFile{f: f}
	if err := errors.Join(f.Chmod(0o600), a.findEnd()); err != nil {
		return nil, fmt.Errorf("audit file %s: %w", path, errors.Join(err, f.Close()))
	}
	return a, nil
}

func (a *auditFile) findEnd() error {
	info, err := a.f.Stat()
	if err != nil {
		return err
	}
	const tailBytes = 64 << 10 // more than two lines
	from := max(0, info.Size()-tailBytes)
	tail := make([]byte, info.Size()-from)
	if _, err := a.f.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	whole := tail[:bytes.LastIndexByte(tail, '\n')+1]
	var last auditLine
	if lines := bytes.Split(bytes.TrimSpace(whole), []byte("\n")); len(whole) > 0 {
		if err := json.Unmarshal(lines[len(lines)-1], &last); err != nil {
			return fmt.Errorf("it ends with something else than an audit record: %w", err)
		}
	}
	a.size, a.cluster, a.last = from+int64(len(whole)), last.Cluster, api.Position{Index: last.Index, Seq: last.Seq}
	return a.f.Truncate(a.size)
}

// append writes a line, or nothing of it.
func (a *auditFile) append(line *auditLine) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	n, err := a.f.Write(append(text, '\n'))
	if err != nil {
		return errors.Join(err, a.f.Truncate(a.size))
	}
	a.size += int64(n)
	return nil
}

// writeAudit appends the audit records of the cluster to a file until ctx is done. After a failure, such as a full disk, it tries again.
func (n *Node) writeAudit(ctx context.Context, a *auditFile) {
	defer a.f.Close() //nolint:errcheck // each line was written
	const retryEvery = time.Second
	retry := time.NewTimer(0)
	defer retry.Stop()
	at, cluster := a.last, n.members.Load().Cluster
	if a.cluster != cluster {
		at = api.Position{}
	}
	for said := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		}
		err := n.Events(ctx, at, func(e api.Event) error {
			if e.Type == api.EventAudited {
				if err := a.append(&auditLine{Time: e.Time, Cluster: cluster, Index: e.Index, Seq: e.Seq, Job: e.Job, Worker: e.Worker, Audit: e.Audit}); err != nil {
					return fmt.Errorf("audit file: %w", err)
				}
			}
			at, said = api.Position{Index: e.Index, Seq: e.Seq}, ""
			return nil
		})
		if api.IsStatus(err, http.StatusGone) {
			at, err = a.skip(ctx, n, at, cluster)
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			n.log.WarnContext(ctx, "audit records are not written; trying again", "error", err)
		}
		retry.Reset(retryEvery)
	}
}

// skip continues with the oldest record that is kept, and says in the file that older ones may be missing.
func (a *auditFile) skip(ctx context.Context, n *Node, at api.Position, cluster string) (api.Position, error) {
	var first state.Position
	if err := n.do(ctx, func() { first = n.loop.controller.Machine().FirstFact() }); err != nil {
		return at, err
	}
	next := api.Position{Index: first.Index, Seq: first.Seq}
	if err := a.append(&auditLine{Time: time.Now().UTC(), Cluster: cluster, Index: next.Index, Seq: next.Seq, Missing: true}); err != nil {
		return at, err
	}
	return next, nil
}
