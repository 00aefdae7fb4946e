package node

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Quotas returns all quotas, by user.
func (n *Node) Quotas() []api.Quota {
	list := []api.Quota{}
	for _, q := range n.Access().Quotas().All() {
		list = append(list, api.Quota{User: q.User, QuotaRequest: api.QuotaRequest{Slots: q.Slots, Jobs: q.Jobs, Weight: q.Weight}})
	}
	return list
}

// SetQuota sets what a user may use.
func (n *Node) SetQuota(ctx context.Context, q api.Quota) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) {
		e.SetQuota(key, state.Quota{User: q.User, Slots: q.Slots, Jobs: q.Jobs, Weight: q.Weight})
	})
}

// RemoveQuota removes the quota of a user.
func (n *Node) RemoveQuota(ctx context.Context, user string) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.RemoveQuota(key, user) })
}

// The submits of a user that one leader accepts. A loop of 'bridgefour submit' stays below; a program that submits in an endless loop must not
// fill the log.
const (
	submitRate  = rate.Limit(100) // a second
	submitBurst = state.SubmissionMax
)

// checkRate refuses a submit of so many jobs of a user who submits too fast. Administrators are not limited, and so no user of a cluster on one machine.
func (n *Node) checkRate(who access.Principal, jobs int) error {
	if who.Permissions&access.Manage != 0 || n.submits.AllowN(who.Name, time.Now(), jobs) {
		return nil
	}
	return api.TooFast("user %q submits more than %.0f jobs a second: submit them more slowly, or as the tasks of one job (--lines)",
		who.Name, float64(submitRate))
}

// priorityDefault is the highest priority of jobs of users.
const priorityDefault = 50

// checkPriority refuses a priority above that of others to users who do not operate the cluster.
func checkPriority(who access.Principal, priority uint32) error {
	if priority <= priorityDefault || who.Permissions&access.Operate != 0 {
		return nil
	}
	return api.NewProblem(http.StatusForbidden, "priority %d: a priority above %d is for operators, and %s; submit with --priority %d or less",
		priority, priorityDefault, who, priorityDefault)
}
