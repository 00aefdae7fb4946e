// Package bridgefour is the SDK for jobs.
//
// A job reads one split of the input at a time and writes that split's part:
//
//	type lineLengths struct{}
//
//	func (lineLengths) Name() string { return "line-lengths" }
//
//	func (lineLengths) Map(_ context.Context, t *bridgefour.Task) error {
//		records := t.Records()
//		for records.Scan() {
//			t.Out().EmitInt(records.Bytes(), int64(len(records.Bytes())))
//		}
//		return records.Err()
//	}
//
// The engine decides where and how often Map runs. It may run several times for one split, even concurrently on two machines, but
// exactly one of these attempts becomes visible. So a Map that only reads its task and writes to [Task.Out] need not consider
// crashes; other side effects must be safe to repeat.
//
// One value of a job serves all slots of a worker: Map and Collect are called concurrently.
//
// A job that also has a Collect method (see [Collector]) ends with one more task, which merges the parts into the small result
// that is shown when the job is done. A job that needs no input, or has settings, says so in Describe (see [Describer]).
//
// # Errors
//
// A nil error means that the task is done. Any other error, and a panic, is a program error: the task is retried, up to the job's
// number of retries. [BadInput] marks errors that a retry would repeat.
//
// Read and write errors of a task are kept: a Map that ignores one fails all the same.
//
// # Tests
//
// Package bridgefourtest runs a job in-process.
package bridgefour
