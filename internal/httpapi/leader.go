package httpapi

import (
	"context"
	"io"

	"github.com/bridgefour/bridgefour/api"
)

// Leader is what the API asks of one leader of a cluster, be it the one that leads or one that follows. Every method may be
// called from many goroutines.
//
// An *api.Problem (anywhere in the error's chain) is sent to the client as it is; any other error becomes a 500 problem
// with the error's text. Methods without a context answer from memory and never wait for the log, a disk or a worker.
//
// Methods that change something work on the node that leads; on another they return api.NotLeader, and have done nothing.
// Tasks, Task, Explain and Logs may do so too: the API sends their requests on to the node that leads. All the others answer
// on every node.
type Leader interface {
	// Submit returns when the log has committed the job. A key that was seen within 24 hours returns the job it made then;
	// an empty key is none.
	Submit(ctx context.Context, req *api.JobRequest, key string) (api.Job, error)
	// Stop and Retry return when the log has committed them and Job shows it. Stopping a job that is done, and retrying one that
	// has nothing to retry, is a Conflict; stopping one that is stopped is not.
	Stop(ctx context.Context, id uint64) (api.Job, error)
	Retry(ctx context.Context, id uint64) (api.Job, error)

	Job(id uint64) (api.Job, bool)
	Jobs(q api.JobQuery) (api.JobList, error)
	// WaitJob returns nil when the job has ended, context.Cause(ctx) when ctx is done first, and a NotFound problem for an
	// unknown job.
	WaitJob(ctx context.Context, id uint64) error
	// WaitIndex returns nil when Status reports at least index, and context.Cause(ctx) when ctx is done first.
	WaitIndex(ctx context.Context, index uint64) error
	// ReadIndex returns a log position that has all that was acknowledged, by whatever node, before the call. A majority of
	// the leaders must answer for that: without one it returns api.Unavailable, or context.Cause(ctx) when ctx is done.
	ReadIndex(ctx context.Context) (index uint64, err error)

	// Tasks does not wait for a worker or the log: the original system's routes ask it for up to 10,000 tasks at once.
	Tasks(ctx context.Context, id uint64, q api.TaskQuery) (api.TaskList, error)
	Task(ctx context.Context, id uint64, stage string, index uint64) (api.Task, error)
	// Explain explains a job, or one of its tasks if stage is not empty.
	Explain(ctx context.Context, id uint64, stage string, index uint64) (api.Explanation, error)
	// Result writes the result of an ended job. It must find its errors (no result kept, a part is gone) before it writes:
	// an error before the first byte becomes a problem, one after it breaks the connection off.
	Result(ctx context.Context, id uint64, w io.Writer) error
	// Logs gives the records that the workers hold, those of one attempt in order, and with q.Follow goes on until the job
	// has ended and everything was given. It returns the first error of emit, and nil only when everything was given: a node
	// that leads no longer returns api.NotLeader. The order of one attempt's bytes must be the same on every call: a client
	// resumes by counting them.
	Logs(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error

	Cluster() api.Cluster
	Workers() []api.Worker
	Worker(id uint64) (api.Worker, bool)
	// DrainWorker returns when the leader has noted it; the drain itself goes on. Draining twice is no error.
	DrainWorker(ctx context.Context, id uint64) (api.Worker, error)
	RemoveWorker(ctx context.Context, id uint64) error

	// NotReady says why clients should use another node now; empty: this one leads and accepts writes, or hears from the leader.
	NotReady() string
	// Status is the log position that reads reflect, how long ago this node heard from the leader, and the leader's id.
	Status() (index uint64, ageMillis int64, leader uint64)
	Consensus() api.Consensus

	// LeaderAddress is the host:port of the node that leads, and whether it is this one; empty: none is known. While this node
	// is elected but does not take writes yet (it has not applied all of the log), it knows none: its own address never comes
	// with self false. It is asked on every request.
	LeaderAddress() (address string, self bool)
	// WaitLeader returns nil when LeaderAddress has an address, and context.Cause(ctx) when ctx is done first.
	WaitLeader(ctx context.Context) error
	// Leaders are all leaders of the cluster, by number.
	Leaders() api.LeaderList
	// AddLeader asks the node at address to join, and returns when it is a member (as a learner at least).
	AddLeader(ctx context.Context, address string) (api.LeaderNode, error)
	// RemoveLeader returns when the leader is no member any more. What would leave no majority is a Conflict, unless forced. A
	// node that is to remove itself hands over first and returns api.NotLeader: the client comes again to the next one.
	RemoveLeader(ctx context.Context, id uint64, force bool) error
	// InviteWorker asks the idle worker that listens at address to join, and returns when it has registered.
	InviteWorker(ctx context.Context, address string) (api.Worker, error)

	// Events emits every event after the position, oldest first, none twice, and goes on with those to come until ctx is
	// done or emit fails. It returns the first error of emit, context.Cause(ctx), or api.Gone when the event after the
	// position is no longer kept (also in the middle, when emit was too slow). A position later than the log here is no
	// error: nothing is emitted until the log is past it. Emit may block for long.
	Events(ctx context.Context, after api.Position, emit func(api.Event) error) error
}
