// Package bridgefour is the SDK for jobs.
//
// A job is made of typed functions, whose order makes its stages: [Map] reads the input, [Combine], [Reduce], [Groups], [Sort] and [Top]
// read what the stage before them made, by key, and [Collect] reads all of it in order. [New] names the job and its settings:
//
//	type Config struct {
//		MinLength int `b4:"min_length,default=1"`
//	}
//
//	func words(cfg Config) (b4.Output, error) {
//		words := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, int64]) error {
//			for w := range bytes.FieldsSeq(line) {
//				if len(w) >= cfg.MinLength {
//					emit(string(w), 1)
//				}
//			}
//			return nil
//		})
//		return b4.Combine(words, b4.Sum[int64]), nil
//	}
//
//	var job = b4.New("words", words)
//
// Functions that follow each other without one of Combine, Groups, Reduce, Sort, Top or Collect between them run in one stage: nothing is encoded or written
// between them. A key that is a []byte takes no allocation for each pair, which a string does.
//
// What is written is text. [ReadPairs] makes typed pairs of it again, in a test or in a program that has submitted the job with package client.
//
// A [Mapper] is the level below. It reads one split of the input at a time and writes that split's part:
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
// The engine decides where and how often a task runs. It may run several times, even concurrently on two machines, but exactly one of these
// attempts becomes visible. So functions that only read what they are given and emit, or write to [Task.Out], need not consider crashes; other
// side effects must be safe to repeat.
//
// One value of a Mapper serves all slots of a worker: Map and Collect are called concurrently. The functions of a typed job are made for each slot
// by the function that builds it.
//
// A mapper that also has a Collect method (see [Collector]) ends with one more task, which merges the parts into the small result
// that is shown when the job is done. A job that needs no input, or has settings, says so in Describe (see [Describer]).
//
// # Errors
//
// A nil error means that the task is done. Any other error, and a panic, is a program error: the task is retried, up to the job's
// number of retries. [BadInput] marks errors that a retry would repeat, [RetryAfter] those that pass by themselves, and [Cancel] those that make the rest of the
// job useless.
//
// Read and write errors of a task are kept: a Map that ignores one fails all the same.
//
// A function runs in the process of its worker, which os.Exit and a panic in a goroutine of the function end, with the other tasks that it runs. An embedded run
// ends with it, and with the exit code that is given to os.Exit: 0 looks like success.
//
// # Programs and tests
//
// Package engine makes a program of jobs, which runs them on one machine or many. Package bridgefourtest runs a job in a test, in memory.
package bridgefour
