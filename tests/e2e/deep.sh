#!/usr/bin/env bash
# Keys that lead inside of a value: set, get, rm, add, push, patch; exact types, and what is refused.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

# As run, for a command about the cache "users" of the node.
fero()
{
    local command=$1
    shift
    run "$FERO" "$command" users "$@" --seeds "$NODE"
}

# What `get` prints, in one step.
holds() # key text
{
    fero get "$1"
    prints "$2"
}

for shards in 1 3; do
    start_node users --shards $shards
    on="on $shards"

    fero set 28.email x
    check "$on: a field of a new partition" prints "offset 1"
    check "$on: makes an object" holds 28 '{"email":"x"}'
    check "$on: and is there by itself" holds 28.email x
    fero set 28.address.city Bonn
    check "$on: objects on the way are made" holds 28 '{"email":"x","address":{"city":"Bonn"}}'
    fero set 28.email y
    check "$on: a field keeps its place" holds 28 '{"email":"y","address":{"city":"Bonn"}}'
    fero rm 28.address
    check "$on: a subtree is removed" prints "offset 4"
    check "$on: and nothing beside it" holds 28 '{"email":"y"}'
    fero get 28.address.city
    check "$on: and all that was in it" fails_with 1 '"28.address.city"'
    fero rm 28.address
    check "$on: once" fails_with 1 '"28.address"'
    fero get 28 --json
    check "$on: the offset counts the partition's changes" \
        prints '{"key":"28","type":"json","value":{"email":"y"},"offset":4}'
    fero rm 28.email
    check "$on: an empty object stays" holds 28 '{}'

    fero set 29 '{"a":1,"b":{"c":[1,2.50,{"d":"\u00e9"}]},"e":9007199254740993}'
    check "$on: inside of JSON text" holds 29.b.c.2.d é
    check "$on: a part of it as it was written" holds 29.b.c '[1,2.50,{"d":"\u00e9"}]'
    fero set 29.b.c.0 true
    check "$on: what changes, and nothing else" \
        holds 29 '{"a":1,"b":{"c":[true,2.50,{"d":"\u00e9"}]},"e":9007199254740993}'
    fero rm 29.b.c.1
    check "$on: a hole is null" holds 29.b.c '[true,null,{"d":"\u00e9"}]'
    fero rm 29.b.c.2
    check "$on: an array ends with what is there" holds 29.b.c '[true]'
    fero set 29 flat
    check "$on: a partition is set as a whole" holds 29 flat
    fero rm 29
    fero set 29.x 1
    check "$on: and begins anew" holds 29 '{"x":1}'

    fero push 30.list a
    check "$on: a push says the index" prints $'index 0\noffset 1'
    fero push 30.list '{"n":1}' --json
    check "$on: and so in JSON" prints '{"key":"30.list","index":1,"type":"json","offset":2}'
    fero set 30.list.1.n 2
    check "$on: a pushed object is one" holds 30 '{"list":["a",{"n":2}]}'
    fero add 30.orders '{"item":7}'
    check "$on: an add says the number" prints $'id 1\noffset 4'
    fero add 30.orders x --json
    check "$on: and so in JSON" prints '{"key":"30.orders","id":2,"type":"string","offset":5}'
    check "$on: which is a field" holds 30.orders '{"1":{"item":7},"2":"x"}'
    fero patch 30 '{"a.b":"\n","n":null,"list":[]}'
    check "$on: a patch is as many changes as fields" prints "offset 8"
    check "$on: and leaves the others" \
        holds 30 '{"list":[],"orders":{"1":{"item":7},"2":"x"},"a.b":"\n","n":null}'
    fero get '30.a\.b' --json
    check "$on: a dot in a name" prints '{"key":"30.a\\.b","type":"string","value":"\n","offset":6}'

    fero add david
    check "$on: an add without a key says the number" prints $'id 31\noffset 1'
    fero add '{"a":1}' --json
    check "$on: which is above all that are there" \
        prints '{"key":"","id":32,"type":"json","offset":1}'
    check "$on: and is a key like others" holds 31 david
    fero rm 31

    fero set 31.string '"' && fero set 31.whole -9223372036854775808
    fero set 31.double 5 --type double && fero set 31.tenth 0.1
    fero set 31.yes true && fero set 31.null null
    fero set 31.undefined '' --type undefined && fero set 31.bytes ab --type bytes
    check "$on: every type as JSON" holds 31 \
        '{"string":"\"","whole":-9223372036854775808,"double":5.0,"tenth":0.1,"yes":true,"null":null,"bytes":"6162"}'
    fero get 31.double --json
    check "$on: and as itself" prints '{"key":"31.double","type":"double","value":5,"offset":5}'
    fero get 31.undefined
    check "$on: undefined is there" prints undefined
    fero get 31.bytes
    check "$on: bytes are bytes" prints ab

    fero set 31.string.x 1
    check "$on: not through a string" fails_with 5 '"31.string" is a string' objects
    fero push 31.whole 1
    check "$on: nor a push to a number" fails_with 5 '"31.whole" is a number' array
    fero add 30.list 1
    check "$on: nor an add to an array" fails_with 5 '"30.list" is an array' object
    fero patch 30.list '{"a":1}'
    check "$on: nor a patch of one" fails_with 5 '"30.list" is an array' object
    fero set 30.list.x 1
    check "$on: nor a name in an array" fails_with 5 '"30.list"' '"x"' index
    fero set 30.list.7 1
    check "$on: nor an element beyond its end" fails_with 5 '"30.list"' 0 7 push
    fero set 28..x 1
    check "$on: nor an empty part" fails_with 2 '"28..x"' empty
    fero set .x 1
    check "$on: nor an empty partition" fails_with 2 '".x"' empty
    fero set "$(printf 'a%s' "$(printf '.x%.0s' {1..32})")" 1
    check "$on: nor 33 parts" fails_with 2 32 parts
    fero set $'28.\xff' 1
    check "$on: nor a name that is not UTF-8" fails_with 2 UTF-8
    fero patch 30 '[1]'
    check "$on: nor a patch that is no object" fails_with 2 object
    fero patch 30 nothing
    check "$on: nor one that is no JSON" fails_with 2 FIELDS nothing
    check "$on: and nothing was changed" \
        holds 30 '{"list":[],"orders":{"1":{"item":7},"2":"x"},"a.b":"\n","n":null}'
    fero set 'a\.b' 1
    check "$on: an escaped dot is no separator" holds 'a\.b' 1

    stop_node TERM
    check "$on: the node stops" is_status 0
done
