// Package program runs the programs of jobs: built-in jobs, in the worker's process, and commands. A [Program] runs
// the tasks of all stages but commit. To add a kind of program, implement it and extend [Loader.Load].
//
// # Commands
//
// A command runs under the slot's keeper (package keeper), in the job's working directory. It reads its split, decompressed, from standard
// input. If an argument contains {}, that is replaced by the input's path or the item, and there is no standard input; otherwise
// an item becomes the last argument. When the command has ended, all processes that it started and that are left are killed.
//
// Its environment is PATH, HOME, USER, LANG and TZ of the worker, unless Loader.EnvAll gives it all, the variables of the job, and these:
//
//	B4_JOB B4_TASK B4_ATTEMPT  numbers of the job, the task in its stage (from 0) and the attempt (from 1)
//	B4_STAGE                   name of the stage: map
//	B4_INPUT                   path of the input, or the item
//	B4_OFFSET B4_LENGTH        the split in the input, in bytes; empty for a whole file and for items
//	B4_OUTPUT                  the job's output folder; empty for a job without --output
//	B4_WORKER                  number of the worker
//	B4_RESOURCE_NAME           ids of the resource NAME that the attempt has, with commas; those of gpu also in CUDA_VISIBLE_DEVICES
//	TMPDIR                     a folder for temporary files, which is empty at the start and removed at the end
//	B4_SET_KEY                 the setting KEY, in upper case, with _ for all but letters and digits
package program
