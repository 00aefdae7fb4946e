// Package tasklog keeps what attempts write to stderr, in one append-only file per job and worker.
//
// A file is a sequence of records: payload length and CRC-32C (4 bytes each, little endian), then the payload: stage,
// index, attempt and lease as uvarints, then text. There is no index: a file has a size limit, so that a scan answers any
// question soon, nothing grows with the number of attempts, and an attempt that writes nothing costs nothing. Reading
// stops at the first record that is torn or damaged; appending after a restart begins there.
//
// Text is buffered and written within [Config.FlushDelay], and then seen by those who follow.
package tasklog
