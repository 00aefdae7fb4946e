// Package commit makes a job's output complete, or removes it. It is the last stage of a job: one task, run on a worker, after the
// log has decided for each task which attempt's file is its output.
//
// Attempts write to the job's private folder, OUTPUT/_temporary/UID. [Publish] performs these steps in order, and makes the effects
// of each durable before the next:
//
//  1. Check that every part exists with its size. Otherwise nothing is changed.
//  2. Clear: with Overwrite, remove the manifest and then the parts of an earlier output; without, an earlier output is an error. Parts that have
//     names of their own are recorded in OUTPUT/_temporary/UID/_NAMES, those to be removed here and those to be published before the next step.
//  3. Mark the folder: OUTPUT/_temporary/UID/_OURS means that parts in OUTPUT are this job's from now on.
//  4. Publish each part as OUTPUT/part-NNNNN, or under its own name, and the collected result as OUTPUT/_RESULT.
//  5. Write the manifest, OUTPUT/_SUCCESS: the output is complete.
//  6. Remove OUTPUT/_temporary/UID.
//
// After a crash at any point it is run again from the start and has the same result, because each step detects what was done. By the
// mark it distinguishes (as does [Abort]) its own parts from those of an earlier output; later, by the manifest's uid.
package commit
