#!/bin/sh
# Checks what no test does: format, vet, lint, tidiness of go.mod, generated code.
set -eu
cd "$(dirname "$0")/.."

linter_version=v2.15.0
linter="$(go env GOPATH)/bin/golangci-lint"
if ! "$linter" version 2>/dev/null | grep -q "version v\?${linter_version#v} "; then
    echo "installing golangci-lint $linter_version" >&2
    go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$linter_version"
fi

go build ./...
go vet ./...
unformatted=$("$linter" fmt --diff)
if [ -n "$unformatted" ]; then
    echo "$unformatted"
    echo "not formatted: run $linter fmt" >&2
    exit 1
fi
"$linter" run
go mod tidy -diff
scripts/check-generated.sh
if command -v shellcheck >/dev/null 2>&1; then
    shellcheck scripts/*.sh internal/wire/generate.sh internal/peer/peerpb/generate.sh .ci/run
fi
echo "check: fine"
