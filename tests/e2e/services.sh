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
    check "nobody is not logged in" fails_with 1 "no such key"
    req sessions LOGOUT david
    check "LOGOUT ends it" prints ""
    wait "$waits"
    STATUS=$?
    OUT=$(<"$folder/wait")
    check "WAIT is answered then" prints "logged out"
    req sessions LOGOUT david
    check "a session ends once" fails_with 1 "no such key"
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

# ---- echo --------------------------------------------------------------------------------------

build_example echo
run "$program" 'good morning'
check "echo asks the node inside of it" prints 'good morning'

# ---- loaded by fero ----------------------------------------------------------------------------

# Builds a source as a shared object; then `object` is where.
build_object() # source
{
    object=$folder/$(basename "${1%.c}").so
    # shellcheck disable=SC2086
    run "$compiler" -shared -fPIC -o "$object" -Iinclude "$1" $sanitize
    check "${1##*/} builds as a shared object" is_status 0
}

build_object examples/sessions.c
export SESSIONS_TTL_MS=3600000
start_node sessions --handler "$object" --shards 2
check_sessions 3600000
req sessions ECHO '' still
check "ECHO is there, too" prints still
stop_node TERM
check "a node with a service stops in order" is_status 0

SESSIONS_TTL_MS=0 run "$FERO" serve sessions --handler "$object" --ports 0
check "a service that cannot start is named" fails_with 1 "$object" sessions

build_object examples/echo.c
(cd "$folder" && exec "$FERO" serve demo --handler echo.so --ports 0 --json >ready) &
NODE_PID=$!
NODE=
for ((tries = 0; tries < 300; tries++)); do
    NODE=$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$folder/ready" 2>/dev/null)
    [ -z "$NODE" ] || break
    sleep 0.1
done
req demo SAY '' hello
check "a name without a slash is a file here" prints hello
kill -TERM "$NODE_PID"
wait "$NODE_PID"

refused() { run "$FERO" serve demo --ports 0 --handler "$1"; }
refused "$folder/nosuch.so"
check "a file that is not there" fails_with 2 nosuch.so "cannot be read" "No such file"
refused "$folder"
check "a folder" fails_with 2 "$folder" "cannot be read"
echo text >"$folder/text.so"
refused "$folder/text.so"
check "no shared object" fails_with 2 text.so "no shared object"
printf '#include <fero.h>\nint nothing;\n' >"$folder/empty.c"
build_object "$folder/empty.c"
refused "$object"
check "no service in it" fails_with 2 empty.so FERO_SERVICE
head -c 1000 "$object" >"$folder/cut.so"
refused "$folder/cut.so"
check "half a shared object" fails_with 2 cut.so "cut short"
printf '#include <fero.h>\nFERO_SERVICE(.name = "old", .abi = 7);\n' >"$folder/old.c"
sed -i 's/FERO_SERVICE(.*/const fero_service fero_service_v1 = {.abi = 7, .size = 8};/' "$folder/old.c"
build_object "$folder/old.c"
refused "$object"
check "another ABI" fails_with 2 old.so "ABI 7" "ABI 1"
printf '#include <fero.h>\nint nosuch(void);\nstatic int32_t f(fero_req *r, void *u) { (void)r; (void)u; return nosuch(); }\nFERO_SERVICE(.handler = f);\n' >"$folder/missing.c"
build_object "$folder/missing.c"
refused "$object"
check "a function that nobody has" fails_with 2 missing.so nosuch

# ---- what a handler says when it fails ---------------------------------------------------------

cat >"$folder/fails.c" <<'END'
#include <fero.h>
static int32_t with(fero_req *req, int32_t error, const char *text)
{
    fero_val why = {.type = FERO_T_STRING, .s = fero_str(text)};
    return fero_reply(req, error, &why) < 0 ? FERO_H_IGNORE : FERO_H_REPLIED;
}
static int32_t full(fero_req *req, void *ud)
{
    (void)ud;
    return with(req, FERO_E_CONFLICT, "the table is full");
}
static int32_t late(fero_req *req, void *ud)
{
    (void)ud;
    return with(req, FERO_E_TIMEOUT, "the printer does not answer");
}
static int32_t bad_json(fero_req *req, void *ud)
{
    fero_val value = {.type = FERO_T_JSON, .s = fero_str("{\"a\":")};
    (void)ud;
    return fero_shard_update(req->shard, req->key, &value, NULL);
}
static const fero_verb verbs[] = {{"FULL", full, NULL}, {"LATE", late, NULL}, {"BAD", bad_json, NULL}};
FERO_SERVICE(.name = "fails", .verbs = verbs, .verbs_count = 3);
END
build_object "$folder/fails.c"
start_node demo --handler "$object"
req demo FULL 28
check "a handler's reason comes out" fails_with 5 "the table is full"
req demo LATE 28
check "whatever its error is" fails_with 4 "the printer does not answer"
req demo BAD 28
check "and that of a call in it" fails_with 5 '"28" is not JSON' "5 of its 5 bytes"
run "$FERO" get demo 28 --seeds "$NODE"
check "nothing of which was stored" is_status 1
stop_node TERM

# ---- streams -----------------------------------------------------------------------------------

check_streams()
{
    req demo COUNT '' 3
    check "a stream is printed part by part" prints $'1\n2\n3'
    run bash -c "'$FERO' req demo COUNT '' 200000 --seeds '$NODE' --timeout 60000 | tail -n 1"
    check "a long one arrives whole, whatever has room" prints 200000
    req demo COUNT key 100000000 --count 5
    check "--count stops it" prints $'1\n2\n3\n4\n5'
    req demo PRIMES '' 20
    check "a thread's stream is printed" prints $'2\n3\n5\n7\n11\n13\n17\n19'
    run bash -c "'$FERO' req demo PRIMES key 500000 --seeds '$NODE' --timeout 60000 | wc -l"
    check "a thread's long stream is whole" prints 41538
    req demo PRIMES '' 9000000000000000000 --count 3
    check "a thread's stream is stopped" prints $'2\n3\n5'
    req demo TICK '' 20 --count 2
    check "a stream without an end is stopped" prints $'1\n2'
    "$FERO" req demo TICK '' 20 --seeds "$NODE" --timeout 60000 >"$folder/ticks" &
    local pid=$! tries
    for ((tries = 0; tries < 300; tries++)); do
        [ -s "$folder/ticks" ] && break
        sleep 0.1
    done
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    is_over() { "$FERO" info demo --seeds "$NODE" --json | tr ',' '\n' | grep -c '"deferred":0'; }
    for ((tries = 0; tries < 300; tries++)); do
        [ "$(is_over)" -eq 2 ] && break
        sleep 0.1
    done
    check "a caller that is gone ends its stream" [ "$(is_over)" -eq 2 ]
}

build_example stream
start_program "$program"
check_streams
stop_node TERM
check "stream stops in order" is_status 0
build_object examples/stream.c
start_node demo --handler "$object" --shards 2
check_streams
stop_node TERM
