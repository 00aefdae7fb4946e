// Package bridgefour is what a job is written with.
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
// The engine decides where and how often Map runs. It may run more than once for the same split, also at the same time
// on two machines; of all these attempts exactly one part becomes visible. So a Map that only reads its task and writes to
// [Task.Out] needs no thought about crashes, and one that changes the world outside must bear being run twice.
//
// One value of a job serves all slots of a worker: Map and Collect are called from many goroutines at once.
//
// A job that also has a Collect method (see [Collector]) ends in one more task, which merges the parts into the small
// result that is shown when the job is done.
//
// # Errors
//
// A nil error means that the task is done. Any other error, and a panic, is a program error: the task is tried again, up
// to the job's number of retries. [BadInput] says that trying again is no use.
//
// What goes wrong with reading or writing is remembered by the task: a Map that overlooks it fails all the same.
//
// # Tests
//
// Package bridgefourtest runs a job in-process.
package bridgefour
