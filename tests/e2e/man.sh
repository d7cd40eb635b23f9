#!/usr/bin/env bash
# The manual pages: every command and option of --help is in them and nothing else, every function of
# fero.h has one, and they render without a warning.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

# The options that the help of a command names, up to its examples, but those that all have.
options_of_help() # command...
{
    "$FERO" "$@" --help | sed -e '/^Examples:/,$d' -e '/^  fero /,$d' |
        grep -oE '(^|[ [])(-[A-Za-z]|--[a-z][a-z0-9.-]*)($|[],. =])' |
        grep -oE -- '-[-A-Za-z0-9.]+' | sed 's/\.$//' |
        grep -vxE -- '-h|--help|--constants' | sort -u
}

# The options of the part of a page that begins with ".Ss TITLE ..." or ".Sh TITLE".
options_of_page() # page title
{
    awk -v title="$2" '
        /^\.S[sh] / { part = substr($0, 5); inside = part == title || index(part, title " ") == 1 }
        inside && /^\.It Fl / {
            for (i = 2; i <= NF; i++) if ($(i - 1) == "Fl") print "-" $i
        }
    ' "$1" | grep -vxE -- '-h|--help' | sort -u
}

same_options() # page title command...
{
    local page=$1 title=$2
    shift 2
    OUT=$(diff <(options_of_help "$@") <(options_of_page "$page" "$title"))
}

# The names below "TITLE:" in a help.
names_of_help() # title command...
{
    local title=$1
    shift
    "$FERO" "$@" --help | awk -v title="$title:" '
        $0 == title { inside = 1; next }
        /^$/ { inside = 0 }
        inside { print $1 }
    ' | sort
}

# The subsections of a page that name a command.
names_of_page() # page word
{
    awk -v word="$2" '$1 == ".Ss" && $2 == "fero" { print $(word + 1) }' "$1" | sort
}

same_names() # title page word command...
{
    local title=$1 page=$2 word=$3
    shift 3
    OUT=$(diff <(names_of_help "$title" "$@") <(names_of_page "$page" "$word"))
}

STATUS=0
pages=$folder/man
bench=docs/man/fero-bench.1
run scripts/man "$FERO" "$pages"
check "the pages are made" is_status 0
main=$pages/man1/fero.1

commands_of_main() { sed -n 's/^\.It Xr fero-\([a-z-]*\) 1$/\1/p' "$main" | sort; }
check "fero.1 names every command" [ "$(commands_of_main)" = "$(names_of_help Commands)" ]
check "every bench has its place in fero-bench.1" same_names Benches "$bench" 3 bench
for command in $(names_of_help Commands); do
    page=$pages/man1/fero-$command.1
    check "$command has a page" [ -s "$page" ]
    [ "$command" != bench ] || continue # its options are those of each bench
    check "with the options of its help" same_options "$page" OPTIONS "$command"
    check "and its examples" [ "$(grep -c "^fero $command" "$page")" -ge 1 ]
done
for command in $(names_of_help Benches bench); do
    check "bench $command has a page" [ -s "$pages/man1/fero-bench-$command.1" ]
    check "options of bench $command" same_options "$bench" "fero bench $command" bench "$command"
done

# What is compared must be something.
has_many() { [ "$(options_of_help "$@" | wc -l)" -ge 10 ]; }
check "serve has many options" has_many serve
check "and so has bench speed" has_many bench speed

words_of_exits() { sed -n '/^\.Sh EXIT STATUS/,/^\.Sh EX/s/^\.It \([0-9]\)$/\1/p' "$main" | tr -d '\n'; }
check "every exit status is explained" [ "$(words_of_exits)" = 012345 ]

# ---- functions ---------------------------------------------------------------------------------

# Every function of the header: what FERO_API declares, over several lines too, and the sugar.
functions_of_header()
{
    tr '\n' ' ' <include/fero.h | grep -oE '(FERO_API|static inline) [^;{]*\(' |
        grep -oE 'fero_[a-z_]+\($' | tr -d '(' | sort -u
}
functions_of_pages() { basename -s .3 "$pages"/man3/fero_*.3 | sort; }
OUT=$(diff <(functions_of_header) <(functions_of_pages))
check "every function has a page, and every page a function" [ -z "$OUT" ]
check "there are many" [ "$(functions_of_header | wc -l)" -ge 25 ]
unlisted=
for name in $(functions_of_header); do
    grep -q "fero_.*$name\|$name" "$pages/man3/fero.3" || unlisted+=" $name"
    grep -q '^\.Nd [^ ]' "$pages/man3/$name.3" || unlisted+=" $name"
    grep -q "^\.Fo $name\$" "$pages/man3/$name.3" || unlisted+=" $name"
    # A comment that the header lacks is a page that says nothing.
    [ "$(sed -n '/^\.Sh DESCRIPTION/,/^\.Sh/p' "$pages/man3/$name.3" | wc -l)" -gt 2 ] ||
        unlisted+=" $name"
done
ERR=$unlisted
check "each is described, and shown with its prototype" [ -z "$unlisted" ]

# ---- rendering ---------------------------------------------------------------------------------

renders() # command...
{
    OUT=$("$@" 2>&1)
    STATUS=$?
    [ $STATUS -eq 0 ] && [ -z "$OUT" ]
}
if command -v mandoc >/dev/null; then
    check "mandoc finds no fault with any page" \
        renders mandoc -Tlint -Wwarning "$pages"/man1/*.1 "$pages"/man3/*.3
else
    echo "ok mandoc # SKIP mandoc is not installed"
fi
if command -v groff >/dev/null; then
    for page in "$main" "$bench" "$pages/man1/fero-serve.1" "$pages/man3/fero_start.3"; do
        check "groff renders ${page##*/}" renders groff -mdoc -ww -z -Tascii "$page"
    done
else
    echo "ok groff # SKIP groff is not installed"
fi
