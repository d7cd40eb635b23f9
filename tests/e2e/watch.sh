#!/usr/bin/env bash
# watch, log and the live get: what they print, how they end, and what they do while the node is away.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

start_node demo --shards 2 --idle
seeds=(--seeds "$NODE")
port=${NODE##*:}

# Runs a command in the background with its output in a file of this name; then PID.
begin()
{
    local name=$1
    shift
    "$@" >"$folder/$name.out" 2>"$folder/$name.err" &
    PID=$!
}
# Waits until a file has a line like this; a slow machine may take its time.
has_line() # file pattern
{
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        grep -qs -- "$2" "$folder/$1" && return 0
        read -r -t 0.05 <>"$folder/never" || true
    done
    return 1
}
mkfifo "$folder/never"
# Ends it with a signal; then STATUS, OUT and ERR.
end() # name [signal]
{
    kill "-${2:-INT}" "$PID"
    wait "$PID"
    STATUS=$?
    OUT=$(cat "$folder/$1.out")
    ERR=$(cat "$folder/$1.err")
}
set_key() { "$FERO" set demo "$@" "${seeds[@]}" >"$folder/set.out"; }

# ---- what comes ----------------------------------------------------------------------------------

begin all "$FERO" watch demo "${seeds[@]}" --json
has_line all.out '"event":"live","shard":0' && has_line all.out '"event":"live","shard":1'
check "watch says when it has caught up, for each shard" [ $? -eq 0 ]
for i in 1 2 3 4 5 6 7 8; do set_key "k$i" "v$i"; done
"$FERO" rm demo k1 "${seeds[@]}" >"$folder/set.out"
has_line all.out '"type":"remove","key":"k1","offset":2'
check "watch prints a removal" [ $? -eq 0 ]
end all
check "Ctrl-C ends it in order" is_status 0
check "every change was printed" [ "$(printf '%s\n' "$OUT" | grep -c '"type":"update"')" -eq 8 ]
begin term "$FERO" watch demo "${seeds[@]}" --json
has_line term.out live
end term TERM
check "SIGTERM likewise" is_status 0

set_key 28 one
set_key 28 two
set_key 280 no
run "$FERO" watch demo 28 --from start --count 2 "${seeds[@]}"
check "watch KEY from the start" prints $'28 = one\n28 = two'
run "$FERO" watch demo 28 --from 2 -n 1 "${seeds[@]}"
check "watch from an offset" prints "28 = two"
run "$FERO" watch demo '28*' --from start -n 3 "${seeds[@]}"
check "watch PREFIX*" prints_like $'*280 = no*'
run "$FERO" watch demo 28 --from yesterday "${seeds[@]}"
check "an unknown place is named" fails_with 2 yesterday start now offset
mkfifo "$folder/waits"
"$FERO" watch demo 28 --from 99 "${seeds[@]}" 2>"$folder/waits" &
pid=$!
read -r -t 30 ERR <"$folder/waits"
kill "$pid"
wait "$pid"
STATUS=$?
OUT=
check "an offset that is to come is waited for, and said so" fails_with 0 "offset 99" "waiting for it"
run "$FERO" watch demo --from 17 "${seeds[@]}"
check "an offset needs a partition" fails_with 2 --from 17 partition
run "$FERO" watch demo '' "${seeds[@]}"
check "an empty key is not all keys" fails_with 2 "key is empty"
run "$FERO" watch demo a..b "${seeds[@]}"
check "watch of what no key can be" fails_with 2 a..b "empty part"
run "$FERO" log demo a..b "${seeds[@]}"
check "log of it" fails_with 2 a..b "empty part"
run "$FERO" watch nodemo "${seeds[@]}"
check "watch of a cache that is not there" fails_with 1 nodemo
# A reader that has enough: the command ends too.
"$FERO" watch demo --from start "${seeds[@]}" 2>"$folder/head.err" | head -n 1 >"$folder/head.out"
check "a reader that goes away ends it" [ -s "$folder/head.out" ]

# ---- log -----------------------------------------------------------------------------------------

"$FERO" rm demo 28 "${seeds[@]}" >"$folder/set.out"
run "$FERO" log demo 28 "${seeds[@]}"
check "log has offset, time, type, key and value" \
    prints_like $'1 *Z update 28 = one\n2 *Z update 28 = two\n3 *Z remove 28'
run "$FERO" log demo 28 --from 2 --limit 1 --json "${seeds[@]}"
check "log as JSON, from an offset" prints_like \
    '{"type":"update","key":"28","offset":2,"time":"20*Z","shard":*,"value_type":"string","value":"two"}'
run "$FERO" log demo nix "${seeds[@]}"
check "log of no such key" fails_with 1 nix
run "$FERO" log demo 28 --from 99 "${seeds[@]}"
check "log from beyond its end" fails_with 1 28 "from there"
set_key evil $'a\e[2Jb\nc'
run "$FERO" log demo evil "${seeds[@]}"
check "what a terminal would obey is not printed" prints_like '*evil = a\\x1b\[2Jb\\x0ac'

# ---- live get ------------------------------------------------------------------------------------

set_key live one
run "$FERO" get demo live "${seeds[@]}"
check "get into a pipe prints once" prints one
if command -v script >"$folder/which" 2>&1; then
    run script -qec "$FERO get demo live --once --seeds $NODE" /dev/null
    check "get --once on a terminal prints once" prints $'one\r'
    begin live script -qefc "$FERO get demo live --seeds $NODE" /dev/null
    has_line live.out one
    check "a live get prints the value" [ $? -eq 0 ]
    set_key live two
    has_line live.out two
    check "and draws it again when it changes" [ $? -eq 0 ]
    "$FERO" rm demo live "${seeds[@]}" >"$folder/set.out"
    has_line live.out 'no such key'
    check "and says that it is gone" [ $? -eq 0 ]
    kill -TERM "$PID"
    wait "$PID"
fi

# ---- the node goes away ---------------------------------------------------------------------------

begin away "$FERO" watch demo --from now "${seeds[@]}" --json
has_line away.out '"event":"live","shard":1'
stop_node TERM
has_line away.out '"event":"lost"'
check "a lost node is said" [ $? -eq 0 ]
"$FERO" serve demo --shards 2 --idle --ports "$port" --json >"$folder/again.out" 2>"$folder/again.err" &
NODE_PID=$!
has_line again.out address
has_line away.out '"event":"resumed","shard":0' && has_line away.out '"event":"resumed","shard":1'
check "it goes on when the node is back" [ $? -eq 0 ]
set_key again yes
has_line away.out '"key":"again"'
check "and prints what comes" [ $? -eq 0 ]
end away
check "and ends in order" is_status 0
kill -TERM "$NODE_PID"
wait "$NODE_PID"
