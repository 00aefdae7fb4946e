#!/bin/sh
# Compares the generated code of internal/wire with what its source gives now. Needs protoc and its Go plugins; without them, or
# with other versions of them than those that made the files, it says so and checks nothing.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$(go env GOPATH)/bin"

for tool in protoc protoc-gen-go protoc-gen-go-grpc; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "generated code not compared: there is no $tool on this machine" >&2
        exit 0
    fi
done

# versions are the lines at the top of a generated file that name the tools.
versions() { grep -h '^//.*protoc' "$1"/wire.pb.go "$1"/wire_grpc.pb.go | sort -u; }

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
cp internal/wire/wire.proto internal/wire/generate.sh "$fresh"
"$fresh/generate.sh"
if [ "$(versions "$fresh")" != "$(versions internal/wire)" ]; then
    echo "generated code not compared: this machine's protoc or plugins are of other versions than those that made it" >&2
    exit 0
fi
for file in wire.pb.go wire_grpc.pb.go; do
    if ! diff -u "internal/wire/$file" "$fresh/$file"; then
        echo "internal/wire/$file is not what wire.proto gives: run internal/wire/generate.sh" >&2
        exit 1
    fi
done
