#!/usr/bin/env bash
# Signals under load: what the node took it answers, tells its callers, and ends soon.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

TERM=15 INT=2
load() # links, signals and options of the node, each as one word
{
    local links=$1 signals=$2 options=$3
    # shellcheck disable=SC2086 # these are lists
    start_node demo --memory.max 512M $options
    # shellcheck disable=SC2086
    "$PROGRAMS/load" "$NODE" "$NODE_PID" "$links" $signals
    wait "$NODE_PID"
    STATUS=$?
    check "$links links, $options, signal $signals: it ends with status 0" is_status 0
}

load 1 $TERM "--shards 1"
load 16 $TERM "--shards 1"
load 1 $TERM "--shards 2"
load 16 $TERM "--shards 2"
load 16 $INT "--shards 2 --idle"
load 4 "$TERM $TERM" "--shards 2 --busy-poll"
load 16 $TERM "--shards 3 --lane.bytes 128k --outbox.max 4k"
load 4 $TERM "--shards 2 --outbox.max 0"

# A caller that stays keeps the node for a while; a second signal, not at once, ends it without it.
start_node demo --shards 1
exec {stays}<>"/dev/tcp/${NODE%:*}/${NODE##*:}"
begin_ms=$(now_ms)
while kill -TERM "$NODE_PID" 2>/dev/null && [ $(($(now_ms) - begin_ms)) -lt 5000 ]; do
    read -r -t 0.05 -u "$stays" _
done
wait "$NODE_PID"
STATUS=$?
check "a second SIGTERM ends it at once" is_status 143
exec {stays}<&-
