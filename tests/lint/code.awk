# code(line): what is left of a line of C without comments and without the insides of strings and
# character constants. The name of an included file stays. Read before the program that uses it.

FNR == 1 { in_comment = 0 }

function code(line,    out, found)
{
    out = ""
    if (!in_comment && match(line, /^[ \t]*#[ \t]*include[ \t]*["<][^">]*[">]/)) {
        out = substr(line, 1, RLENGTH)
        line = substr(line, RLENGTH + 1)
    }
    while (line != "") {
        if (in_comment) {
            found = index(line, "*/")
            if (!found) return out
            in_comment = 0
            line = substr(line, found + 2)
            out = out " "
            continue
        }
        if (!match(line, /\/\*|\/\/|"|'/)) return out line
        found = substr(line, RSTART, RLENGTH)
        out = out substr(line, 1, RSTART - 1)
        line = substr(line, RSTART + RLENGTH)
        if (found == "//") return out
        if (found == "/*") {
            in_comment = 1
            continue
        }
        # A string that does not end on its line is left to the compiler.
        if (found == "\"" && !match(line, /^([^"\\]|\\.)*"/)) return out
        if (found == "'" && !match(line, /^([^'\\]|\\.)*'/)) return out
        line = substr(line, RLENGTH + 1)
        out = out found found
    }
    return out
}
