#!/bin/sh
# Compares the generated message code with what its sources generate now. Without protoc and its Go plugins, or with other versions
# of them than those that generated the files, it says so and checks nothing.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$(go env GOPATH)/bin"

for tool in protoc protoc-gen-go protoc-gen-go-grpc; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "generated code not compared: there is no $tool on this machine" >&2
        exit 0
    fi
done

# versions are the lines at the top of the generated files of $2 in folder $1 that name the tools.
versions() { grep -h '^//.*protoc' "$1/$2.pb.go" "$1/$2_grpc.pb.go" | sort -u; }

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for source in internal/wire/wire.proto internal/peer/peerpb/peer.proto; do
    folder=$(dirname "$source")
    name=$(basename "$source" .proto)
    cp "$source" "$folder/generate.sh" "$fresh"
    "$fresh/generate.sh"
    if [ "$(versions "$fresh" "$name")" != "$(versions "$folder" "$name")" ]; then
        echo "generated code not compared: this machine has other versions of protoc or its plugins" >&2
        exit 0
    fi
    for file in "$name.pb.go" "${name}_grpc.pb.go"; do
        if ! diff -u "$folder/$file" "$fresh/$file"; then
            echo "$folder/$file is outdated: run $folder/generate.sh" >&2
            exit 1
        fi
    done
done
