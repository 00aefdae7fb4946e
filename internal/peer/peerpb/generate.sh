#!/bin/sh
# Regenerates peer.pb.go and peer_grpc.pb.go. Needs protoc, protoc-gen-go and protoc-gen-go-grpc on the PATH.
set -eu
cd "$(dirname "$0")"
protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative peer.proto
