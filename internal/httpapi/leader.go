package httpapi

import (
	"context"
	"io"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// Certifier issues certificates for workers and leaders.
type Certifier interface {
	// Certify enrolls the machine whose key the connection of the request proves, or renews its certificate. It returns once that is committed.
	Certify(ctx context.Context, r api.CertificateRequest) (api.Certificate, error)
	// RotateAuthority returns once the cluster has a new certificate authority.
	RotateAuthority(ctx context.Context, replaceKey, now bool) (api.Authority, error)
}

// Leader is one leader of a cluster, leading or following, as the API uses it. Its methods may be called concurrently. Package
// leadertest holds the suite for implementations.
//
// An *api.Problem (anywhere in the error's chain) is sent to the client as it is; any other error becomes a 500 problem
// with the error's text. Job, Jobs and methods without a context answer from memory and never wait for the log, a disk or a worker. The
// principal in the context (package access) decides how much of a job is shown, and whether it can be changed: else that is a 403 problem.
//
// Writes work on the node that leads; on others they return api.NotLeader and have no effect. Tasks, Task, Explain and Logs may
// return it too: the API forwards their requests to the node that leads. All other methods work on every node.
type Leader interface {
	// SubmitStream returns the job's number, and warnings for the user, once the job is committed and visible in Job. A key used within
	// 24 hours returns the job of that submission; an empty key is none. Read is called once. It passes the lines of the job to line, each
	// without its newline, and returns the request, whose Lines are not nil if the body has lines, even an empty list.
	SubmitStream(ctx context.Context, key string, read func(line func([]byte) error) (*api.JobRequest, error)) (id uint64, warnings []string, err error)
	// Submit is SubmitStream of a request in memory.
	Submit(ctx context.Context, req *api.JobRequest, key string) (id uint64, warnings []string, err error)
	// SubmitFlow submits several jobs, all or none, and returns the numbers and warnings of each, in the order of the request. The key is as of
	// SubmitStream.
	SubmitFlow(ctx context.Context, req *api.FlowRequest, key string) (ids []uint64, warnings [][]string, err error)
	// Stop and Retry return once they are committed and visible in Job. Stopping a job that is done, and retrying one that
	// has nothing to retry, is a Conflict; stopping one that is stopped is not. A retry is Invalid if a file of the input is gone, or has
	// changed and has several splits, and api.Gone if a job is done and this node does not see the spool that its result is in.
	Stop(ctx context.Context, id uint64) error
	Retry(ctx context.Context, id uint64) error
	// Forget returns once the removal of an ended job is committed and visible in Job. Removing one that has not ended is a Conflict.
	Forget(ctx context.Context, id uint64) error
	// Pin returns once it is committed and visible in Job that the job is kept whatever the retention is, or no longer is.
	Pin(ctx context.Context, id uint64, pinned bool) error

	Job(ctx context.Context, id uint64) (api.Job, bool)
	Jobs(ctx context.Context, q api.JobQuery) (api.JobList, error)
	// WaitJob returns nil once the job has ended, context.Cause(ctx) if ctx is done first, and a NotFound problem for an unknown job.
	WaitJob(ctx context.Context, id uint64) error
	// WaitIndex returns nil once Status reports at least index, and context.Cause(ctx) if ctx is done first.
	WaitIndex(ctx context.Context, index uint64) error
	// ReadIndex returns a log position that covers everything acknowledged, by any node, before the call. Without a majority of the
	// leaders it returns api.Unavailable, or context.Cause(ctx) if ctx is done.
	ReadIndex(ctx context.Context) (index uint64, err error)

	// Tasks does not wait for a worker or the log: package compat requests up to 10,000 tasks at once.
	Tasks(ctx context.Context, id uint64, q api.TaskQuery) (api.TaskList, error)
	Task(ctx context.Context, id uint64, stage string, index uint64) (api.Task, error)
	// Explain explains a job, or one of its tasks if stage is not empty.
	Explain(ctx context.Context, id uint64, stage string, index uint64) (api.Explanation, error)
	// Result writes the result of an ended job. It must detect errors (no result kept, a missing part) before it writes: an error
	// before the first byte becomes a problem, a later one aborts the connection.
	Result(ctx context.Context, id uint64, w io.Writer) error
	// StreamParts emits the outputs of tasks as they finish, until the job has ended; those of a task in order and together. Those of tasks that
	// fail are missing. The job must be one without an output of its own, or done.
	StreamParts(ctx context.Context, q api.PartQuery, emit func(api.Part) error) error
	// Joblog writes a table with a line for each task that is done or dead, in task order.
	Joblog(ctx context.Context, id uint64, w io.Writer) error
	// Times returns the run times of the done tasks, with the slowest of them.
	Times(ctx context.Context, id uint64, slowest int) (api.Times, error)
	// Logs emits the records that the workers hold, those of an attempt in order, and with q.Follow continues until the job has
	// ended. It returns the first error of emit, nil only if the logs are complete, and api.NotLeader if this node stops leading.
	// The order of an attempt's bytes must be the same on every call: clients resume by counting them.
	Logs(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error

	Cluster() api.Cluster
	Workers() []api.Worker
	Worker(id uint64) (api.Worker, bool)
	// DrainWorker returns once the drain is committed, not when it is over. Draining twice is no error.
	DrainWorker(ctx context.Context, id uint64) (api.Worker, error)
	RemoveWorker(ctx context.Context, id uint64) error

	// NotReady is the reason why clients should use another node; empty: this one leads and accepts writes, or hears from the leader.
	NotReady() string
	// Status is the log position of reads, the time since this node heard from the leader, and the leader's ID.
	Status() (index uint64, ageMillis int64, leader uint64)
	Consensus() api.Consensus

	// LeaderAddress is the host:port of the node that leads, and whether it is this one; empty: unknown. A node that is elected but
	// has not applied all of the log, so does not accept writes yet, knows no leader: its own address is never returned with self
	// false. Called for every request.
	LeaderAddress() (address string, self bool)
	// WaitLeader returns nil once LeaderAddress has another address than gone, and context.Cause(ctx) if ctx is done first.
	WaitLeader(ctx context.Context, gone string) error
	// Leaders are all leaders of the cluster, by number.
	Leaders() api.LeaderList
	// AddLeader invites the node at address, and returns once it is a member, at least as a learner.
	AddLeader(ctx context.Context, address string) (api.LeaderNode, error)
	// RemoveLeader returns once the leader is no longer a member. Removing the majority is a Conflict, unless forced. A node that is
	// to remove itself hands over first and returns api.NotLeader: the client tries the next one.
	RemoveLeader(ctx context.Context, id uint64, force bool) error
	// InviteWorker invites the idle worker that listens at address, and returns once it has registered. With an id, one that cannot be reached
	// is a dead worker from then on, and is invited until it comes or is removed.
	InviteWorker(ctx context.Context, address string, id *uint64) (api.Worker, error)

	// Refused records a request that the API has refused. It does not wait.
	Refused(ctx context.Context, err error)
	// Tokens are all tokens, oldest first.
	Tokens() []api.Token
	// CreateToken returns once the token is committed. A ttl of 0 has no end.
	CreateToken(ctx context.Context, role, user string, ttl time.Duration) (api.NewToken, error)
	// RevokeToken returns once the token is no longer accepted by this node.
	RevokeToken(ctx context.Context, id string) error

	// Quotas are all quotas, by user.
	Quotas() []api.Quota
	// SetQuota and RemoveQuota return once they are committed. Removing a quota that is not there is a NotFound.
	SetQuota(ctx context.Context, q api.Quota) error
	RemoveQuota(ctx context.Context, user string) error
	// Retentions are that of all jobs together, then those of users.
	Retentions() []api.Retention
	// SetRetention returns once it is committed. One without bounds is removed.
	SetRetention(ctx context.Context, r api.Retention) error

	// Lock acquires the names of a request, all or none, or renews them if the same user and holder has the same names. A conflict is a 409 problem with Lock: the
	// request keeps its place if that says waiting. It waits at most LockCallMax. Too many waiting calls, and too many requests, are a 429.
	Lock(ctx context.Context, r *api.LockRequest) (api.LockGrant, error)
	// Unlock releases or withdraws the request of a holder that has one of these names. There need not be one. An operator may do it to others.
	Unlock(ctx context.Context, holder string, names []string) error
	// LockBatch carries out operations in order, without waiting, and returns a result for each. If one is invalid, none is carried out.
	LockBatch(ctx context.Context, ops []api.LockOperation) ([]api.LockResult, error)
	// Locks is a page of the names that are held or waited for, which only the node that leads knows.
	Locks(ctx context.Context, q api.LockQuery) (api.LockList, error)

	// Events emits every event after the position once, oldest first, and continues with new ones until ctx is done or emit fails. It
	// returns the first error of emit, context.Cause(ctx), or api.Gone if the event after the position is no longer kept (also
	// later, if emit was too slow). For a position after the end of the log nothing is emitted until the log is past it. Emit
	// may block.
	Events(ctx context.Context, after api.Position, emit func(api.Event) error) error
}
