#!/usr/bin/env bash
# A subscriber that stops reading: the node keeps no more for him than it may, others go on, and when he
# reads again he hears of the gap and gets the state.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

start_node demo --shards 1 --idle --memory.max 128M --partitions.history.max 2M --outbox.max 256k \
    --streams.lent.max 4M
seeds=(--seeds "$NODE")
mkfifo "$folder/never"

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
memory_bytes()
{
    "$FERO" info --json "${seeds[@]}" | grep -o '"memory_bytes":[0-9]*' | head -n 1 | tr -dc 0-9
}

"$FERO" watch demo "${seeds[@]}" --json >"$folder/slow.out" 2>"$folder/slow.err" &
slow=$!
"$FERO" watch demo other "${seeds[@]}" --json >"$folder/quick.out" 2>"$folder/quick.err" &
quick=$!
has_line slow.out live
has_line quick.out live
check "both have begun" [ $? -eq 0 ]

# Far more than sockets, outbox and history hold: 60 MB of changes over a thousand keys.
kill -STOP "$slow"
run "$FERO" bench speed "${seeds[@]}" --keys 1000 -m 500 -r 100000 --warmup 1
check "writers do not wait for him" is_status 0
"$FERO" set demo other still-here "${seeds[@]}" >"$folder/set.out"
has_line quick.out still-here
check "other subscribers do not either" [ $? -eq 0 ]
bytes=$(memory_bytes)
check "the node keeps little for him: $bytes bytes" [ "$bytes" -lt $((64 << 20)) ]

kill -CONT "$slow"
has_line slow.out '"event":"gap"'
check "he hears of the gap" [ $? -eq 0 ]
has_line slow.out '"event":"snapshot-begin"' && has_line slow.out '"event":"snapshot-end"'
check "and gets the state" [ $? -eq 0 ]
"$FERO" set demo last one "${seeds[@]}" >"$folder/set.out"
has_line slow.out '"key":"last"'
check "and goes on from there" [ $? -eq 0 ]
kill -INT "$slow" "$quick"
wait "$slow"
STATUS=$?
check "and ends in order" is_status 0

# Nothing was written while he got it, so each key is in it once; "last" came behind it.
run "$FERO" info --json "${seeds[@]}"
keys=$(printf '%s' "$OUT" | grep -o '"keys":[0-9]*' | head -n 1 | tr -dc 0-9)
begin=$(grep -n snapshot-begin "$folder/slow.out" | tail -n 1 | cut -d: -f1)
OUT=$(tail -n "+$begin" "$folder/slow.out" | sed '/snapshot-end/q' | grep -c '"type":"update"')
check "the state had $keys keys less one" [ "$OUT" -eq $((keys - 1)) ]
stop_node TERM
