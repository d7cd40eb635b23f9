#!/usr/bin/env bash
# Who may connect: addresses beyond loopback, the token of a node, and what is said to whom.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh
unset FERO_TOKEN_FILE

token=$folder/token
wrong=$folder/wrong
printf 'a token of twenty-eight bytes\n' >"$token"
printf 'another one\n' >"$wrong"
chmod 600 "$token" "$wrong"

# ---- where a node listens ----------------------------------------------------------------------

run "$FERO" serve demo --listen 0.0.0.0 --ports 0
check "all addresses without a token are refused, with both ways out" \
    fails_with 5 0.0.0.0 --token-file --insecure
run "$FERO" serve demo --listen '::' --ports 0
check "and so are all of IPv6" fails_with 5 "::" --token-file
run "$FERO" serve demo --listen nowhere --ports 0
check "what is no address is named" fails_with 2 nowhere
run "$FERO" serve demo --insecure --token-file "$token" --ports 0
check "--insecure and a token exclude each other" fails_with 2 --insecure --token-file

start_node demo --shards 1 --listen 0.0.0.0 --insecure
run "$FERO" set demo 28 david --seeds "127.0.0.1:${NODE##*:}"
check "--insecure lets everybody in" is_status 0
stop_node TERM
check "and says so" [ "$(printf '%s' "$ERR" | grep -c 'WARNING: --insecure')" -eq 1 ]

if [ -e /proc/net/if_inet6 ] && grep -q '^0*1 ' /proc/net/if_inet6; then
    start_node demo --shards 1 --listen ::1
    check "IPv6 loopback needs no token" [ "${NODE%:*}" = '[::1]' ]
    run "$FERO" set demo 28 david --seeds "$NODE"
    check "and is served" is_status 0
    stop_node TERM
else
    echo "ok IPv6 # SKIP no IPv6 here"
fi

# ---- the token file ----------------------------------------------------------------------------

refused_file() # mode, words...
{
    local mode=$1
    shift
    chmod "$mode" "$folder/file"
    run "$FERO" serve demo --ports 0 --token-file "$folder/file"
    fails_with 2 "$folder/file" "$@"
}
printf 'token\n' >"$folder/file"
check "a token that the group may read is refused, with what to type" refused_file 640 "chmod 600"
check "and one that all may read" refused_file 604 "chmod 600"
: >"$folder/file"
check "an empty one, with how to make one" refused_file 600 empty "openssl rand"
printf '\n' >"$folder/file"
check "a newline is empty, too" refused_file 600 empty
head -c 257 /dev/zero | tr '\0' x >"$folder/file"
check "one that is too long" refused_file 600 256
run "$FERO" serve demo --ports 0 --token-file "$folder/nothing"
check "one that is not there" fails_with 2 "$folder/nothing" "No such file"
run "$FERO" serve demo --ports 0 --token-file "$folder"
check "one that is a folder" fails_with 2 "$folder" "not a file"
run "$FERO" get demo 28 --token-file "$folder/nothing"
check "a client says the same" fails_with 2 "$folder/nothing"

# ---- who shows it ------------------------------------------------------------------------------

start_node demo --shards 2 --listen 0.0.0.0 --token-file "$token"
NODE=127.0.0.1:${NODE##*:}
client()
{
    run "$FERO" "$@" --seeds "$NODE"
}
client set demo 28 david --token-file "$token"
check "who shows the token may write" is_status 0
client get demo 28 --token-file "$token"
check "and read" prints david
run env FERO_TOKEN_FILE="$token" "$FERO" get demo 28 --seeds "$NODE"
check "the environment may name the file" prints david
run env FERO_TOKEN_FILE="$wrong" "$FERO" get demo 28 --seeds "$NODE" --token-file "$token"
check "the command line is stronger" prints david
client get demo 28
check "who shows none is refused" fails_with 5 "$NODE" --token-file
client get demo 28 --token-file "$wrong"
check "who shows another is refused" fails_with 5 "$NODE" "another token" --token-file
client bench latency --messages 100 --token-file "$token"
check "a bench shows it" is_status 0
client bench speed -r 1000 --keys 10
check "a bench without it is refused" [ "$STATUS" -eq 5 ]

# The bytes that a stranger gets: none, whatever is sent.
answer_to() # bytes as printf takes them
{
    # shellcheck disable=SC2059 # the bytes are the format
    OUT=$(exec 3<>"/dev/tcp/${NODE%:*}/${NODE##*:}" && printf "$1" >&3 &&
        timeout 10 head -c 8 <&3 | od -An -tx1)
}
hello='H\0\0\0\001\0\001\0FERO\377\377\001\0'
zeros='\0\0\0\0\0\0\0\0'
tail="$zeros$zeros\001\0\0\0\0\0\0\0\001\0\0\0\0\0\0\0$zeros$zeros"
says_nothing() { answer_to "$1" && [ -z "$OUT" ]; }
check "a stranger's HELLO has no answer" says_nothing "$hello$tail$zeros"
check "nor has a wrong token" says_nothing \
    "P${hello:1}$tail\0\0\0\0\010\0\0\0guess me"
check "nor a request of HTTP" says_nothing 'GET / HTTP/1.1\r\n\r\n'
check "nor silence" says_nothing ''
client get demo 28 --token-file "$token"
check "and the node goes on" prints david
stop_node TERM
check "it ends cleanly" is_status 0
secret=$(cat "$token")
check "it never prints the token" [ "${ERR/"$secret"/}" = "$ERR" ]

start_node demo --shards 1
answer_to "$hello$tail$zeros"
check "without a token that HELLO has one" [ "${OUT:0:6}" = " 62 00" ]
stop_node TERM

start_node demo --shards 1 --token-file "$token"
run "$FERO" get demo 28 --seeds "$NODE"
check "a token is wanted on loopback, too" fails_with 5 "$NODE"
stop_node TERM
