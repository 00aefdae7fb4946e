// Package wire holds the messages between leader and worker. wire.proto is the source; generate.sh makes the Go code.
package wire

// Versions of the messages. A program speaks Protocol and can do with ProtocolMin: that of the previous minor release, so
// that leaders and workers are upgraded one by one. Messages from before there were versions say 0, which means 1.
const (
	Protocol    = 1
	ProtocolMin = 1
)
