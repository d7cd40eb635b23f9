# Which folder may include what. This table is the architecture: docs/architecture.md says why. Prints
# one line for each include that is not in it. Needs code.awk.

BEGIN {
    allowed["base"] = "base"
    allowed["ring"] = "ring base"
    allowed["wire"] = "wire base"
    allowed["net"] = "net base"
    allowed["log"] = "log base wire"
    allowed["shard"] = "shard base ring wire net log"
    allowed["engine/cluster"] = "engine/cluster base ring wire"
    allowed["engine"] = "engine engine/cluster shard log net wire ring base include"
    allowed["cli"] = "cli include bench"
    allowed["include"] = ""
    allowed["examples"] = "include"

    # Headers from outside: a pattern, and the files (below src/) that may include what matches.
    outside["^liburing"] = "^net/"
    outside["^ck_"] = "^base/ck\\.h$"
    outside["^xxhash\\.h$|^xxh3\\.h$"] = "^(base|ring|wire|log)/"
    outside["^jansson\\.h$"] = "^(wire|engine)/[^/]*$"
    outside["^cmocka\\.h$"] = "^$"
    outside["^assert\\.h$"] = "^$"
    outside["^(sys/socket|sys/epoll|sys/eventfd)\\.h$"] = "^(net|shard|cli)/|^engine/[^/]*$"
    # Threads and atomics live in few files, so that a proof of them is short.
    outside["^(pthread|stdatomic|threads)\\.h$"] = \
        "^base/(ck\\.h|trace\\.c|assert\\.c|thread\\.[ch])$" \
        "|^shard/(lane\\.[ch]|mailbox\\.[ch]|shard\\.c)$|^engine/(server|api|host|driver)\\.[ch]$" \
        "|^examples/stream\\.c$"
}

FNR == 1 {
    file = FILENAME
    folder = file
    sub(/\/[^\/]*$/, "", folder)
    inside = folder
    sub(/^src\//, "", inside)
    below = file
    sub(/^src\//, "", below)
    if (!(inside in allowed)) complain("the folder " folder " is not in the table of layers")
}

{ line = code($0) }

line ~ /^[ \t]*#[ \t]*include/ {
    if (!match(line, /["<][^">]*[">]/)) {
        complain("the name of an included file must be written out")
        next
    }
    name = substr(line, RSTART + 1, RLENGTH - 2)
    quoted = substr(line, RSTART, 1) == "\""
    if (name == "fero.h")
        own("include")
    else if (quoted)
        own(folder_of(name))
    else
        foreign()
}

# "base/clock.h" is named by its folder below src/; a bare name is in the folder of its includer.
function folder_of(path)
{
    if (path !~ /\//) return inside
    sub(/\/[^\/]*$/, "", path)
    return path
}

function own(from)
{
    if (name ~ /\.c$/) complain("includes a .c file")
    if (index(" " allowed[inside] " ", " " from " ") == 0)
        complain(inside " may not include " from " (" name ")")
    else if (from == "bench" && name != "bench/bench.h")
        complain(inside " may include bench/bench.h only, not " name)
}

function foreign(    pattern)
{
    # A header of ours in angle brackets would pass for one of the system.
    if (folder_of(name) in allowed && name ~ /\//) own(folder_of(name))
    for (pattern in outside)
        if (name ~ pattern && below !~ outside[pattern])
            complain("<" name "> does not belong in " file)
}

function complain(what)
{
    printf "%s:%d: %s\n", file, FNR, what
}
