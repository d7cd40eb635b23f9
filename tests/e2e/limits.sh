#!/usr/bin/env bash
# The limits that strangers and memory have, and processes that stop for a while.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh
ASAN_OPTIONS=${ASAN_OPTIONS:-}:quarantine_size_mb=16
export ASAN_OPTIONS

reach() # cases, as one word; options of the node
{
    local cases=$1
    shift
    start_node demo --memory.max 256M "$@"
    # shellcheck disable=SC2086 # a list
    "$PROGRAMS/limits" "$NODE" "$NODE_PID" $cases
    run "$FERO" set demo 28 alive --seeds "$NODE"
    check "$cases: the node is alive" is_status 0
    stop_node TERM
    check "$cases: and ends cleanly" is_status 0
}

reach half-open --shards 2 --half-open.max 64
reach handshake --shards 1 --handshake.ms 200
reach dribble --shards 1 --progress.ms 300 --progress.bytes 200
reach crowd --shards 2 --connections.max 50
reach "reconnects descriptors" --shards 1
reach full --shards 1 --memory.max 128M
reach full --shards 2 --memory.max 128M --partitions.history.max 4M

# Whoever is stopped for longer than the limits goes on where it was.
start_node demo --shards 2 --progress.ms 100 --handshake.ms 100
"$FERO" bench speed -r 3M --keys 1000 --seeds "$NODE" --json >"$folder/bench" 2>&1 &
bench=$!
for signal in "$NODE_PID" "$bench" "$NODE_PID" "$bench"; do
    kill -STOP "$signal"
    read -r -t 0.3 _ <> <(:)
    kill -CONT "$signal"
    read -r -t 0.05 _ <> <(:)
done
wait "$bench"
STATUS=$?
OUT=$(cat "$folder/bench")
ERR=
check "a node and a client that are stopped go on" is_status 0
run "$FERO" set demo 28 david --seeds "$NODE"
check "and the node serves others" is_status 0
stop_node TERM
check "and ends" is_status 0

# What each option may be, and what it says of anything else.
wrong() # option, value, words of the line
{
    run "$FERO" serve demo --ports 0 "--$1" "$2"
    check "--$1 $2 is refused" fails_with 2 "$1" "${@:3}"
}
wrong handshake.ms 0 "1"
wrong handshake.ms 5s
wrong handshake.ms 90000000 "86400000"
wrong half-open.max 0
wrong half-open.source.max -1
wrong progress.ms none
wrong progress.bytes 17M "16777216"
wrong connections.max 0
(
    ulimit -n 400
    start_node demo --shards 1 --connections.max 1000
    stop_node TERM
    check "connections.max over the descriptors: one line says what to type" \
        test "$(grep -c 'connections.max is 1000.*ulimit -n 1256' <<<"$ERR")" -eq 1
)
