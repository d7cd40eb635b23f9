# Manual pages of section 3 from include/fero.h: one for each function, and fero.3 about them all.
#
#   awk -v folder=OUT -v date="November 25, 2026" -v version=0.1.0 -f scripts/man3.awk include/fero.h
#
# What a page says is the comment above the function in the header, so that the two cannot disagree:
#
#   - functions that follow each other without an empty line share a comment, and a page;
#   - lines "  FERO_E_NAME  text" of a comment, two more spaces in than its text, are the errors;
#   - a comment with an empty line behind it is about all functions of its part of the header;
#   - types and callbacks that a prototype names are shown on its page, as the header has them.

function trim(text)
{
    sub(/^[ \t]+/, "", text)
    sub(/[ \t]+$/, "", text)
    return text
}

# ---- reading -------------------------------------------------------------------------------------

function take_comment(    text, line)
{
    text = ""
    line = $0
    sub(/^\/\*/, "  ", line)
    while (index(line, "*/") == 0) {
        text = text line "\n"
        if ((getline line) <= 0) break
        if (line !~ /^ \*\//) sub(/^ \*/, "", line)
    }
    sub(/[ ]*\*\/.*$/, "", line)
    return text line "\n"
}

function is_blank(text)
{
    return text ~ /^[ \t\n]*$/
}

function keep_prose()
{
    if (is_blank(comment)) return
    if (part == "") intro = intro comment "\n"
    else prose[part] = prose[part] comment "\n"
    comment = ""
}

# The whole declaration that begins on this line.
function take_declaration(until,    text, line)
{
    text = $0
    line = $0
    while (line !~ until) {
        if ((getline line) <= 0) break
        text = text "\n" line
    }
    return text
}

function add_function(text,    name)
{
    sub(/^FERO_API /, "", text)
    sub(/^static inline /, "", text)
    gsub(/ FERO_NODISCARD/, "", text)
    gsub(/[ \t\n]+/, " ", text)
    sub(/;.*$/, "", text)
    name = text
    sub(/\(.*$/, "", name)
    sub(/^.*[ *]/, "", name)
    functions[++functions_count] = name
    prototype[name] = text
    part_of[name] = part
    if (is_blank(comment) && last_function != "") {
        page_of[name] = page_of[last_function]
    } else {
        page_of[name] = name
        text_of[name] = comment
    }
    members[page_of[name]] = members[page_of[name]] " " name
    last_function = name
    comment = ""
}

function add_type(text,    name)
{
    name = text
    if (name ~ /\(\*/) {
        sub(/^[^(]*\(\*/, "", name)
        sub(/\).*$/, "", name)
    } else {
        sub(/;[^;]*$/, "", name)
        sub(/^.*[ }*]/, "", name)
    }
    types[++types_count] = name
    type_comment[name] = comment
    type_text[name] = text
    comment = ""
    last_function = ""
}

/^\/\* -+ .* \*\/$/ {
    keep_prose()
    part = $0
    sub(/^\/\* -+ /, "", part)
    sub(/ \*\/$/, "", part)
    parts[++parts_count] = part
    last_function = ""
    next
}
/^\/\*/ {
    keep_prose()
    comment = take_comment()
    next
}
/^typedef struct [a-z_]+ \{/ { add_type(take_declaration("^}")); next }
/^typedef / {
    if (index($0, ";") == 0 || $0 ~ /;/) add_type(take_declaration(";"))
    next
}
/^FERO_API / { add_function(take_declaration(";")); next }
/^static inline / { add_function($0); next }
/^#define FERO_[A-Z0-9_]+ / {
    if (!is_blank(comment)) {
        gsub(/\n/, " ", comment)
        constants[part] = constants[part] "/* " trim(comment) " */\n"
        comment = ""
    }
    if ($2 ~ /^FERO_E_/) {
        line = $0
        if (line ~ /\/\*/) {
            sub(/^.*\/\* /, "", line)
            sub(/ \*\/.*$/, "", line)
        } else line = ""
        error_text[$2] = line
        errors[++errors_count] = $2
    } else if ($2 !~ /^FERO_(API|NODISCARD|H|VERSION)$/) {
        constants[part] = constants[part] $0 "\n"
    }
    next
}
/^[ \t]*$/ { keep_prose(); last_function = "" }

# ---- writing -------------------------------------------------------------------------------------

function escape(text)
{
    gsub(/\\/, "\\e", text)
    if (text ~ /^[.']/) text = "\\&" text
    return text
}

function is_function(word)
{
    return word in prototype
}

# One paragraph: a sentence begins a line; functions of other pages and errors become macros.
function put_text(text, page,    count, words, i, word, behind, line, before)
{
    gsub(/[ \t\n]+/, " ", text)
    count = split(trim(text), words, " ")
    line = ""
    for (i = 1; i <= count; i++) {
        word = words[i]
        behind = ""
        before = ""
        if (match(word, /^[("]+/)) {
            before = substr(word, 1, RLENGTH)
            word = substr(word, RLENGTH + 1)
        }
        if (match(word, /[^A-Za-z0-9_`]+$/)) {
            behind = substr(word, RSTART)
            word = substr(word, 1, RSTART - 1)
        }
        if (before == "" && behind ~ /^[.,;:)]?$/ &&
            ((is_function(word) && page_of[word] != page) || word in error_text ||
             word ~ /^`[a-z_.]+`$/)) {
            if (line != "") print escape(line) >file
            line = ""
            if (is_function(word)) macro = ".Xr " word " 3"
            else if (word in error_text) macro = ".Dv " word
            else macro = ".Fa " substr(word, 2, length(word) - 2)
            print macro (behind != "" ? " " behind : "") >file
            continue
        }
        word = words[i]
        gsub(/`/, "", word)
        if (line != "" && length(line) + length(word) > 78) {
            print escape(line) >file
            line = ""
        }
        line = line (line != "" ? " " : "") word
        # A new sentence, a new line.
        if (word ~ /[.!?]$/ && word !~ /\.\.\.$/ && i < count && words[i + 1] ~ /^[A-Z0-9(]/) {
            print escape(line) >file
            line = ""
        }
    }
    if (line != "") print escape(line) >file
}

# A comment: paragraphs, and its errors are kept in `kept` (one a line: names, a tab, text).
function put_comment(text, page,    count, lines, i, paragraph, line, item, depth)
{
    count = split(text, lines, "\n")
    paragraph = ""
    item = ""
    for (i = 1; i <= count + 1; i++) {
        line = i <= count ? lines[i] : ""
        if (line ~ /^   FERO_E_/) {
            if (item != "") kept = kept item "\n"
            item = trim(line)
            continue
        }
        if (item != "" && line ~ /^     +[^ ]/) {
            item = item " " trim(line)
            continue
        }
        if (item != "") kept = kept item "\n"
        item = ""
        if (!is_blank(line)) {
            paragraph = paragraph " " line
            continue
        }
        if (!is_blank(paragraph)) {
            if (wrote) print ".Pp" >file
            put_text(paragraph, page)
            wrote = 1
        }
        paragraph = ""
    }
}

function put_errors(page,    count, lines, i, names, text, at)
{
    if (kept == "") return
    print ".Sh ERRORS" >file
    print ".Bl -tag -width FERO_E_NOTFOUND" >file
    count = split(kept, lines, "\n")
    for (i = 1; i <= count; i++) {
        if (lines[i] == "") continue
        at = match(lines[i], /  +/)
        if (at == 0) {
            names = lines[i]
            text = ""
        } else {
            names = substr(lines[i], 1, at - 1)
            text = substr(lines[i], at + RLENGTH)
        }
        gsub(/, /, " , ", names)
        gsub(/ \.\.\./, " , ...", names)
        print ".It Dv " names >file
        put_text(text, page)
    }
    print ".El" >file
    kept = ""
}

function put_literal(text,    count, lines, i)
{
    print ".Bd -literal" >file
    count = split(text, lines, "\n")
    while (count > 0 && lines[count] == "") count--
    for (i = 1; i <= count; i++) print escape(lines[i]) >file
    print ".Ed" >file
}

function put_prototype(name,    text, result, arguments, count, list, i)
{
    text = prototype[name]
    result = text
    sub(/ *[a-z_]+\(.*$/, "", result)
    sub(/^ */, "", result)
    arguments = text
    sub(/^[^(]*\(/, "", arguments)
    sub(/\)[^)]*$/, "", arguments)
    print ".Ft \"" result "\"" >file
    print ".Fo " name >file
    count = split(arguments, list, ", ")
    for (i = 1; i <= count; i++) print ".Fa \"" list[i] "\"" >file
    print ".Fc" >file
}

# The first sentence, or what of it stands before a colon.
function summary_of(text,    first)
{
    gsub(/[ \t\n]+/, " ", text)
    text = trim(text)
    sub(/^(Clients|Servers|Threads of a server): /, "", text)
    first = text
    if (match(text, /[^.][.:;]( |$)/)) first = substr(text, 1, RSTART)
    sub(/ \([^)]*$/, "", first)
    gsub(/`/, "", first)
    return tolower(substr(first, 1, 1)) substr(first, 2)
}

function begin_page(name, file_name)
{
    file = folder "/" file_name ".3"
    wrote = 0
    kept = ""
    printf ".\\\" Made from the comments of fero.h by scripts/man3.awk.\n" >file
    printf ".Dd %s\n.Dt %s 3\n.Os fero %s\n.Sh NAME\n", date, toupper(name), version >file
}

function put_page(page, file_name,    count, list, i, name, shown, j, all)
{
    begin_page(page, file_name)
    count = split(trim(members[page]), list, " ")
    for (i = 1; i <= count; i++)
        print ".Nm " list[i] (i < count ? " ," : "") >file
    print ".Nd " summary_of(text_of[page]) >file
    print ".Sh SYNOPSIS\n.In fero.h" >file
    for (i = 1; i <= count; i++) put_prototype(list[i])
    print ".Sh DESCRIPTION" >file
    put_comment(text_of[page], page)
    if (!is_blank(prose[part_of[page]])) put_comment(prose[part_of[page]], page)
    all = ""
    for (i = 1; i <= count; i++) all = all " " prototype[list[i]]
    shown = 0
    for (i = 1; i <= types_count; i++) {
        name = types[i]
        if (all !~ ("(^|[^a-z_])" name "([^a-z_]|$)") || type_text[name] !~ /[{(]/) continue
        if (!shown++) print ".Sh TYPES" >file
        print ".Ss " name >file
        wrote = 0
        if (!is_blank(type_comment[name])) put_comment(type_comment[name], page)
        put_literal(type_text[name])
    }
    if (constants[part_of[page]] != "" && all ~ /fero_(wopts|result|req|val|runtime_opts|log_fn)/) {
        print ".Sh CONSTANTS" >file
        put_literal(constants[part_of[page]])
    }
    put_errors(page)
    print ".Sh SEE ALSO" >file
    shown = 0
    see[++shown] = "fero"
    for (i = 1; i <= functions_count; i++) {
        name = functions[i]
        if (page_of[name] != name || name == page || part_of[name] != part_of[page]) continue
        for (j = ++shown; see[j - 1] > name; j--) see[j] = see[j - 1]
        see[j] = name
    }
    for (i = 1; i <= shown; i++) print ".Xr " see[i] " 3" (i < shown ? " ," : "") >file
    close(file)
}

function put_overview(    i, j, name)
{
    begin_page("fero", "fero")
    print ".Nm fero\n.Nd the library: nodes and clients inside a program" >file
    print ".Sh SYNOPSIS\n.In fero.h" >file
    print ".Pp\n.Dl cc program.c $(pkg-config --cflags --libs fero)" >file
    print ".Sh DESCRIPTION" >file
    sub(/^[^\n]*fero.h - /, "The file is ", intro)
    gsub(/\n   - /, "\n\n", intro)
    put_comment(intro, "fero")
    for (i = 1; i <= parts_count; i++) {
        shown = 0
        for (j = 1; j <= functions_count; j++) {
            name = functions[j]
            if (part_of[name] != parts[i] || page_of[name] != name) continue
            if (!shown++) {
                print ".Ss " toupper(substr(parts[i], 1, 1)) substr(parts[i], 2) >file
                print ".Bl -tag -width Ds -compact" >file
            }
            gsub(/ /, " 3 , Xr ", members[name])
            sub(/^ 3 , /, "", members[name])
            print ".It " members[name] " 3" >file
            put_text(summary_of(text_of[name]), name)
        }
        if (shown) print ".El" >file
    }
    print ".Sh ERRORS" >file
    print ".Bl -tag -width FERO_E_UNSUPPORTED -compact" >file
    for (i = 1; i <= errors_count; i++) {
        print ".It Dv " errors[i] >file
        put_text(error_text[errors[i]], "fero")
    }
    print ".El" >file
    print ".Sh SEE ALSO\n.Xr fero 1" >file
    close(file)
}

END {
    for (i = 1; i <= functions_count; i++)
        put_page(page_of[functions[i]], functions[i])
    put_overview()
}
