#!/bin/sh
# Runs what needs more time than make test has: more seeds of everything that is random, more power losses, and every fuzz target for
# a few seconds. Without the race detector, except for some tests of whole processes. It takes four to five minutes on two cores.
set -eu
cd "$(dirname "$0")/.."

fuzz_time=${FUZZ_TIME:-3s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

go test -count 1 -timeout 5m ./internal/sim -run '^(TestSeeds|TestHostileWorkers|TestStrangers|TestTenThousandWorkers)$' -sim.seeds 300
REPLICA_TEST_SEEDS=1-500 go test -count 1 -timeout 5m ./internal/replica/core -run '^TestMembersAgree'
go test -count 1 -timeout 5m ./internal/sched -run '^TestHour$' -sched.time 1h
go test -count 1 -timeout 5m ./internal/node -run '^TestInputIsBounded$'
go test -race -count 1 -timeout 5m ./internal/e2e -run '^(TestChaos|TestWorkerKilled|TestEverythingKilled|TestReduceKilled|TestTwoRuns)$'
go test -count 1 -timeout 5m ./internal/e2e -run '^(TestLinearizable|.*Power.*|TestServersContain|TestLargeLists)$' -linear.time 40s -powerloss.rounds 8 -contain.long -large.mib 200

grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file target; do
    target=${target#func }
    fuzz() {
        go test -count 1 -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 20x "$(dirname "$file")" >"$log" 2>&1
    }
    # go test fails if the time is over before it has run the inputs that are known, as on a loaded machine.
    fuzz "$fuzz_time" || { grep -q '^ *context deadline exceeded$' "$log" && fuzz 1m; } ||
        { cat "$log"; echo "$target fails in $file" >&2; exit 1; }
    echo "ok  	$target	$(dirname "$file")"
done
