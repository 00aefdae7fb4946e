#!/bin/sh
# Checks that are not tests: format, vet, lint, dead code, go.mod, generated code.
set -eu
cd "$(dirname "$0")/.."

linter_version=v2.15.0
linter="$(go env GOPATH)/bin/golangci-lint"
if ! "$linter" version 2>/dev/null | grep -q "version v\?${linter_version#v} "; then
    echo "installing golangci-lint $linter_version" >&2
    go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$linter_version"
fi

deadcode_version=v0.52.0
deadcode="$(go env GOPATH)/bin/deadcode"
if ! go version -m "$deadcode" 2>/dev/null | grep -q "golang.org/x/tools[[:space:]]$deadcode_version\b"; then
    echo "installing deadcode $deadcode_version" >&2
    go install "golang.org/x/tools/cmd/deadcode@$deadcode_version"
fi

go build ./...
go vet ./...
GOOS=darwin go vet ./... # it compiles the files that are not for Linux
GOOS=linux GOARCH=arm64 go vet ./... # the image is for it, too
unformatted=$("$linter" fmt --diff) || true # it fails if there is a difference
if [ -n "$unformatted" ]; then
    echo "$unformatted"
    echo "not formatted: run $linter fmt" >&2
    exit 1
fi
"$linter" run
# The SDK, for programs of users, and packages that only tests use are left out: the test binaries are no roots, so that code that only tests use is found.
dead=$("$deadcode" ./... | grep -Ev '^[a-z_]+[.]go:|^internal/(sim|transcript)/|^(internal/.*/|examples/)?[a-z]+test/' || true)
if [ -n "$dead" ]; then
    echo "$dead"
    echo "dead code: remove it, or move it into the tests that use it" >&2
    exit 1
fi
go mod tidy -diff
scripts/check-generated.sh
if command -v shellcheck >/dev/null 2>&1; then
    shellcheck scripts/*.sh deploy/*/*.sh internal/wire/generate.sh internal/peer/peerpb/generate.sh .ci/run
fi
echo "check: ok"
