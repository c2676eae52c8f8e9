#!/usr/bin/env bash
# format.sh: make format.  Lays out src/ as PostgreSQL's own tree, with its pgindent.
#     format.sh          rewrites the files
#     format.sh check    only shows what it would change, and ends with 1 if that is anything
# pgindent comes with the build of 18 from source that make matrix keeps; the first use builds it.
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

begun=$SECONDS

# own_typedefs prints the names of types that the sources define or take from librdkafka.
own_typedefs() {
    find "$ES_ROOT/src" -name '*.[ch]' -exec cat {} + | perl -ne '
        print "$1\n" if /^\}\s*([A-Z]\w*);/; # not "} name;": a variable
        print "$1\n" if /^typedef\b.*?(\w+);/;
        print "$1\n" if /^typedef\b.*?\(\*\s*(\w+)\)/;
        print "$_\n" for /\b(rd_kafka_\w+_t|amqp_\w+_t)\b/g;' | sort -u
}

# run_pgindent runs pgindent with arguments on all sources.
run_pgindent() {
    local tools pg_config files
    # not in one command with local: the status would be lost
    pg_config=$("$ES_ROOT/test/setup/prefix.sh" src 18) || { say "pgindent is not to be had: no build of PostgreSQL 18"; return 1; }
    tools=$("$pg_config" --sharedir | sed 's,/postgresql$,,')/tools
    [ -x "$tools/pgindent" ] || tools=$("$pg_config" --sharedir)/tools
    [ -x "$tools/pgindent" ] || { say "pgindent is not to be had: none in $tools"; return 1; }
    { cat "$tools/typedefs.list"; own_typedefs; } | sort -u >"$typedefs"
    mapfile -t files < <(find "$ES_ROOT/src" -name '*.[ch]' | sort)
    perl "$tools/pgindent" --indent="$tools/pg_bsd_indent" --typedefs="$typedefs" "$@" "${files[@]}"
}

typedefs=$(mktemp)
trap 'rm -f "$typedefs"' EXIT
if [ "${1:-}" != check ]; then
    run_pgindent
elif diff=$(run_pgindent --check --diff 2>&1); then
    echo "ok     format"
    printf 'format\t1\t0\t%d\n' $((SECONDS - begun)) >>"${ES_TALLY:-/dev/null}"
else
    echo "FAILED format: make format changes this:"
    printf '%s\n' "$diff" | head -n 200
    printf 'format\t0\t1\t%d\n' $((SECONDS - begun)) >>"${ES_TALLY:-/dev/null}"
    exit 1
fi
