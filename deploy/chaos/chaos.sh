#!/bin/sh
# Kills workers and leaders of a cluster of three and three at random while a job runs, starts some again, and compares the result with an independent count.
#
#   chaos.sh [--compose]      processes of this machine, or the containers of deploy/compose/compose.ha.yml
#
# SEED decides who is killed and when, TASKS (12) and SLEEP (3 s each) what the job is. BRIDGEFOUR is the binary (bin/bridgefour); containers have their own, of
# BRIDGEFOUR_IMAGE. Exit code: 0 if the job is done and its result right, 1 if not, 2 for wrong usage. All that was started is stopped and removed.
set -eu
cd "$(dirname "$0")/../.."

seed=${SEED:-$(date +%s)} tasks=${TASKS:-12} sleep=${SLEEP:-3} slots=2
deadline=300 # seconds
leaders='kaladin-01 kaladin-02 kaladin-03' workers='spren-01 spren-02 spren-03'
mode=processes
case "${1-}" in
'') ;;
--compose) mode=compose ;;
*) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

work=$(mktemp -d)
fail() { echo "chaos: $*" >&2; exit 1; }

# The nodes, as processes: up, kill_node, start_node, cleanup, and cli, which runs a command of the client.
if [ "$mode" = processes ]; then
    binary=$(realpath "${BRIDGEFOUR:-bin/bridgefour}")
    [ -x "$binary" ] || fail "there is no $binary: make build, or set BRIDGEFOUR"
    input=$work/input output=$work/output
    export XDG_STATE_HOME="$work/state"

    start_node() {
        set -- "$1" "$work/$1"
        case $1 in
        kaladin-*) set -- "$1" leader --data-dir "$2" --spool "$work/spool" --listen "$(cat "$2.address" 2>/dev/null || echo 127.0.0.1:0)" --address-file "$2.address" ;;
        spren-*) set -- "$1" worker --data-dir "$2" --slots "$slots" --leader "$(addresses)" ;;
        esac
        [ "$1" = kaladin-01 ] || [ "$2" = worker ] || set -- "$@" --join "$(cat "$work/kaladin-01.address")"
        name=$1
        shift
        "$binary" "$@" >>"$work/$name.log" 2>&1 &
        echo $! >"$work/$name.pid"
    }
    kill_node() { kill -KILL "$(cat "$work/$1.pid")" 2>/dev/null || true; rm -f "$work/$1.pid"; }
    addresses() { cat "$work"/kaladin-*.address | paste -sd, -; }
    cli() { "$binary" "$@" --cluster "$(addresses)"; }
    up() {
        for node in $leaders $workers; do
            start_node "$node"
            case $node in kaladin-*) until [ -s "$work/$node.address" ]; do sleep 0.1; done ;; esac
        done
    }
    put_input() { :; }
    cleanup() {
        for pid in "$work"/*.pid; do
            [ ! -e "$pid" ] || kill -TERM "$(cat "$pid")" 2>/dev/null || true
        done
        wait
    }
else
    unset BRIDGEFOUR_SHARED
    project=chaos$$ input=/srv/shared/input output=/srv/shared/output
    export BRIDGEFOUR_SECRETS="$work/secrets" BRIDGEFOUR_SLOTS=$slots KALADIN_PORT_1='' KALADIN_PORT_2='' KALADIN_PORT_3=''
    compose() {
        if docker compose version >/dev/null 2>&1; then set -- docker compose "$@"; else set -- docker-compose "$@"; fi
        command=$1
        shift
        [ "$command" = docker-compose ] || { command="$command $1"; shift; }
        # shellcheck disable=SC2086 # two words
        $command -p "$project" -f deploy/compose/compose.ha.yml "$@"
    }
    container() { docker ps -aq --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
    start_node() { docker start "$(container "$1")" >/dev/null; }
    kill_node() { docker kill --signal KILL "$(container "$1")" >/dev/null; }
    cli() {
        for node in $leaders; do
            [ -e "$work/$node.killed" ] || { docker exec "$(container "$node")" bridgefour "$@"; return; }
        done
    }
    up() {
        deploy/compose/secrets.sh compose.ha.yml
        compose up -d --no-build >"$work/compose.log" 2>&1
    }
    put_input() { docker cp "$work/input" "$(container kaladin-01):/srv/shared/" >/dev/null; }
    cleanup() { compose down --volumes --timeout 2 >>"$work/compose.log" 2>&1; }
fi

finish() {
    code=$?
    trap - EXIT
    if [ "$code" -gt 1 ]; then code=1; fi
    if [ "$code" != 0 ]; then tail -n 5 "$work"/*.log >&2 || true; fi
    cleanup || code=1
    rm -rf "$work"
    echo "chaos: seed $seed: $([ "$code" = 0 ] && echo passed || echo FAILED)"
    exit "$code"
}
trap finish EXIT
trap 'exit 1' INT TERM

# since is the time since the submit in seconds.
since() { echo $(($(date +%s) - begun)); }

# The plan: SECOND kill|start NODE. Two workers and a leader are killed; of each, some are started again.
awk -v seed="$seed" -v sleep="$sleep" '
    function random(n) { x = (x * 16807) % 2147483647; return int(x / 2147483647 * n) }
    BEGIN {
        x = seed % 2147483646 + 1; random(1); random(1)
        first = random(3); second = (first + 1 + random(2)) % 3; leader = random(3)
        at = 1 + random(sleep); print at, "kill spren-0" first + 1
        then = at + random(sleep); print then, "kill spren-0" second + 1
        if (random(2)) print then + 1 + random(sleep), "start spren-0" (random(2) ? first : second) + 1
        at = 1 + random(2 * sleep); print at, "kill kaladin-0" leader + 1
        if (random(3)) print at + 2, "start kaladin-0" leader + 1
    }' | sort -n >"$work/plan"
echo "chaos: seed $seed: $tasks tasks of $sleep s; three workers with $slots slots; the plan:"
sed 's/^/    second /' "$work/plan"

mkdir "$work/input"
awk -v seed="$seed" -v tasks="$tasks" -v dir="$work/input" '
    BEGIN {
        x = seed % 2147483646 + 1
        for (t = 1; t <= tasks; t++) {
            for (line = 0; line < 50; line++) {
                text = ""
                for (word = 0; word < 8; word++) { x = (x * 16807) % 2147483647; text = text (word ? " " : "") "word" x % 97 }
                print text >(dir "/" t ".txt")
            }
            close(dir "/" t ".txt")
        }
    }'
cat "$work"/input/*.txt | tr ' ' '\n' | sort | uniq -c | awk '{ print $2 "," $1 }' | sort >"$work/want"

up
until cli cluster 2>/dev/null | grep -q '3 alive' && [ "$(cli leaders 2>/dev/null | grep -c ' yes ')" = 3 ]; do
    tries=$((${tries:-0} + 1))
    [ "$tries" -lt "$deadline" ] || fail "the cluster is not complete"
    sleep 0.2
done
put_input
job=$(cli submit DelayedWordCount --set "timeout=$sleep" --input "$input" --output "$output")
begun=$(date +%s)
for worker in $workers; do echo 0 >"$work/$worker.since"; done

while :; do
    now=$(since)
    while read -r at what node; do
        if [ "${at:-$deadline}" -gt "$now" ]; then break; fi
        sed -i 1d "$work/plan"
        if [ "$what" = kill ]; then
            kill_node "$node"
            : >"$work/$node.killed"
            [ ! -e "$work/$node.since" ] || { echo "$(cat "$work/$node.since") $now" >>"$work/lives"; rm "$work/$node.since"; }
        else
            start_node "$node"
            rm "$work/$node.killed"
            case $node in spren-*) echo "$now" >"$work/$node.since" ;; esac
        fi
        echo "second $now: $what $node"
    done <<PLAN
$(cat "$work/plan")
PLAN
    status=$(cli job "$job" 2>/dev/null | awk '$1 == "status" { print $2 } $1 == "map" { print $5 " of " $2 " tasks done" }' | paste -sd' ' -) || true
    health=$(cli cluster 2>/dev/null | awk '$1 == "status" { print toupper(substr($2, 1, 1)) substr($2, 2) }') || true
    line="job ${status:-unknown}; cluster ${health:-unknown}"
    [ "$line" = "${last-}" ] || echo "second $(since): $line"
    last=$line
    case $status in
    done*) break ;;
    failed* | stopped*) cli explain "$job" >&2 || true; fail "the job is not done" ;;
    esac
    [ "$now" -lt "$deadline" ] || fail "the job has not ended after $deadline s"
    sleep 0.5
done
took=$(since)

# Each slot sleeps from the start of its worker, again and again, until that is killed: the sleeps alone end with the one that completes the last task.
for worker in $workers; do [ ! -e "$work/$worker.since" ] || echo "$(cat "$work/$worker.since") $((deadline + took))" >>"$work/lives"; done
alone=$(awk -v slots="$slots" -v sleep="$sleep" '{ for (end = $1 + sleep; end < $2; end += sleep) for (i = 0; i < slots; i++) print end }' "$work/lives" | sort -n | sed -n "${tasks}p")
echo "the job took $took s; the sleeps alone need $alone s"

cli result "$job" | sort >"$work/got"
diff "$work/want" "$work/got" || fail "the result differs from an independent count"
echo "the result is that of an independent count: $(wc -l <"$work/want") words"
