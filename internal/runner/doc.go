// Package runner runs one attempt of a task: it gives the job's program its input, and makes what the program writes the
// attempt's output.
//
// A [Slot] runs one attempt at a time and keeps what the next one can use: buffers, decoders, and for commands the keeper
// (package keeper). What a command writes to a new pipe is written to the attempt's file and log as if a built-in job wrote it. One that
// writes nothing costs no file.
//
// An attempt writes to the job's private folder, which is created when it is first needed, and to one file there, see
// package layout. The runner makes nothing durable or visible: the worker syncs, the leader's log decides, the commit task
// publishes.
//
// An output is complete once no process of the attempt is left. If another process can still write to it, such as a daemon that was
// given the descriptor, the attempt fails: it may have more to write.
package runner
