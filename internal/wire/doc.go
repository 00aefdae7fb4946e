// Package wire is the messages between leader and worker. wire.proto is the source; generate.sh generates the Go code.
package wire

// Versions of the messages. A binary has Protocol and supports ProtocolMin, that of the previous minor release, so that leaders and
// workers can be upgraded one by one. Messages older than versions have 0, which means 1.
const (
	Protocol    = 2
	ProtocolMin = 1
)
