#!/usr/bin/env bash
# The speed and latency benches, small: that they run, verify, and print what was promised.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

# ---- speed -------------------------------------------------------------------------------------

has_line() { printf '%s\n' "$OUT" | grep -Eq "$1"; }
number='[0-9]+(\.[0-9]{1,2})?'

run "$FERO" bench speed -m 100 -r 20000 --keys 5000 -c 1
check "speed of 20,000 updates" is_status 0
check "its block has the headline" has_line '^20000 records, 1 peers, 1 clients, 100 bytes$'
check "its block has stable" has_line "^  \* stable: $number ms$"
check "its block has connected" has_line "^  \* connected: $number ms$"
for what in tacks yacks sacks; do
    check "its block has $what" has_line \
        "^  \* $what: $number ms \($number sec\) \| $number records/sec \| $number MB/sec$"
done
check "the end state is verified" has_line 'verified: 20000 replies, last values of [0-9]+ keys'

run "$FERO" bench speed -m 10,1000 -r 2000,4000 -l 1,2 --keys 1000 -c 1,2
check "every permutation" is_status 0
check "sixteen of them" \
    [ "$(printf '%s\n' "$OUT" | grep -c ' records, . peers, . clients, ')" -eq 16 ]
check "the last is of two servers and two clients" \
    has_line '^4000 records, 2 peers, 2 clients, 1000 bytes$'

json_keys()
{
    local key
    for key in "$@"; do
        [[ $OUT == *"\"$key\":"* ]] || return 1
    done
}
run "$FERO" bench speed -r 20000 --verb echo --keys 5000 -c 1 --json --runs 3
check "speed of echo as JSON" is_status 0
check "it is one line" [ "$(printf '%s\n' "$OUT" | wc -l)" -eq 1 ]
check "it has the promised keys" json_keys tacks_per_s yacks_per_s sacks_per_s p50_us p99_us \
    p999_us server_ns_per_msg client_ns_per_msg busy_side machine
has_text() { [[ $OUT == *"$1"* ]]; }
check "it counts the replies of all runs" has_text '"replies":60000,'
check "it is verified" has_text '"verified":true'

# What the servers spin is no work: they wait for nearly all of this run.
json_number() { printf '%s\n' "$OUT" | sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }
is_true() { awk -v a="$(json_number "$1")" -v b="$(json_number "$2")" "BEGIN { exit !(a != \"\" && ($3)) }"; }
run "$FERO" bench speed -r 2000 --keys 1000 -c 1 --rate 4k --busy-poll --json
check "a server that waits is not busy" is_true server_busy server_ns_per_msg "a < 0.5"
check "its CPU time is within its core" is_true sacks_per_s server_ns_per_msg "a * b < 0.5e9"

run "$FERO" bench speed -r 20000 --keys 5000 -c 1 --limit --json
check "the limit beside it" json_keys limit_per_s share_of_limit
run "$FERO" bench speed -r 5000 --keys 1000 -c 1 --rate 50k --json
check "an open loop" has_text '"loop":"open"'
run "$FERO" bench speed -r 5000 -m 5 --keys 1000 -c 1
check "five bytes have no room for a key, so nine are sent" has_line ', 9 bytes$'
run "$FERO" bench speed -r 5000 -c 1 --seeds 127.0.0.1:1
check "own servers or running ones" fails_with 2 -c --seeds

run "$FERO" bench speed -r 20000 --keys 5000 -c 2 -l 2 --sockets 7 --limit
check "many sockets" has_line 'verified: 20000 replies'
check "they are named" has_line '^    7 sockets from each client to each server$'
run "$FERO" bench speed -r 20000 --verb echo --keys 3 -c 1 --sockets 20 --json
check "more sockets than keys" has_text '"sockets":20,'
check "all of it is verified" has_text '"verified":true'

start_node bench demo --shards 2
run "$FERO" bench speed -r 20000 --keys 5000 --seeds "$NODE"
check "a running node" has_line 'verified: 20000 replies'
# Every key, then chunks that are as large as the run, while memory grows: at least one of them.
updates()
{
    "$FERO" info --seeds "$NODE" | grep -o '"updates":[0-9]*' | awk -F: '{ sum += $2 } END { print sum }'
}
warmed_up() { [ "$warm" -ge 20000 ] && [ "$warm" -le 200000 ] && [ $((warm % 20000)) -eq 0 ]; }
warm=$(($(updates) - 5000 - 20000))
check "a warm-up goes on until memory grows no more" warmed_up
before=$(updates)
run "$FERO" bench speed -r 20000 --keys 5000 --warmup 300 --seeds "$NODE"
check "a warm-up of so many messages" [ $(($(updates) - before)) -eq 20300 ]
run "$FERO" bench speed -r 20000 --name nosuch --seeds "$NODE"
check "a cache that is not there" fails_with 1 "$NODE" nosuch
for bench in speed latency; do
    begin_ms=$(now_ms)
    run "$FERO" bench "$bench" --seeds "$NODE,127.0.0.1:1"
    check "$bench at a port where nobody listens" fails_with 3 127.0.0.1:1 'fero serve demo' --seeds
    took_ms=$(($(now_ms) - begin_ms))
    check "$bench gives up soon" [ "$took_ms" -lt 8000 ]
    run "$FERO" bench "$bench" --seeds 127.0.0.1:99999
    check "$bench at an address that is none" fails_with 2 127.0.0.1:99999
done

# ---- latency -----------------------------------------------------------------------------------

run "$FERO" bench latency --messages 500 --warmup 100 --seeds "$NODE"
check "latency against a running node" is_status 0
check "its mean" has_line '^            mean [0-9.]+ +ms$'
for percentile in '10   ' '50   ' '90   ' '99   ' '99.9 ' 99.99; do
    check "its percentile $percentile" has_line "^$percentile percentile [0-9.]+ +ms$"
done
stop_node TERM
check "the node survives the benches" is_status 0

run "$FERO" bench latency --messages 500 --warmup 100 -c 1 --verb echo --limit --json \
    --hgrm "$folder/latency.hgrm"
check "latency of echo as JSON" is_status 0
check "it has the promised keys too" json_keys mean_us p50_us p99_us p999_us limit_p50_us
check "its percentiles are written" grep -q 'Value' "$folder/latency.hgrm"
run "$FERO" bench latency --messages 300 --warmup 100 -c 1 --busy-poll
check "latency with busy polling" is_status 0
run "$FERO" bench latency --messages 300 --warmup 100 -c 1 --idle
check "latency with sleeping" is_status 0

# ---- crossing ----------------------------------------------------------------------------------

run "$FERO" bench crossing -r 20000 --keys 2000 --runs 2 --json
check "crossing" is_status 0
check "its keys" json_keys none_server_ns_per_msg half_server_ns_per_msg half_of_none
check "half of the requests crossed" has_text '"verified":true'
run "$FERO" bench crossing -r 20000 --keys 2000 --runs 2
check "crossing for people" has_line 'CPU time a message: [0-9.]+ of none crossing'

# ---- connections -------------------------------------------------------------------------------

run "$FERO" bench connections -l 20 --in-flight 3 -r 5000 --runs 2 --limit --json
if [[ $ERR == *"did not start"* ]]; then
    echo "ok connections # SKIP $ERR"
else
    check "connections" is_status 0
    check "its keys" json_keys uring epoll ratio limit_per_s least_of_mean
    run "$FERO" bench connections -l 20 -r 5000 --runs 1
    check "connections for people" has_line 'server CPU a message: [0-9.]+ of epoll.s with io_uring'
    run "$FERO" bench connections -l 20 --in-flight 3 -r 5000 --runs 2 --bare
    check "connections beside bare loops" is_status 0
    check "their ratio" has_line 'nothing around the two loops: [0-9.]+ of epoll.s with io_uring'
    run "$FERO" bench connections -l 20 -r 5000 --runs 1 --bare --json
    check "the keys of bare loops" json_keys bare_uring bare_epoll bare_ratio
fi

# ---- charts ------------------------------------------------------------------------------------

bars_in() { grep -c '<rect class="bar ' "$1"; }
has_bars() { [ "$(bars_in "$1")" -eq "$2" ]; }

run "$FERO" bench speed -m 10,100 -r 5000 --keys 1000 -c 1 --limit --svg "$folder/speed.svg"
check "speed draws a chart" is_status 0
check "it has three bars for each permutation" has_bars "$folder/speed.svg" 6
check "it has the limit of each" [ "$(grep -c '>limit .*/s<' "$folder/speed.svg")" -eq 2 ]
run "$FERO" bench latency --messages 300 --warmup 100 -c 1 --limit --svg "$folder/latency.svg"
check "latency draws a chart" is_status 0
check "it has a curve for each side" [ "$(grep -c '<path class="curve ' "$folder/latency.svg")" -eq 2 ]
run "$FERO" bench speed -r 5000 -c 1 --svg "$folder/nosuch/speed.svg"
check "a chart in a folder that is not there" fails_with 1 nosuch/speed.svg 'No such file'
run "$FERO" bench latency -c 1 --svg "$folder"
check "a chart in place of a folder" fails_with 1 "$folder" 'Is a directory'

# ---- all ---------------------------------------------------------------------------------------

run "$FERO" bench all --quick --json --svg "$folder/all.svg"
check "all, quickly, as JSON" is_status 0
check "nine lines: five speeds, two latencies, the crossing, the promises" \
    [ "$(printf '%s\n' "$OUT" | wc -l)" -eq 9 ]
check "with all promised keys" json_keys tacks_per_s yacks_per_s sacks_per_s p50_us p99_us p999_us \
    limit_per_s share_of_limit server_ns_per_msg half_of_none promises
check "its chart has a bar for each promise" has_bars "$folder/all.svg" \
    "$(printf '%s\n' "$OUT" | grep -o '"what":' | wc -l)"
run "$FERO" bench all --quick
check "all for people" is_status 0
check "each target is met or missed" \
    [ "$(printf '%s\n' "$OUT" | grep -Ec '[<>]= [0-9.]+( and 8M/s)? +(met|missed)$')" -eq 10 ]
check "nothing but the report" [ -z "$(printf '%s' "$OUT" | tr -d '[:print:]\n')" ]

# ---- progress ----------------------------------------------------------------------------------

if command -v script >/dev/null; then
    run script -qec "$FERO bench speed -c 1 -r 5000 --keys 1000 --runs 2" /dev/null
    check "progress on a terminal" has_text 'update, 100 bytes, run 2 of 2'
fi
run "$FERO" bench speed -c 1 -r 5000 --keys 1000 --runs 2
check "none elsewhere" [ "${ERR#*run 2 of 2}" = "$ERR" ]
