#!/usr/bin/env bash
# set, get, rm, req, info against a node; what is printed, what is refused, and with which status.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

# ---- without a node ----------------------------------------------------------------------------

run "$FERO" version
check "version names itself" prints_like "fero [0-9]*.[0-9]*"
run "$FERO" version --json
check "version as JSON" prints_like '{"version":"*"}'
run "$FERO" --version
check "--version is the same" prints_like "fero [0-9]*"
run "$FERO"
check "no command is a usage error" is_status 2

for command in serve set get rm add push patch watch log req info stat errors completion bench version help \
    "bench speed" "bench latency" \
    "bench all"; do
    # shellcheck disable=SC2086 # "bench speed" is two words
    run "$FERO" $command --help
    examples=$(printf '%s\n' "$OUT" | sed -n '/^Examples:/,$p' | grep -c '^  fero')
    check "help of $command has three examples" [ "$STATUS/$examples" = 0/3 ]
    # shellcheck disable=SC2086
    run "$FERO" help $command
    check "help $command is the same" [ "$STATUS/${OUT:0:5}" = "0/fero " ]
done

run "$FERO" srve demo
check "unknown command names the nearest" fails_with 2 '"srve"' serve
run "$FERO" serve demo --shrads 2
check "unknown option names the nearest" fails_with 2 --shrads --shards
run "$FERO" get demo 28 --jsno
check "unknown option of get names the nearest" fails_with 2 --jsno --json
run "$FERO" set demo 28 x -q
check "unknown letter is one line" fails_with 2 -q --
run "$FERO" bench sped
check "unknown bench names the nearest" fails_with 2 '"sped"' speed
run "$FERO" bench speed --verb ehco
check "unknown choice names the nearest" fails_with 2 '"ehco"' echo
run "$FERO" set demo 28 x --type strin
check "unknown type names the nearest" fails_with 2 '"strin"' string
run "$FERO" serve demo --constants.outbx.max=0
check "unknown constant names the nearest" fails_with 2 constants.outbx.max constants.outbox.max
run "$FERO" serve demo --shards 0
check "a number below its range names both" fails_with 2 --shards 0 1
run "$FERO" serve demo --memory.max 1Q
check "a broken size is named" fails_with 2 --memory.max '"1Q"'
run "$FERO" serve demo --shards
check "a missing value is named" fails_with 2 --shards value
run "$FERO" get demo
check "a missing argument is named" fails_with 2 "NAME KEY"
run "$FERO" get demo 28 29
check "an argument too many is named" fails_with 2 '"29"'
run "$FERO" version --json=yes
check "a flag takes no value" fails_with 2 --json '"yes"'
run "$FERO" get demo 28 --seeds nowhere
check "a broken seed is named" fails_with 2 '"nowhere"'
run "$FERO" get $'de\xffmo' 28
check "a name that no cache has is refused" fails_with 2 name UTF-8
run "$FERO" serve $'de\nmo' --ports 0
check "a name with a newline is refused" fails_with 2 name control
run "$FERO" get demo 28 --timeout 0
check "a time-out of nothing is refused" fails_with 2 --timeout 0
run "$FERO" set demo 28 abc --type int64
check "a value that is not of its type" fails_with 2 int64 '"abc"'
run "$FERO" set demo 28 '{"a":}' --type json
check "JSON that is none" fails_with 2 json
begin_ms=$(now_ms)
run "$FERO" get demo 28 --seeds 127.0.0.1:1 --timeout 60000
took_ms=$(($(now_ms) - begin_ms))
check "nobody there is status 3: where, why, and what to do" \
    fails_with 3 127.0.0.1:1 "connection refused" "fero serve demo --ports 1" --seeds
is_soon() { [ $took_ms -lt 30000 ]; }
check "and does not take all of the time that an answer may take" is_soon

complete_as() # words typed...
{
    OUT=$(eval "$("$FERO" completion bash)"
        # shellcheck disable=SC2034 # the completion reads them
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _fero
        printf '%s ' "${COMPREPLY[@]}")
    STATUS=$?
}
complete_as fero ser
check "bash completes a command" prints "serve "
complete_as fero serve --memory
check "and an option of it" prints "--memory.max "
complete_as fero help stat
check "and what help explains" prints "stat "
complete_as fero get demo
check "and leaves names alone" prints " "
run "$FERO" completion fish
check "another shell is named" fails_with 2 '"fish"' bash

# ---- with one ----------------------------------------------------------------------------------

start_node demo users --shards 2
client() # command arguments...
{
    run "$FERO" "$@" --seeds "$NODE"
}

round_trip() # name, value given, value printed, type, value as JSON, options of set...
{
    local name=$1 given=$2 printed=$3 type=$4 json=$5
    shift 5
    client set demo "key of $name" "$given" "$@"
    check "set $name" prints_like "offset [1-9]*"
    client get demo "key of $name"
    check "get $name" prints "$printed"
    client get demo "key of $name" --json
    check "get $name as JSON" prints_like \
        "{\"key\":\"key of $name\",\"type\":\"$type\",\"value\":$json,\"offset\":[1-9]*}"
}

round_trip "a string" david david string '"david"'
round_trip "an empty string" '""' '' string '""'
round_trip "a string with quotes" 'say "hi" \ there' 'say "hi" \ there' string \
    '"say \\"hi\\" \\\\ there"'
round_trip "a JSON string" '"caf\u00e9"' café string '"café"'
round_trip "an integer" 28 28 int64 28
round_trip "a negative integer" -28 -28 int64 -28
round_trip "the largest integer" 9223372036854775807 9223372036854775807 int64 9223372036854775807
round_trip "an integer too large for one" 9223372036854775808 9.223372036854776e+18 double \
    9.223372036854776e+18
round_trip "a double" 0.1 0.1 double 0.1
round_trip "a double in scientific notation" 1e3 1000 double 1000
round_trip "true" true true bool true
round_trip "false" false false bool false
round_trip "null" null null null null
round_trip "undefined" undefined undefined undefined null --type undefined
round_trip "an object" '{"a":[1,2,{"b":null}]}' '{"a":[1,2,{"b":null}]}' json \
    '{"a":\[1,2,{"b":null}\]}'
round_trip "an array" '[]' '[]' json '\[\]'
round_trip "what only looks like JSON" '{a:1}' '{a:1}' string '"{a:1}"'
round_trip "digits with a leading zero" 028 028 string '"028"'
round_trip "a number as a string" 28 28 string '"28"' --type string
round_trip "a number as a double" 28 28 double 28 --type double
round_trip "bytes" abc abc bytes '"616263"' --type bytes
round_trip "JSON as asked" ' {"a" : 1} ' ' {"a" : 1} ' json ' {"a" : 1} ' --type json

client set demo 28 first --json
check "set as JSON" prints_like '{"key":"28","type":"string","offset":[1-9]*}'
client set demo 28 second
client get demo 28
check "the last value wins" prints second
client rm demo 28
check "rm prints the offset" prints_like "offset [1-9]*"
client get demo 28
check "what was removed is not found" fails_with 1 '"28"' demo
client rm demo 28
check "what was removed cannot be removed again" fails_with 1 '"28"' demo
client set demo 28 again
client rm demo 28 --json
check "rm as JSON" prints_like '{"key":"28","offset":[1-9]*}'
client get demo never
check "a key that never was is not found" fails_with 1 '"never"'
client get nosuch 28
check "a cache that is not there is named" fails_with 1 '"nosuch"'

run_with 'from a pipe
' "$FERO" set demo piped - --seeds "$NODE"
check "set reads the standard input" is_status 0
client get demo piped
check "without the newline at its end" prints "from a pipe"
head -c 70000 /dev/zero | tr '\0' x >"$folder/large"
run_with "$(cat "$folder/large")" "$FERO" set demo large - --type bytes --seeds "$NODE"
"$FERO" get demo large --seeds "$NODE" >"$folder/back"
STATUS=$?
check "70,000 bytes come back as they went" cmp -s "$folder/large" "$folder/back"
printf 'a\0b\377' >"$folder/binary"
"$FERO" set demo binary - --type bytes --seeds "$NODE" <"$folder/binary" >/dev/null
"$FERO" get demo binary --seeds "$NODE" >"$folder/back"
check "bytes may be any" cmp -s "$folder/binary" "$folder/back"

client req demo ECHO "" hello
check "ECHO replies with its body" prints hello
client req demo ECHO 28 '{"a":1}' --json
check "ECHO keeps the type" prints_like '{"type":"json","value":{"a":1},"offset":*}'
client req demo UPDATE 28 david
check "UPDATE as a verb is an update" is_status 0
client get demo 28
check "and its value is there" prints david
client req demo REMOVE 28
check "REMOVE as a verb is a removal" is_status 0
client get demo 28
check "and the key is gone" is_status 1
client req demo ECOH
check "unknown verb names the nearest" fails_with 5 '"ECOH"' ECHO

client info
check "info is JSON about the shards" prints_like '{*"shards":\[{*"cpu_ns":*}\]*}'
check "info names both caches" prints_like '*"demo"*"users"*'
client set users 28 david
client get demo 28
check "caches do not share keys" is_status 1
client get users 28
check "the other cache has it" prints david

long_key=$(head -c 2000 /dev/zero | tr '\0' k)
client set demo "$long_key" x
check "a key over the limit is refused with both values" fails_with 5 2000 1024
head -c 2000000 /dev/zero | tr '\0' v >"$folder/value"
run_with "$(cat "$folder/value")" "$FERO" set demo 28 - --seeds "$NODE"
check "a value over the limit is refused with both values" fails_with 5 2000000 1048576
client get demo 28
check "and nothing has changed" is_status 1

run bash -c "\"$FERO\" get users 28 --seeds $NODE >/dev/full"
check "a full disk is an error" fails_with 1 "cannot write"

stop_node TERM
check "the node ends cleanly" is_status 0
