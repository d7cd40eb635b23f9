#!/usr/bin/env bash
# Counts the instructions that a shard needs for one message, and compares them with the record.
#
#   tests/perf/instructions.sh             compare with tests/perf/record
#   tests/perf/instructions.sh --record    measure and write the record of this build anew
#
# What is counted: all instructions in user space, by callgrind, from the beginning of shard_turn to
# its end, while receives of 128 KiB with requests of random keys come in through an io in memory and
# their replies go out through it; divided by the requests. Keys are loaded and the session is warm
# before. So the share of turns (waiting, clock, sealing, flushing, counters) is in it, the kernel
# and the making of the requests are not. With two shards it is the work of both.
#
# A count over the record by more than 3 % fails; one below it by more than 3 % asks for a new
# record, so that what was won cannot be lost again. Machine code differs by compiler, flags and
# processor: each build (as `fero bench turn --json` names it) has its own lines in the record, and
# a build without lines is skipped. A line "promise NAME MAX" holds for all builds; with "missed"
# behind it, it is told and not failed.
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
fero=${FERO:-build/fero}
record=tests/perf/record
messages=100000
slack=1.03
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT

if ! command -v valgrind >/dev/null; then
    echo "ok instructions # SKIP valgrind is not installed"
    exit 0
fi

# Runs one case under callgrind; leaves instructions a message in `count`, the build in `build`.
measure() # options of bench turn...
{
    local total
    valgrind --tool=callgrind --callgrind-out-file="$folder/out" --collect-atstart=no \
        --toggle-collect=turn_measured "$fero" bench turn --json --keys 20000 \
        --messages $messages "$@" >"$folder/json" 2>"$folder/err" || return 1
    total=$(awk '$1 == "totals:" || $1 == "summary:" { total = $2 } END { print total }' "$folder/out")
    build=$(sed -n 's/.*"build":"\([^"]*\)".*/\1/p' "$folder/json")
    count=$(awk -v total="$total" -v messages=$messages 'BEGIN { printf "%.1f", total / messages }')
    # Nothing counted would pass every comparison.
    [ "${total:-0}" -gt $messages ]
}

is_over() { awk -v a="$1" -v b="$2" -v by="$3" 'BEGIN { exit !(a > b * by) }'; }

recorded() { awk -v build="$build" -v name="$1" '$1 == build && $2 == name { print $3 }' $record; }

# Says how `count` compares with the record of this build.
compare() # name
{
    local old
    old=$(recorded "$1")
    if [ -z "$old" ]; then
        echo "ok $1 $count # SKIP no record of $build; write one with tests/perf/instructions.sh --record"
    elif is_over "$count" "$old" $slack; then
        echo "not ok $1 $count instructions a message, the record is $old"
    elif is_over "$old" "$count" $slack; then
        echo "ok $1 $count # NOTE the record is $old: lower it with tests/perf/instructions.sh --record"
    else
        echo "ok $1 $count instructions a message, the record is $old"
    fi
}

# Says whether a promise is kept.
promise() # name value
{
    local most word
    read -r most word < <(awk -v name="$1" '$1 == "promise" && $2 == name { print $3, $4 }' $record)
    [ -n "$most" ] || return 0
    if ! is_over "$2" "$most" 1; then
        echo "ok promise-$1 $2, at most $most was promised${word:+ # NOTE strike \"$word\" from $record}"
    elif [ "$word" = missed ]; then
        echo "ok promise-$1 # NOTE $2, at most $most was promised"
    else
        echo "not ok promise-$1 $2, at most $most was promised"
    fi
}

declare -A counts=()
lines=()
build=
writes_record=
[ "${1:-}" = --record ] && writes_record=yes

check() # name options of bench turn...
{
    local name=$1 count=
    shift
    if ! measure "$@"; then
        echo "not ok $name could not be measured: $(tail -n 3 "$folder/err" | tr '\n' ' ')"
        return
    fi
    counts[$name]=$count
    lines+=("$build $name $count")
    [ -n "$writes_record" ] || compare "$name"
}

check update-100 -m 100
check update-10 -m 10
check update-1000 -m 1000
check get-100 -m 100 --verb get
check echo-100 -m 100 --verb echo
# The history is so short that compaction runs all the time.
check update-100-compacting -m 100 --history 2M
# Two shards, one caller on the first: as many keys, of its own slots or of all.
check update-100-none-crossing -m 100 --shards 2
check update-100-half-crossing -m 100 --shards 2 --crossing half

if [ -n "$writes_record" ]; then
    [ -n "$build" ] || exit 1
    { grep -v "^$build " $record && printf '%s\n' "${lines[@]}"; } >"$folder/record"
    cp "$folder/record" $record
    printf '%s\n' "${lines[@]}"
fi
for name in "${!counts[@]}"; do promise "$name" "${counts[$name]}"; done
none=${counts[update-100-none-crossing]:-}
half=${counts[update-100-half-crossing]:-}
if [ -n "$none" ] && [ -n "$half" ]; then
    promise half-to-none-crossing "$(awk -v a="$half" -v b="$none" 'BEGIN { printf "%.2f", a / b }')"
fi
