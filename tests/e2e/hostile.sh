#!/usr/bin/env bash
# Peers that break the rules, die, or never read: the node lives on, others are unaffected, memory and
# descriptors are bounded.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh
ASAN_OPTIONS=${ASAN_OPTIONS:-}:quarantine_size_mb=16
export ASAN_OPTIONS

# What a refused peer is worth is one line; nothing else may be said.
says_only_refusals() { [ -z "$ERR" ] || ! grep -v ' warn fero:link: [0-9.]* is refused: .* (got [0-9]*, limit [0-9]*)$' <<<"$ERR"; }

attack() # shards, cases..., then "--" and options of the node
{
    local shards=$1 cases=()
    shift
    while [ "$1" != -- ]; do
        cases+=("$1")
        shift
    done
    shift
    start_node demo --shards "$shards" --memory.max 512M --partitions.history.max 4M "$@"
    SHARDS=$shards "$PROGRAMS/hostile" "$NODE" "$NODE_PID" "${cases[@]}"
    run "$FERO" set demo 28 alive --seeds "$NODE"
    check "$shards: the node is alive" is_status 0
    stop_node TERM
    check "$shards: and ends cleanly" is_status 0
    check "$shards: and said nothing but whom it refused" says_only_refusals
}

STREAMS=${STREAMS:-20000} attack 1 refused slow half-closed killed silent storm never-reads mutated --
STREAMS=${STREAMS:-10000} SEED=${SEED:-50000} attack 2 refused spread slow half-closed unasked killed storm mutated -- \
    --idle --lane.bytes 128k
