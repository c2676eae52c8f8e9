#!/usr/bin/env bash
# run.sh: make bench.  Appends against bare INSERTs into a heap table of the same columns and indexes,
# on a throw-away server with fsync on; the two sides take turns (A B A B ...), medians and their ratio
# are printed.
#     BENCH_SECONDS=4    a measurement's length
#     BENCH_ROUNDS=3     measurements of each side
#     BENCH_ONLY='W1 .*' only the rows that match
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../setup/lib.sh"

seconds=${BENCH_SECONDS:-4} rounds=${BENCH_ROUNDS:-3} only=${BENCH_ONLY:-.}
make_cache
make_work_folder
trap remove_work_folder EXIT
pg_config=$(private_prefix "$(own_pg_config)" "$ES_WORK/pg")
bin=$("$pg_config" --bindir)
copy_source "$ES_WORK/src"
say "building"
build_and_install "$ES_WORK/src" "$pg_config" >"$ES_WORK/build.log" 2>&1 || { tail -n 40 "$ES_WORK/build.log" >&2; die "eventsrc does not build"; }
start_cluster "$ES_WORK" "$pg_config" <<'END'
shared_buffers = 512MB
max_wal_size = 4GB
checkpoint_timeout = 30min
autovacuum = off
END

# pg runs one of PostgreSQL's programs on our server.
pg() { as_unprivileged env PGHOST="$ES_WORK/s" PGUSER=postgres PGDATABASE=bench "$bin/$@"; }

pg psql -qX -d postgres -c 'CREATE DATABASE bench'
pg psql -qX -v ON_ERROR_STOP=1 <"$ES_ROOT/test/bench/append.sql" >/dev/null

# median prints the middle one of the numbers that it reads.
median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

# rate prints the transactions a second of a pgbench script.
#     rate CLIENTS SCRIPT
# Every measurement has streams of its own, whose versions count from 1.
run=0
rate() {
    run=$((run + 1))
    echo "$run" >"$ES_WORK/run"
    pg pgbench -n -M prepared -c "$1" -j "$1" -T "$seconds" -D run="$run" -D i=-1 -f "$2" 2>"$ES_WORK/pgbench.log" |
        awk '/^tps/ { print $3; seen = 1 } END { exit !seen }' || { cat "$ES_WORK/pgbench.log" >&2; return 1; }
}

# compare measures two scripts in turn and prints a row of the table.
#     compare NAME CLIENTS EVENTS_A_CALL SCRIPT REFERENCE
compare() {
    local i a=() b=()
    [[ "$1" =~ $only ]] || return 0
    pg psql -qX -c 'CHECKPOINT'
    for ((i = 0; i < rounds; i++)); do
        a+=("$(rate "$2" "$4")")
        run=$(cat "$ES_WORK/run")
        b+=("$(rate "$2" "$5")")
        run=$(cat "$ES_WORK/run")
    done
    printf '%s\n' "${a[@]}" | median >"$ES_WORK/a"
    printf '%s\n' "${b[@]}" | median >"$ES_WORK/b"
    awk -v what="$1" -v n="$3" -v a="$(cat "$ES_WORK/a")" -v b="$(cat "$ES_WORK/b")" \
        'BEGIN { printf "%-44s %12.0f %12.0f %8.2f\n", what, a * n, b * n, a / b }'
}

cp -r "$ES_ROOT/test/bench/append" "$ES_WORK/append"
chmod -R a+rX "$ES_WORK/append"
s=$ES_WORK/append
printf '%-44s %12s %12s %8s\n' 'events/s' eventsrc bare ratio
for c in 1 4 16; do
    compare "W1 one event a transaction, c=$c" "$c" 1 "$s/one.sql" "$s/one_bare.sql"
done
for c in 1 4; do
    compare "W3 100 events a call, c=$c" "$c" 100 "$s/hundred.sql" "$s/hundred_bare.sql"
done
compare 'one stream, 100k events in one call' 1 100000 "$s/many.sql" "$s/many_bare.sql"
compare '1000 streams, 20k calls in one transaction' 1 20000 "$s/calls.sql" "$s/many20_bare.sql"
compare 'W4a reads of a 100-event stream, c=1' 1 100 "$s/stream.sql" "$s/stream_bare.sql"
compare 'W4b all events in pages of 1000, c=1' 1 1000 "$s/all.sql" "$s/all_bare.sql"
stop_cluster "$ES_WORK"
