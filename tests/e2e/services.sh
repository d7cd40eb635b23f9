#!/usr/bin/env bash
# Write services: the examples that answer at once, later and as a stream, as programs of their own.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh
build=${BUILD:-build}
compiler=${CC:-gcc}
sanitize=$(grep -oE -- '-fsanitize=[a-z,]+' "$build/flags" | head -n 1)

# Builds examples/NAME.c; then `program` is where.
build_example() # name
{
    program=$folder/$1
    # shellcheck disable=SC2086 # no word, or one
    run "$compiler" -o "$program" -Iinclude "examples/$1.c" "$build/libfero.a" -luring -lm $sanitize
    check "$1 builds" is_status 0
}

# Starts a program that prints its address; then NODE and NODE_PID.
start_program() # program argument...
{
    local fifo=$folder/program.$((++fifos))
    mkfifo "$fifo" || exit 1
    "$@" >"$fifo" 2>"$folder/node.$fifos.err" &
    NODE_PID=$!
    NODE=
    read -r -t 30 NODE <"$fifo"
    check "${1##*/} listens" [ -n "$NODE" ]
}

req() { run "$FERO" req "$@" --seeds "$NODE" --timeout 60000; }

# ---- sessions ----------------------------------------------------------------------------------

check_sessions()
{
    req sessions LOGIN david '{"role":"admin"}'
    check "LOGIN answers with the time that the session has" prints "$1"
    run "$FERO" get sessions david --seeds "$NODE"
    check "a session is what LOGIN was given" prints '{"role":"admin"}'
    req sessions LOGIN mark 1
    "$FERO" req sessions WAIT david --seeds "$NODE" --timeout 60000 >"$folder/wait" &
    local waits=$!
    req sessions WAIT nobody
    check "nobody is not logged in" fails_with 1 "not found"
    req sessions LOGOUT david
    check "LOGOUT ends it" prints ""
    wait "$waits"
    STATUS=$?
    OUT=$(<"$folder/wait")
    check "WAIT is answered then" prints "logged out"
    req sessions LOGOUT david
    check "a session ends once" fails_with 1 "not found"
}

build_example sessions
start_program "$program" 0 3600000
check_sessions 3600000

# Somebody waits when the node stops: the answer is that nobody knows.
"$FERO" req sessions WAIT mark --seeds "$NODE" --timeout 60000 >"$folder/wait" 2>"$folder/wait.err" &
waits=$!
is_waiting()
{
    "$FERO" info sessions --seeds "$NODE" --json 2>/dev/null | grep -q '"deferred":1'
}
for ((tries = 0; tries < 300; tries++)); do
    is_waiting && break
    sleep 0.1
done
check "info counts who waits" is_waiting
stop_node TERM
check "sessions stops in order" is_status 0
check "and within its time" [ "$TOOK_MS" -lt 5000 ]
wait "$waits"
STATUS=$?
OUT=$(<"$folder/wait")
ERR=$(<"$folder/wait.err")
check "who waited is told that the node stops" fails_with 5 stopping

start_program "$program" 0 300
req sessions LOGIN david 1
req sessions LOGIN mark 2
req sessions WAIT mark
check "a session expires by itself" prints "expired"
run "$FERO" get sessions david --seeds "$NODE"
check "and is gone" fails_with 1 david
stop_node TERM
