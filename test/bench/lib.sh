# lib.sh: what the workloads of test/bench/ share: the server, the measuring and the table.  A script that starts
# a server of its own sources it too, for build_server, pg, sql and median.
# shellcheck shell=bash
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../setup/lib.sh"

if [ -n "${BENCH_QUICK:-}" ]; then
    seconds=1 rounds=1 events=20000
else
    seconds=4 rounds=3 events=1000000
fi
seconds=${BENCH_SECONDS:-$seconds} rounds=${BENCH_ROUNDS:-$rounds} events=${BENCH_EVENTS:-$events}
only=${BENCH_ONLY:-.} count=${BENCH_COUNT:-}
# an event's data, 200 bytes
payload='{"amount": 10, "note": "'$(printf 'x%.0s' {1..174})'"}'

# build_server builds eventsrc into a PostgreSQL of ours, for start_cluster.  It sets ES_WORK, which a trap at exit
# removes, pg_config, bin, and bench: the copy of test/bench/ that ES_USER can read.
build_server() {
    make_cache
    make_work_folder bench
    trap remove_work_folder EXIT
    pg_config=$(private_prefix "$(own_pg_config)" "$ES_WORK/pg")
    bin=$("$pg_config" --bindir)
    copy_source "$ES_WORK/src"
    bench=$ES_WORK/src/test/bench
    say "building"
    build_and_install "$ES_WORK/src" "$pg_config" >"$ES_WORK/build.log" 2>&1 ||
        { tail -n 40 "$ES_WORK/build.log" >&2; die "eventsrc does not build"; }
}

# start_server builds eventsrc and starts the workloads' server.
start_server() {
    if [ -n "$count" ] && ! perf stat -x, -e "$count" true 2>&1 | grep -q '^[0-9]'; then die "perf cannot count $count here"; fi
    build_server
    start_cluster "$ES_WORK" "$pg_config" <<-'CONF'
	fsync = on
	shared_buffers = 1GB
	max_wal_size = 8GB
	checkpoint_timeout = 1h
	autovacuum = off
	CONF
    load_before=$(cut -d' ' -f1-3 /proc/loadavg)
}

# pg runs one of PostgreSQL's programs on the server, in the database bench unless PGDATABASE says another.
pg() {
    local program=$bin/$1
    shift
    as_unprivileged env PGHOST="$ES_WORK/s" PGUSER=postgres PGDATABASE="${PGDATABASE:-bench}" "$program" "$@"
}

# sql runs SQL, and prints what it gives.
#     sql -c COMMAND, sql -f FILE
sql() { pg psql -qAtX -v ON_ERROR_STOP=1 "$@"; }

# begin_workload names the workload whose rows follow; its database is made when a row is wanted.
begin_workload() {
    here=$bench/$1
    is_set_up=
}

# wanted tells whether a row is wanted, and sees to it that the workload's database is there.
wanted() {
    [[ "$1" =~ $only ]] || return 1
    [ -z "$is_set_up" ] || return 0
    is_set_up=yes
    PGDATABASE=postgres sql -c 'CREATE DATABASE bench'
    # the caller's "if" would go on after an error
    sql -v events="$events" -v payload="$payload" -f "$here/setup.sql" >/dev/null || die "setup.sql fails"
}

# end_workload drops the workload's databases.
end_workload() {
    local db
    for db in bench messagedb emmett; do PGDATABASE=postgres sql -c "DROP DATABASE IF EXISTS $db" 2>/dev/null; done
}

# need_reference makes another event store's database, once a workload; false, with the reason printed, if it cannot be had.
#     need_reference messagedb | emmett
need_reference() {
    local why=$ES_WORK/no-$1
    [ ! -e "$why" ] || return 1
    [ -z "$(PGDATABASE=postgres sql -c "SELECT 1 FROM pg_database WHERE datname = '$1'")" ] || return 0
    if ! (make_"$1") >"$ES_WORK/reference.log" 2>&1; then
        { echo "$1 cannot be had:"; tail -n 3 "$ES_WORK/reference.log"; } | tr '\n' ' ' >"$why"
        say "$(cat "$why")"
        return 1
    fi
}
# shellcheck source=test/bench/reference/make.sh
. "$ES_ROOT/test/bench/reference/make.sh"

# median prints the middle one of the numbers that it reads.
median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

# middle_pair prints that one of the pairs of numbers that it reads whose ratio is the middle one.
middle_pair() { awk '{ print $1 / $2, $1, $2 }' | sort -n | awk '{ a[NR] = $2 " " $3 } END { print a[int((NR + 1) / 2)] }'; }

# server_cost prints what the server's ended backends have used so far: microseconds of CPU time.
server_cost() { awk '{ print ($16 + $17) * 10000 }' "/proc/$(head -n 1 "$ES_WORK/data/postmaster.pid")/stat"; }

# measure runs a pgbench script and prints events a second and the server's cost of an event.
#     measure CLIENTS EVENTS_A_CALL SCRIPT
# Every measurement has streams of its own, whose versions count from 1.  The database goes by the script's name.
measure() {
    local db=bench before after perf="" log=$ES_WORK/pgbench.log
    case $3 in *_messagedb*) db=messagedb ;; esac
    echo $(($(cat "$ES_WORK/run" 2>/dev/null || echo 0) + 1)) >"$ES_WORK/run"
    PGDATABASE=$db sql -c CHECKPOINT
    before=$(server_cost)
    if [ -n "$count" ]; then
        perf stat -x, -e "$count" -o "$ES_WORK/perf" -p "$(head -n 1 "$ES_WORK/data/postmaster.pid")" &
        perf=$!
        sleep 0.2
    fi
    PGDATABASE=$db pg pgbench -n -M prepared -c "$1" -j "$(($1 < 4 ? $1 : 4))" -T "$seconds" -D run="$(cat "$ES_WORK/run")" \
        -D i=-1 -D p="$payload" -D pages=$((events / 1000)) -D streams=$((events / 100)) -f "$here/$3" >"$log" 2>&1 ||
        { cat "$log" >&2; return 1; }
    sleep 0.2 # until the backends are gone
    after=$(server_cost)
    if [ -n "$perf" ]; then
        kill -INT "$perf"
        wait "$perf" || true
        before=0 after=$(awk -F, '!/^#/ && $1 + 0 > 0 { print $1; exit }' "$ES_WORK/perf")
    fi
    awk -v n="$2" -v cost="$((${after%.*} - before))" '
        /^number of transactions actually processed/ { calls = $6 + 0 }
        /^tps/ { rate = $3 }
        END { if (rate == "" || calls == 0) exit 1; printf "%.6g %.6g\n", rate * n, cost / calls / n }' "$log" ||
        { cat "$log" >&2; return 1; }
}

# compare measures a script and its references in turn, and prints a row for each reference.
#     compare WHAT CLIENTS EVENTS_A_CALL SCRIPT 'SCRIPT TARGET NAME' ...
compare() {
    local what=$1 clients=$2 n=$3 ours=$4 i r script target name results=$ES_WORK/results
    wanted "$what" || return 0
    shift 4
    rm -rf "$results"
    mkdir "$results"
    for ((i = 0; i < rounds; i++)); do
        for r in "$ours" "$@"; do
            read -r script _ <<<"$r"
            case $script in *_messagedb*) need_reference messagedb || continue ;; esac
            measure "$clients" "$n" "$script" >>"$results/$script"
        done
    done
    for r in "$@"; do
        read -r script target name <<<"$r"
        if [ -e "$results/$script" ]; then
            print_row "$what" "$(middle "$ours" 1)" "$(middle "$script" 1)" "$name" "$target" \
                "$(middle "$ours" 2)" "$(middle "$script" 2)"
        else
            print_row "$what" "$(middle "$ours" 1)" '' "$name: skipped" "$target"
        fi
    done
}

# mixed measures a script and its reference in one run, in which each client takes one of them at random for each
# transaction, and prints a row of their speed: 1 / the mean duration, so the ratio is that of their durations.  What the
# machine does meanwhile meets both alike; what one of them costs a second core slows the other, too.
#     mixed WHAT CLIENTS SCRIPT 'SCRIPT TARGET NAME'
mixed() {
    local what=$1 clients=$2 ours=$3 i script target name results=$ES_WORK/results
    wanted "$what" || return 0
    read -r script target name <<<"$4"
    rm -rf "$results"
    mkdir "$results"
    # each counts its own transactions
    sed 's/:i\b/:j/g; s/^\\set i /\\set j /' "$here/$ours" >"$here/mixed.sql"
    for ((i = 0; i < rounds; i++)); do
        echo $(($(cat "$ES_WORK/run" 2>/dev/null || echo 0) + 1)) >"$ES_WORK/run"
        sql -c CHECKPOINT
        pg pgbench -n -M prepared -c "$clients" -j "$((clients < 4 ? clients : 4))" -T $((2 * seconds)) -D p="$payload" \
            -D run="$(cat "$ES_WORK/run")" -D i=-1 -D j=-1 -f "$here/mixed.sql" -f "$here/$script" >"$ES_WORK/pgbench.log" 2>&1 ||
            { cat "$ES_WORK/pgbench.log" >&2; return 1; }
        awk '/latency average/ { a[n++] = 1000 / $(NF - 1) } END { printf "%.6g %.6g\n", a[1], a[2] }' "$ES_WORK/pgbench.log" >>"$results/both"
    done
    read -r ours script <<<"$(middle_pair <"$results/both")"
    print_row "$what" "$ours" "$script" "$name" "$target"
}

# middle prints the median of a column of a script's results.
middle() { cut -d' ' -f"$2" <"$ES_WORK/results/$1" | median; }

# print_head prints the table's head.
print_head() {
    printf '\n| %-58s | %10s | %10s %-30s | %5s | %-8s | %-15s |\n' what eventsrc reference '' ratio target "${count:-CPU us}/event"
    echo '|-|-|-|-|-|-|'
}

# print_row prints a row of the table.
#     print_row WHAT OURS REFERENCE REFERENCE_NAME TARGET [OUR_COST ITS_COST]
print_row() {
    awk -v what="$1" -v a="$2" -v b="$3" -v name="$4" -v target="$5" -v x="${6:-}" -v y="${7:-}" '
        # shown returns a number with three digits or more.
        function shown(x) { return x == "" ? "" : sprintf(x >= 1000 ? "%.0f" : "%.3g", x) }
        BEGIN { printf "| %-58s | %10s | %10s %-30s | %5s | %-8s | %-15s |\n", what, shown(a), shown(b), name,
                (b > 0 ? sprintf("%.2f", a / b) : ""), target, (x == "" ? "" : shown(x) " / " shown(y)) }'
}

# fail notes what must not be: the bench ends with an error then.
fail() { echo "$*" >>"$ES_WORK/failed"; say "$*"; }

# print_conditions prints what the figures were measured under.
print_conditions() {
    cat <<-END

	$("$bin/postgres" --version), eventsrc $(git -C "$ES_ROOT" describe --always --dirty 2>/dev/null || sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$ES_ROOT/eventsrc.control"), $(date +%F).
	fsync and synchronous_commit on, shared_buffers 1 GB, autovacuum off, clients on the same machine by a socket.
	$(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1); load before $load_before, after $(cut -d' ' -f1-3 /proc/loadavg).
	$rounds rounds of $seconds s a side, in turns; medians.  Events read: $events.  Rates are events a second.
	END
}
