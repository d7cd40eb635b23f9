# shellcheck shell=bash
# For the scripts beside this file: running fero and judging what it did. Sourced, not run.
#
#   run COMMAND...          runs it; then OUT, ERR and STATUS are what came of it
#   check NAME TEST...      prints "ok NAME" if the command TEST succeeds, else "not ok NAME ..."
#   start_node NAME...      starts `fero serve --ports 0 --json`; then NODE_PID, NODE and READY
#   stop_node [SIGNAL]      ends it; STATUS is its exit status, TOOK_MS how long it took
set -u
export LC_ALL=C NO_COLOR=1
FERO=${FERO:-$PWD/build/fero}
# shellcheck disable=SC2034 # the scripts read it
PROGRAMS=${FERO%/*}/tests/e2e
folder=$(mktemp -d) || exit 1
NODE_PID=
NODE=
READY=
OUT=
ERR=
STATUS=0
TOOK_MS=0
fifos=0

clean_up()
{
    local pid
    for pid in $(jobs -p); do kill -KILL "$pid" 2>/dev/null; done
    rm -rf "$folder"
}
trap clean_up EXIT

run()
{
    OUT=$("$@" 2>"$folder/err" </dev/null)
    STATUS=$?
    ERR=$(cat "$folder/err")
}

# Like run, with $1 as the standard input.
run_with()
{
    local input=$1
    shift
    OUT=$(printf '%s' "$input" | "$@" 2>"$folder/err")
    STATUS=$?
    ERR=$(cat "$folder/err")
}

check()
{
    local name=$1
    shift
    if "$@"; then
        echo "ok $name"
    else
        printf 'not ok %s: status %s, out "%s", err "%s"\n' "$name" "$STATUS" \
            "$(printf '%.200s' "$OUT" | tr '\n' '|')" "$(printf '%.300s' "$ERR" | tr '\n' '|')"
    fi
}

# Conditions about the last run.
is_status() { [ "$STATUS" -eq "$1" ]; }
prints() { [ "$STATUS" -eq 0 ] && [ "$OUT" = "$1" ]; }
# shellcheck disable=SC2053 # the right side is a pattern
prints_like() { [ "$STATUS" -eq 0 ] && [[ $OUT == $1 ]]; }
# It failed with this status, nothing on stdout and one line on stderr that has all these words.
fails_with()
{
    local status=$1 word
    shift
    [ "$STATUS" -eq "$status" ] && [ -z "$OUT" ] || return 1
    [ "$(printf '%s\n' "$ERR" | wc -l)" -eq 1 ] || return 1
    for word in "$@"; do
        [[ $ERR == *"$word"* ]] || return 1
    done
}

start_node()
{
    fifos=$((fifos + 1))
    local fifo=$folder/ready.$fifos
    mkfifo "$fifo" || exit 1
    "$FERO" serve "$@" --ports 0 --json >"$fifo" 2>"$folder/node.$fifos.err" &
    NODE_PID=$!
    READY=
    read -r -t 30 READY <"$fifo"
    NODE=$(printf '%s' "$READY" | sed -n 's/.*"address":"\([^"]*\)".*/\1/p')
    [ -n "$NODE" ] && return
    echo "not ok a node starts: fero serve $*: $(head -c 300 "$folder/node.$fifos.err")"
    exit 1
}

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

stop_node()
{
    local begin_ms
    begin_ms=$(now_ms)
    kill "-${1:-TERM}" "$NODE_PID"
    wait "$NODE_PID"
    STATUS=$?
    # shellcheck disable=SC2034 # the scripts read it
    TOOK_MS=$(($(now_ms) - begin_ms))
    ERR=$(cat "$folder/node.$fifos.err")
    NODE_PID=
}
