#!/bin/sh
# Runs every test: packages with the race detector, and then the tests of whole processes, one package at a time and without it. They
# depend on timeouts of a second or two, which processes that are ten times slower, beside other tests, would miss. A skipped test that scripts/gotest/allowed.go does not list is a failure. What the tests need
# besides Go is installed with apt on Debian as root; otherwise the last lines say what was left out, and why.
set -eu
cd "$(dirname "$0")/.."

# command:packages:what is left out without it
needs='gcc:gcc libc6-dev:the race detector
gzip:gzip:input compressed with gzip
bzip2:bzip2:input compressed with bzip2
zstd:zstd:input compressed with zstd
sort:coreutils:comparison with sort and uniq
curl:curl:requests as an ordinary client sends them
ip:iproute2:leaders in network namespaces, and multicast between them
nsenter:util-linux:leaders in network namespaces
man:man-db:warnings about the man pages
parallel:parallel:comparison with GNU parallel
promtool:prometheus:checks of the metrics and alerts by Prometheus
chromium-headless-shell:chromium-headless-shell:pages of other sites in a real browser
mkfs.ext4:e2fsprogs:power loss with writes that were not fsynced
dockerd:docker.io iptables:containers
docker-compose:docker-compose:clusters of containers
rpm:rpm:the rpm package
qemu-aarch64:qemu-user:the binary for arm64, in an emulator
systemd-analyze:systemd:checks of the units of systemd
systemd-nspawn:systemd-container:services in a system of their own'

missing() {
    echo "$needs" | while IFS=: read -r command packages what; do
        command -v "$command" >/dev/null 2>&1 || echo "$command:$packages:$what"
    done
}

if [ -n "$(missing)" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    packages=$(missing | cut -d: -f2 | tr '\n' ' ')
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # several packages
    apt-get install -y --no-install-recommends $packages >/dev/null || {
        apt-get update >/dev/null
        for package in $packages; do # not all systems have all
            apt-get install -y --no-install-recommends "$package" >/dev/null || echo "could not install $package" >&2
        done
    }
fi

race=-race
command -v gcc >/dev/null 2>&1 || race=
[ -z "$race" ] || export CGO_ENABLED=1 GORACE=atexit_sleep_ms=0 # instead of a second at the end of each process

status=0
processes='/internal/(e2e|deploy)$'
# Tests that may run in parallel wait for processes and timeouts most of the time: four of a package keep two cores busy.
# shellcheck disable=SC2046,SC2086 # many packages; no argument without the race detector
go run ./scripts/gotest $race -timeout 9m -parallel 4 "$@" $(go list ./... | grep -Ev "$processes") || status=$?
# shellcheck disable=SC2046 # several packages
go run ./scripts/gotest -timeout 9m -parallel 4 -p 1 "$@" $(go list ./... | grep -E "$processes") || status=$?

missing | while IFS=: read -r command packages what; do
    echo "left out: $what, because there is no $command on this machine (Debian: apt-get install $packages)"
done
exit "$status"
