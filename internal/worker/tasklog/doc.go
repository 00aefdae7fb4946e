// Package tasklog stores what attempts write to stderr, in one append-only file per job and worker.
//
// A file is a sequence of records: payload length and CRC-32C (4 bytes each, little endian), then the payload: stage,
// index, attempt and lease as uvarints, then text. A record of no stage has the time of those after it. There is no index: the size of a file is bounded, so a scan is fast enough
// for any query, nothing grows with the number of attempts, and an attempt that writes nothing costs nothing. Reading
// stops at the first record that is torn or damaged; after a restart, appending starts there.
//
// Text is buffered, written within [Config.FlushDelay], and then visible to followers. A worker flushes before it reports attempts,
// so that a done task's log is not lost with the process. Text that was lost, because the disk was full or a power loss has torn the
// file, is replaced by a remark, and is an error of [Log.Read] until then.
package tasklog
