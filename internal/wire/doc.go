// Package wire holds the messages between leader and worker. wire.proto is the source; generate.sh makes the Go code.
package wire
