// Package program runs what the tasks of a job are: a built-in job in the worker's own process, or a command. A [Program]
// has a method for each role of a stage; another kind of program implements it, and [Loader.Load] makes it.
//
// # Commands
//
// A command runs in a process group of its own, in the job's working directory. It reads its split, decompressed, from
// standard input. If an argument contains {}, it gets the input's path or the item there and no standard input; an item
// that no argument asks for becomes the last argument. When the command has ended, what is left of its group is
// killed. A process that has left the group (setsid, timeout) is not.
//
// To the worker's own environment are added
//
//	B4_JOB B4_TASK B4_ATTEMPT  numbers of the job, the task in its stage (from 0) and the attempt (from 1)
//	B4_STAGE                   name of the stage: map
//	B4_INPUT                   path of the input, or the item
//	B4_OFFSET B4_LENGTH        the split in the input, in bytes; empty for a whole file and for items
//	B4_OUTPUT                  the job's output folder; empty for a job without --output
//	B4_WORKER                  number of the worker
//	B4_SET_KEY                 the setting key, in upper case, with _ for what is neither letter nor digit
package program
