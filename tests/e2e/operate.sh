#!/usr/bin/env bash
# How a node is watched: stat and errors, what they count, and how they are refused.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

# The number behind a key of the JSON in OUT, the last one of that name: the total's.
number() { printf '%s' "$OUT" | grep -o "\"$1\":[0-9]*" | tail -n 1 | grep -o '[0-9]*$'; }
# A row of the table in OUT, its columns apart by one space.
row() { printf '%s\n' "$OUT" | awk -v name="$1" '$1 == name { $1 = $1; print }'; }

# ---- stat --------------------------------------------------------------------------------------

start_node users teams --shards 2 --memory.max 256M
node() { run "$FERO" "$@" --seeds "$NODE"; }

for key in 1 2 3 4 5; do node set users "$key" x; done
node get users 1
node rm users 2
node get users nobody
node req users ECHO "" hello

node stat --json
check "stat needs no cache, and counts updates" [ "$STATUS/$(number updates)" = 0/5 ]
check "and removals" [ "$(number removes)" = 1 ]
check "and gets" [ "$(number gets)" = 2 ]
check "and verbs" [ "$(number verbs)" = 1 ]
check "and errors" [ "$(number errors)" = 1 ]
check "and keys" [ "$(number keys)" = 4 ]
check "it is one line" [ "$(printf '%s\n' "$OUT" | wc -l)" -eq 1 ]
check "with an object for each shard and a total" prints_like '*{"shard":0,*{"shard":1,*"total":{*'
node stat
check "piped, the table is printed once" [ "$(printf '%s\n' "$OUT" | grep -c '^shard')" -eq 1 ]
check "with a row for each shard" [ -n "$(row 0)" -a -n "$(row 1)" ]
check "and their sum" [ "$(row total | cut -d' ' -f6)" = 5 ]
node stat --all
check "--all has a row for each counter" [ "$(row updates | cut -d' ' -f4)" = 5 ]
check "and for those that few look at" [ -n "$(row accept_pauses)" ]
node stat users
check "the name of a cache is taken" is_status 0
node stat nosuch
check "one that the node does not have is named" fails_with 1 '"nosuch"'

node stat --interval 0.1 --count 3
check "--count 3 prints three tables" [ "$(printf '%s\n' "$OUT" | grep -c '^shard')" -eq 3 ]
check "of rates" prints_like '*updates/s*'
node stat --interval 0.1 --count 2 --json
check "or two lines of JSON" [ "$(printf '%s\n' "$OUT" | grep -c '"per_second":{')" -eq 2 ]
node stat --interval 0
check "an interval of nothing is refused" fails_with 2 --interval 0.1
node stat --interval soon
check "and one that is no number" fails_with 2 --interval soon
node stat --once --count 2
check "--once and --count exclude each other" fails_with 2 --once --count

if command -v script >/dev/null; then
    OUT=$(timeout 60 script -qec "\"$FERO\" stat --seeds $NODE --interval 0.1 --count 2" /dev/null \
        </dev/null 2>/dev/null)
    check "on a terminal each table takes the place of the last one" \
        [ "$(printf '%s' "$OUT" | grep -c $'\033\[H')" -eq 3 ]
else
    echo "ok stat on a terminal # SKIP script is not installed"
fi

# ---- errors ------------------------------------------------------------------------------------

node errors --json
check "an error is told with its count and times" \
    prints_like '*"kind":"reply","error":7,"count":1,"first_ms":1*,"last_ms":1*,"text":"no such key"*'
for key in a b c; do node get users "$key"; done
node errors --json
check "the same again is the same, whichever shard it met" [ "$(number count)" = 4 ]
node errors
check "as a table, with what it means" prints_like '*1 distinct errors*4 *reply*7 (not found)*no such key'
exec 3<>"/dev/tcp/${NODE%:*}/${NODE##*:}"
printf 'GET / HTTP/1.1\r\n\r\n' >&3
timeout 10 cat <&3 >/dev/null
exec 3>&-
node errors
check "a connection that was refused is one" prints_like '*link*16 (protocol error)*first frame*'
node get users .a
node errors
check "one that names a key does so of the first" prints_like '*key ".a" has an empty part*'
node errors nosuch
check "a cache that is not there is named" fails_with 1 '"nosuch"'
stop_node TERM

start_node demo --shards 1 --errors.max 1
node get demo 28
node req demo UNHEARD-OF
node req demo UNHEARD-OF
node errors
check "what finds no room is counted" prints_like '*1 distinct*and 2 that found no room: *--errors.max'
stop_node TERM
start_node demo --shards 1 --constants.errors.max=off
node errors
check "a node without errors says so" prints_like '*no errors*'
stop_node TERM

run "$FERO" stat --seeds 127.0.0.1:1 --timeout 300
check "nobody there is status 3" fails_with 3 127.0.0.1:1
run "$FERO" errors --seeds 127.0.0.1:1 --timeout 300
check "of errors, too" fails_with 3 127.0.0.1:1

# ---- the environment ---------------------------------------------------------------------------

start_node demo --shards 1
run env FERO_SEEDS="$NODE" "$FERO" set demo 28 david
check "seeds may come from the environment" is_status 0
run env FERO_SEEDS=nowhere "$FERO" get demo 28 --seeds "$NODE"
check "the command line is stronger" prints david
run env FERO_JSON=1 FERO_SEEDS="$NODE" "$FERO" get demo 28
check "a flag is 1 there" prints_like '{*"value":"david"*}'
run env FERO_JSON=maybe "$FERO" get demo 28 --seeds "$NODE"
check "or 0, and nothing else" fails_with 2 FERO_JSON '"maybe"'
run env FERO_TIMEOUT=soon "$FERO" get demo 28 --seeds "$NODE"
check "what is wrong there is named so" fails_with 2 FERO_TIMEOUT '"soon"'
stop_node TERM
run env FERO_MEMORY_MAX=1k "$FERO" serve demo --ports 0
check "the options of serve, too" fails_with 2 memory.max 1024

# ---- what a node would run with ----------------------------------------------------------------

run env FERO_KEY_MAX=64 "$FERO" serve demo --print-config --memory.max 256M --shards 2
config() { printf '%s\n' "$OUT" | awk -v name="$1" '$1 == name { $1 = ""; sub(/^ /, ""); print }' | tr -s ' '; }
check "--print-config shows what the command line said" \
    [ "$STATUS/$(config memory.max)" = "0/268435456 command line" ]
check "what the environment said" [ "$(config key.max)" = "64 environment FERO_KEY_MAX" ]
check "what is made of defaults" [ "$(config outbox.max)" = "1048576 default" ]
check "and what the help says of others" [ "$(config ports)" = "7700-7799 default" ]
run env FERO_KEY_MAX=64 "$FERO" serve demo --print-config --constants.key.max=65 --json
check "the command line is stronger, in JSON too" \
    prints_like '{"options":\[{*{"name":"key.max","value":"65","source":"command line"},*}\]}'
run "$FERO" serve demo --print-config --memory.max 256M --shards 2
check "a size where a number would be records has its unit" \
    [ "$(config partitions.history.max)" = "26843545B default" ]
run "$FERO" serve demo --print-config --partitions.history.max 10
check "and records are shown as records" [ "$(config partitions.history.max)" = "10 command line" ]
run "$FERO" serve demo --print-config --key.max 1G
check "what cannot be is refused" fails_with 2 key.max
run "$FERO" serve demo --print-config --listen 0.0.0.0
check "as it would be" fails_with 5 0.0.0.0

# ---- lines of diagnostics ----------------------------------------------------------------------

talks() # level, lines that must be there...
{
    local word
    for word in "${@:2}"; do
        # shellcheck disable=SC2053 # the words are a pattern
        [[ $ERR == *"Z $1 fero:"$word* ]] || return 1
    done
}
DEBUG=fero start_node demo --shards 1
run "$FERO" get demo 28 --seeds "$NODE"
exec 3<>"/dev/tcp/${NODE%:*}/${NODE##*:}"
printf 'GET / HTTP/1.1\r\n\r\n' >&3
timeout 10 cat <&3 >/dev/null
exec 3>&-
stop_node TERM
check "DEBUG=fero tells of each link" talks debug "link: 0.0.1 comes from 127.0.0.1:" \
    "link: 0.0.1 is welcome" "link: 0.0.1 has ended after 1 requests: its peer ended it"
# It has the first link's place, or another one where that had not ended yet.
check "of what was refused" talks warn "link: 0.*.* is refused: "
check "of start and stop" talks info "node: listening on $NODE" "node: the cache \"demo\" is open" \
    "node: stopping" "node: all shards have stopped"
DEBUG=http,fero:memory start_node demo --shards 1
run "$FERO" get demo 28 --seeds "$NODE"
stop_node TERM
check "a scope is told alone" [ "${ERR/fero:link/}" = "$ERR" ]
start_node demo --shards 1 --log-level info
stop_node TERM
check "--log-level info leaves out debugging" [ "${ERR/Z debug/}" = "$ERR" ]
check "and keeps the rest" talks info "node: listening"
FERO_LOG=error DEBUG=fero start_node demo --shards 1
stop_node TERM
check "FERO_LOG is stronger than DEBUG" [ -z "$ERR" ]
run env FERO_LOG=loud "$FERO" serve demo --ports 0
check "a level that is none is named" fails_with 2 FERO_LOG '"loud"'
run "$FERO" serve demo --log-level wran
check "of the option, too" fails_with 2 --log-level '"wran"' warn
start_node demo --shards 1
run env DEBUG=fero "$FERO" set demo 28 david --seeds "$NODE"
check "a client tells as well" talks info "client: connected to shard 0 of $NODE"
stop_node TERM

start_node demo --shards 1 --memory.max 64M --log-level info
run "$FERO" bench speed -m 1000 -r 200000 --keys 200000 --seeds "$NODE"
run "$FERO" errors --seeds "$NODE"
check "a full memory is an error" prints_like '*2 (out of memory)*memory.max is reached*'
stop_node TERM
check "that a line warns of, and of what came before" \
    talks warn "memory: shard 0 takes no more updates: memory.max is reached"
check "but not again and again" [ "$(printf '%s\n' "$ERR" | grep -c 'takes no more')" -le 60 ]
