#!/usr/bin/env bash
# A node's life: what it says when it starts, ports, several caches, and how it ends.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

# ---- facts -------------------------------------------------------------------------------------

start_node demo users --shards 2 --memory.max 512M
check "the ready line is JSON" [ "${READY:0:1}${READY: -1}" = "{}" ]
has() { [[ $READY == *"$1"* ]]; }
check "it names both caches" has '"caches":["demo","users"]'
check "it counts the shards" has '"shards_count":2'
check "it tells the memory cap" has '"memory_max_bytes":536870912'
check "it tells the pid" has "\"pid\":$NODE_PID"
port=${NODE##*:}

run "$FERO" serve other --ports "$port"
check "a port in use names the port, its holder and what to do" \
    fails_with 1 "port $port" "(pid $NODE_PID)" "kill $NODE_PID" --ports
run "$FERO" serve other --ports "$port-$port"
check "and so does a range that is used up" fails_with 1 "$port" "(pid $NODE_PID)"
run "$FERO" serve users other users --ports 0
check "a cache that is named twice" fails_with 2 '"users"' twice
run "$FERO" serve demo --shards 0
check "no shards" fails_with 2 "--shards is 0" "from 1 to 64"
run "$FERO" serve demo --key.max 99999T
check "the range of a size has its units" fails_with 2 "--key.max is 99999T" "from 1 to"
run "$FERO" serve demo --threads.max 257
check "--threads.max has its range" fails_with 2 "--threads.max" "from 1 to 256"
stop_node TERM
check "SIGTERM ends it with status 0" is_status 0
check "within two seconds" [ "$TOOK_MS" -le 2000 ]
check "without a word" [ -z "$ERR" ]

mkfifo "$folder/talk"
"$FERO" serve demo --ports 0 --shards 1 >"$folder/talk" 2>"$folder/talk.err" &
pid=$!
exec {talk}<"$folder/talk"
OUT=
while read -r -t 30 -u "$talk" line; do
    OUT+=$line$'\n'
    [[ $line == *Ctrl-C* ]] && break
done
says() { [[ $OUT == *$1* ]]; }
check "it says where it listens" says "127.0.0.1:"
check "it says how many shards, on which cpu" says "1, on the cpus "
check "it says its memory cap" says " GiB for logs"
address=$(printf '%s' "$OUT" | grep -o '127.0.0.1:[0-9]*' | head -n 1)
check "it names three commands to try" \
    [ "$(printf '%s' "$OUT" | grep -c "^$FERO .*--seeds $address\$")" -eq 3 ]
tried=0
while read -r -a words; do
    "${words[@]}" >/dev/null 2>&1 && tried=$((tried + 1))
done < <(printf '%s' "$OUT" | grep "^$FERO ")
check "and all of them work" [ "$tried" -eq 3 ]
kill -INT "$pid"
wait "$pid"
STATUS=$?
check "SIGINT ends it with status 0" is_status 0
exec {talk}<&-

# ---- options -----------------------------------------------------------------------------------

# shellcheck disable=SC2046 # names
run "$FERO" serve $(seq 65) --ports 0
check "a cache too many is named, and how many there may be" fails_with 2 '"65"' NAME... "64 at most"

start_node demo --shards 1 --constants.outbox.max=0 --constants.key.max=64 \
    --partitions.history.max 10000 --value.max 64k --window.requests 1k --idle
run "$FERO" set demo 28 david --seeds "$NODE"
check "constants are taken in the old spelling" is_status 0
run "$FERO" set demo "$(head -c 65 /dev/zero | tr '\0' k)" x --seeds "$NODE"
check "and they hold" fails_with 5 65 64
stop_node INT
check "--idle ends as well" is_status 0

for history in off 0 Infinity; do
    start_node demo --shards 2 --partitions.history.max "$history"
    run "$FERO" set demo 28 david --seeds "$NODE"
    check "a history of $history" is_status 0
    stop_node TERM
    check "ends too" is_status 0
done

start_node demo --shards 1 --busy-poll --partitions.history.max 1M
run "$FERO" get demo 28 --seeds "$NODE"
check "--busy-poll serves" is_status 1
stop_node TERM
check "--busy-poll ends too" [ "$STATUS/$((TOOK_MS <= 2000))" = 0/1 ]

run "$FERO" serve demo --busy-poll --idle
check "--busy-poll and --idle exclude each other" fails_with 2 --busy-poll --idle
run "$FERO" serve demo --ports 7799-7700
check "ports the wrong way round are refused" fails_with 2 7799-7700
run "$FERO" serve demo --cpus two
check "a list of cpus that is none is refused" fails_with 2 two
run "$FERO" serve demo --io uring --io-features +warp
check "an unknown io feature is refused, with those that there are" \
    fails_with 2 warp msg_ring send_zc none
run "$FERO" serve demo --ports 0 --cpus 1023
check "a cpu that is not there is refused" fails_with 2 1023
run "$FERO" serve demo --memory.max 1k
check "too little memory names both values" fails_with 2 memory.max 1024
run "$FERO" serve "$(head -c 300 /dev/zero | tr '\0' n)" --ports 0
check "a name that is too long is refused" fails_with 2 300

# ---- odd names, closed streams -----------------------------------------------------------------

start_node 'say "hi" \ there' --shards 1
run "$FERO" set 'say "hi" \ there' 28 david --seeds "$NODE"
check "a cache may have any name" is_status 0
run "$FERO" info 'say "hi" \ there' --seeds "$NODE"
check "and info escapes it" prints_like '*"caches":\["say \\"hi\\" \\\\ there"\]*'
run bash -c "exec \"$FERO\" get 'say \"hi\" \ there' 28 --seeds $NODE >&-"
check "a closed output is an error" fails_with 1 "cannot write"
run bash -c "exec \"$FERO\" set demo 28 - --seeds $NODE <&-"
check "and so is a closed input" fails_with 1 "cannot read"
stop_node TERM

# ---- under load --------------------------------------------------------------------------------

start_node demo --shards 1
"$FERO" bench speed -m 100 -r 50000000 --keys 10000 --seeds "$NODE" >"$folder/load" 2>&1 &
load=$!
# The load has begun when the node has taken some of it.
updates=0
for _ in {1..2000}; do
    run "$FERO" info --seeds "$NODE"
    updates=$(printf '%s' "$OUT" | sed -n 's/.*"updates":\([0-9]*\).*/\1/p')
    [ "${updates:-0}" -gt 200000 ] && break
done
check "the load arrives" [ "${updates:-0}" -gt 200000 ]
stop_node TERM
check "SIGTERM under load ends it with status 0" is_status 0
check "within two seconds, too" [ "$TOOK_MS" -le 2000 ]
kill -KILL "$load" 2>/dev/null
wait "$load" 2>/dev/null || true # what the load made of it is another test's
