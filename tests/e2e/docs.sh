#!/usr/bin/env bash
# What the documents say is so: the tour of README.md prints what it shows, its program is the
# example, examples build and run in the tree and as installed, and what is referred to is there.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh
build=${BUILD:-build}
compiler=${CC:-gcc}

# ---- the tour ----------------------------------------------------------------------------------

# What is between the fences of one kind in README.md.
blocks_of() # kind
{
    awk -v fence="\`\`\`$1" '
        $0 == fence { inside = 1; next }
        /^```$/ { inside = 0 }
        inside
    ' README.md
}

start_node demo --shards 2

# One command of the tour, as it is to be run here: this fero, that node, this archive.
run_shown() # command
{
    local command=$1
    command=${command//-luring -lm/-luring -lm $sanitize}
    command=${command//build\/libfero.a/$build\/libfero.a}
    command=${command//build\/greeter/$folder\/greeter}
    local asks='^build/fero (set|get|rm|add|push|patch|watch|log|req) '
    if [[ $command =~ $asks ]]; then
        # A pipe may stand behind it.
        [[ $command == *" | "* ]] || command="$command | cat"
        command="${command/ | / --seeds $NODE | }"
    fi
    command=${command//build\/fero/$FERO}
    OUT=$(set -o pipefail; eval "$command" 2>&1 </dev/null)
    STATUS=$?
}

is_shown() { [ "$OUT" = "$1" ]; }

shown=
command=
tried=0
check_shown()
{
    [ -n "$command" ] || return
    run_shown "$command"
    check "README: $command" is_shown "${shown%$'\n'}"
    tried=$((tried + 1))
}

# An archive with sanitizers needs them when it is linked.
sanitize=$(grep -oE -- '-fsanitize=[a-z,]+' "$build/flags" | head -n 1)
while IFS= read -r line; do
    if [[ $line == '$ '* ]]; then
        check_shown
        command=${line#'$ '}
        shown=
    else
        shown+=$line$'\n'
    fi
done < <(blocks_of console)
check_shown
check "the tour has its commands" [ "$tried" -ge 10 ]

STATUS=0
OUT=$(diff <(blocks_of c) examples/greeter.c)
check "the program in README is examples/greeter.c" [ -z "$OUT" ]

# ---- examples, in the tree ---------------------------------------------------------------------

strict=(-std=c11 -pedantic -Wall -Wextra -Werror -Wconversion -Wshadow)
for source in examples/*.c; do
    run "$compiler" "${strict[@]}" -Iinclude -fsyntax-only "$source"
    check "$source is plain C" is_status 0
done
# shellcheck disable=SC2086 # no word, or one
run "$compiler" -o "$folder/pipeline" -Iinclude examples/pipeline.c "$build/libfero.a" -luring -lm \
    $sanitize
check "pipeline builds" is_status 0
run "$folder/pipeline" "$NODE" demo 100000
check "pipeline gets all its answers" prints "100000 updated, 0 failed"
run "$folder/pipeline" "$NODE" nosuch 1
check "and says what is wrong" fails_with 1 nosuch

# Two lines at once, then one at a time, each when the answer before it has come: it must neither
# wait for the input where an answer comes, nor the other way round.
# shellcheck disable=SC2086
run "$compiler" -o "$folder/loop" -Iinclude examples/loop.c "$build/libfero.a" -luring -lm $sanitize
check "loop builds" is_status 0
run_with $'loop david\nloop mark' "$folder/loop" "$NODE" demo
check "loop gets the answers of all lines" prints $'change 1\nchange 2'
talk_in_turns()
{
    local answer number pid
    coproc loop { "$folder/loop" "$NODE" demo; }
    # shellcheck disable=SC2154 # coproc sets it
    pid=$loop_PID
    for number in 3 4 5 6; do
        echo "loop $number" >&"${loop[1]}"
        read -r -t 30 answer <&"${loop[0]}" && [ "$answer" = "change $number" ] || return
    done
    eval "exec ${loop[1]}>&-"
    wait "$pid"
}
check "loop waits for its input and for fero at once" talk_in_turns
stop_node TERM

# A node without threads: what is set in the loop is there at once, and a client's doing as well.
# shellcheck disable=SC2086
run "$compiler" -o "$folder/inline" -Iinclude examples/inline.c "$build/libfero.a" -luring -lm \
    $sanitize
check "inline builds" is_status 0
talk_to_inline()
{
    local answer address pid
    coproc node { "$folder/inline" demo; }
    # shellcheck disable=SC2154 # coproc sets it
    pid=$node_PID
    read -r -t 30 answer <&"${node[0]}" || return
    address=${answer#listening on }
    printf '28 david\n28\n29\n' >&"${node[1]}"
    read -r -t 30 answer <&"${node[0]}" && [ "$answer" = david ] || return
    read -r -t 30 answer <&"${node[0]}" && [ "$answer" = "no 29" ] || return
    [ "$("$FERO" get demo 28 --seeds "$address")" = david ] || return
    "$FERO" set demo 29 mark --seeds "$address" >/dev/null || return
    echo 29 >&"${node[1]}"
    read -r -t 30 answer <&"${node[0]}" && [ "$answer" = mark ] || return
    eval "exec ${node[1]}>&-"
    wait "$pid"
}
check "inline serves its loop and its clients" talk_to_inline

# ---- installed ---------------------------------------------------------------------------------

installed()
{
    if [ -n "$sanitize" ]; then
        echo "ok installing # SKIP a sanitizer build is not installed"
        return
    fi
    run make install BUILD="$build" DESTDIR="$folder/root" PREFIX=/usr
    check "make install" is_status 0
    run "$folder/root/usr/bin/fero" version
    check "the installed command runs" prints_like "fero [0-9]*"
    OUT=$(diff -rq "$build/man/man1" "$folder/root/usr/share/man/man1" 2>&1
        diff -rq "$build/man/man3" "$folder/root/usr/share/man/man3" 2>&1)
    check "all manual pages are installed" [ -z "$OUT" ]
    check "the unit of systemd starts the installed program" \
        grep -q '^ExecStart=/usr/bin/fero serve' "$folder/root/usr/lib/systemd/system/fero.service"
    if ! command -v pkg-config >/dev/null; then
        echo "ok building with pkg-config # SKIP pkg-config is not installed"
        return
    fi
    export PKG_CONFIG_LIBDIR=$folder/root/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$folder/root
    export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
    run pkg-config --modversion fero
    check "pkg-config knows the version" prints "$("$FERO" version | grep -oE '[0-9.]+' | head -n 1)"
    # shellcheck disable=SC2046 # words
    run "$compiler" -o "$folder/shared" examples/greeter.c $(pkg-config --cflags --libs fero)
    check "the example builds against the shared library" is_status 0
    run env LD_LIBRARY_PATH="$folder/root/usr/lib" "$folder/shared"
    check "and runs" prints_like '*greet: "hello, david", offset 0'
    # shellcheck disable=SC2046
    run "$compiler" -o "$folder/static" examples/greeter.c $(pkg-config --cflags fero) \
        "$folder/root/usr/lib/libfero.a" $(pkg-config --static --libs fero | tr ' ' '\n' |
            grep -v -- -lfero)
    check "the example builds against the archive" is_status 0
    run "$folder/static"
    check "and runs, too" prints_like '*greet: "hello, david", offset 0'
    unset PKG_CONFIG_LIBDIR PKG_CONFIG_SYSROOT_DIR
    uninstalled
}

# Under a prefix of one's own nothing else has to be told; and nothing is left behind.
uninstalled()
{
    local prefix=$folder/own
    run make install BUILD="$build" PREFIX="$prefix"
    check "make install under a prefix of one's own" is_status 0
    # shellcheck disable=SC2046
    run "$compiler" -o "$folder/own_shared" examples/greeter.c \
        $(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --cflags --libs fero)
    run "$folder/own_shared"
    check "a program finds the library there" prints_like '*greet: "hello, david", offset 0'
    run make uninstall BUILD="$build" PREFIX="$prefix"
    OUT=$(find "$prefix" ! -type d)
    check "make uninstall leaves nothing" [ "$STATUS/$OUT" = 0/ ]
}
installed

# ---- references --------------------------------------------------------------------------------

STATUS=0
for document in README.md docs/*.md docs/adr/*.md bench/*.md; do
    [ -e "$document" ] || continue
    missing=
    while read -r target; do
        file=${target%%#*}
        [ -z "$file" ] || [ -e "$(dirname "$document")/$file" ] || missing+=" $target"
    done < <(grep -oE '\]\([^)]+\)' "$document" | sed 's/^](//; s/)$//' | grep -v '://')
    ERR=$missing
    check "links of $document lead somewhere" [ -z "$missing" ]
done

missing=
while read -r name; do
    compgen -G "docs/adr/$name*" >/dev/null || missing+=" $name"
done < <(grep -rhoE 'docs/adr/[0-9]{4}[a-z0-9-]*' src include bench tests docs | sed 's,.*/,,' | sort -u)
ERR=$missing
check "every decision that is referred to is there" [ -z "$missing" ]

missing=
for decision in docs/adr/*.md; do
    for part in "Status:" "## Context" "## Options" "## Choice" "## Measured" "## Costs"; do
        grep -q "^$part" "$decision" || missing+=" $decision lacks \"$part\""
    done
done
ERR=$missing
check "every decision has its parts" [ -z "$missing" ]

# Files that architecture.md names in backquotes.
named="\`[a-z0-9_./-]+\.(c|h|awk|sh|md)\`"
missing=
while read -r name; do
    [ -e "src/$name" ] || [ -e "$name" ] || missing+=" $name"
done < <(grep -oE "$named" docs/architecture.md | tr -d "\`" | sort -u)
ERR=$missing
check "every file that architecture.md names is there" [ -z "$missing" ]
