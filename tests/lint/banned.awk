# Calls that do not belong here. Prints one line for each. Needs code.awk.

BEGIN {
    add(anywhere, "strcpy strcat sprintf gets")
    # atoi hides errors, rand and sleep hide time and randomness, which are arguments here.
    add(in_src, "vsprintf atoi atol rand srand sleep usleep strtok")
    # Memory is counted: it comes from base, or from the process that the command line is.
    add(outside_base, "malloc calloc realloc free strdup")
}

function add(set, names,    list, count, i)
{
    count = split(names, list, " ")
    for (i = 1; i <= count; i++) set[list[i]] = 1
}

{
    rest = code($0)
    # Names that are called; a member of a struct may be called anything.
    while (match(rest, /[A-Za-z_][A-Za-z0-9_]*[ \t]*\(/)) {
        before = substr(rest, 1, RSTART - 1)
        name = substr(rest, RSTART, RLENGTH - 1)
        sub(/[ \t]+$/, "", name)
        rest = substr(rest, RSTART + RLENGTH)
        if (before ~ /(\.|->)[ \t]*$/) continue
        if (is_banned(name)) printf "%s:%d: %s() is banned here\n", FILENAME, FNR, name
    }
}

function is_banned(name)
{
    if (name in anywhere) return 1
    if (FILENAME !~ /^src\//) return 0
    if (name in in_src) return 1
    return (name in outside_base) && FILENAME !~ /^src\/(base|cli)\//
}
