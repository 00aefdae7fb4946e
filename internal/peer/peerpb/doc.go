// Package peerpb is the messages between leaders. peer.proto is the source; generate.sh makes the Go code.
package peerpb
