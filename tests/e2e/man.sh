#!/usr/bin/env bash
# The manual pages: every command and option of --help is in them and nothing else, and they render
# without a warning.
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

# The options of the subsection ".Ss TITLE ..." of a page.
options_of_page() # page title
{
    awk -v title=".Ss $2" '
        /^\.S[sh] / { inside = $0 == title || index($0, title " ") == 1 }
        inside && /^\.It Fl / {
            for (i = 2; i <= NF; i++) if ($(i - 1) == "Fl") print "-" $i
        }
    ' "$1" | sort -u
}

same_options() # page command...
{
    local page=$1
    shift
    OUT=$(diff <(options_of_help "$@") <(options_of_page "$page" "fero $*"))
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

main=docs/man/fero.1
bench=docs/man/fero-bench.1
STATUS=0
check "every command has its place in fero.1" same_names Commands "$main" 2
check "every bench has its place in fero-bench.1" same_names Benches "$bench" 3 bench
for command in $(names_of_help Commands); do
    [ "$command" != bench ] || continue # its options are those of each bench
    check "options of $command" same_options "$main" "$command"
done
for command in $(names_of_help Benches bench); do
    check "options of bench $command" same_options "$bench" bench "$command"
done

# What is compared must be something.
has_many() { [ "$(options_of_help "$@" | wc -l)" -ge 10 ]; }
check "serve has many options" has_many serve
check "and so has bench speed" has_many bench speed

words_of_exits() { sed -n '/^\.Sh EXIT STATUS/,/^\.Sh EX/s/^\.It \([0-9]\)$/\1/p' "$main" | tr -d '\n'; }
check "every exit status is explained" [ "$(words_of_exits)" = 012345 ]

# ---- rendering ---------------------------------------------------------------------------------

renders() # command...
{
    OUT=$("$@" 2>&1)
    STATUS=$?
    [ $STATUS -eq 0 ] && [ -z "$OUT" ]
}
for page in "$main" "$bench"; do
    if command -v mandoc >/dev/null; then
        check "mandoc finds no fault with $page" renders mandoc -Tlint -Wwarning "$page"
    else
        echo "ok mandoc and $page # SKIP mandoc is not installed"
    fi
    if command -v groff >/dev/null; then
        check "groff renders $page" renders groff -mdoc -ww -z -Tascii "$page"
    else
        echo "ok groff and $page # SKIP groff is not installed"
    fi
done
