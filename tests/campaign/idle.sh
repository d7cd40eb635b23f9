#!/usr/bin/env bash
# How much memory idle connections take of a node: opens them, waits until the node rests, and divides.
# `make campaign-idle` runs it; CONNECTIONS=N chooses how many (100000). As many need descriptors: where
# the limit cannot be raised, fewer are opened, and that is said.
#
# What is counted is the node's resident memory, so everything of it: callers, sessions, the table of
# connections, what the heap keeps. Beside it stands what the kernel takes for both ends of them.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

BYTES_MAX=4096
count=${CONNECTIONS:-100000}
spare=1000
ulimit -n $((count + spare)) 2>/dev/null || ulimit -n "$(ulimit -Hn)"
allowed=$(($(ulimit -n) - spare))
if [ "$allowed" -lt "$count" ]; then
    echo "# $count connections need a limit of $((count + spare)) descriptors: $allowed are opened"
    count=$allowed
fi

resident_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$NODE_PID/status"; }
slab_kib() { awk '/^Slab:/ { print $2 }' /proc/meminfo; }

for io in uring epoll; do
    run "$FERO" get demo 28 --io $io --seeds 127.0.0.1:1 --timeout 100
    if [ $io = uring ] && [[ $ERR != *"no node"* ]]; then
        echo "ok $io # SKIP $ERR"
        continue
    fi
    start_node demo --shards 2 --memory.max 1G --connections.max $((count + 100)) --io $io
    before=$(resident_kib) slab_before=$(slab_kib)
    mkfifo "$folder/hold.$io" "$folder/crowd.$io"
    exec {hold}<>"$folder/hold.$io"
    "$PROGRAMS/crowd" "$NODE" "$count" <"$folder/hold.$io" >"$folder/crowd.$io" {hold}>&- &
    crowd=$!
    read -r -t 300 OUT <"$folder/crowd.$io"
    check "$io: $count connections are open" [ "$OUT" = "$count open" ]
    # Two rounds of giving memory back.
    sleep 3
    bytes=$((($(resident_kib) - before) * 1024 / count))
    kernel=$((($(slab_kib) - slab_before) * 1024 / count))
    echo "# $io: $bytes bytes of the node a connection; $kernel of the kernel, for both its ends"
    check "$io: at most $BYTES_MAX bytes each" [ $bytes -le $BYTES_MAX ]
    run "$FERO" set demo 28 david --seeds "$NODE"
    run "$FERO" get demo 28 --seeds "$NODE"
    check "$io: and the node answers" prints david
    exec {hold}>&-
    kill "$crowd"
    wait "$crowd" 2>/dev/null
    stop_node TERM
    check "$io: and it ends" is_status 0
done
