// Package commit makes a job's output complete, or leaves nothing of it. It is the last stage of a job: one task, run on a
// worker, after the log has decided for each task which attempt's file is its output.
//
// Attempts write to OUTPUT/_temporary/UID/, which is private to the job. [Publish] then goes, in this order and with what each
// step did made durable before the next begins:
//
//  1. Look: every part is there, with its size. If not, nothing is changed.
//  2. Clear: with Overwrite, the manifest and then the parts of an earlier output are removed; without, they are an error.
//  3. Mark: OUTPUT/_temporary/UID/_OURS says that parts in OUTPUT are this job's from now on.
//  4. Publish each part as OUTPUT/part-NNNNN, and the collected result as OUTPUT/_RESULT.
//  5. Write the manifest, OUTPUT/_SUCCESS: the output is complete.
//  6. Remove OUTPUT/_temporary/UID.
//
// After a crash at any point it is run again from the start and comes to the same end: what a step has done it finds done. The
// mark tells it (and [Abort]) parts of its own from those of an earlier output, and the manifest's uid takes over from the mark.
package commit
