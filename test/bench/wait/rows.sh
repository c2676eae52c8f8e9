# W6: from COMMIT to es_wait()'s return, and what waiters cost those who append.
# shellcheck shell=bash disable=SC2154  # lib.sh's variables

rate=500

# listen runs one measurement and prints p50, p99 and maximum.
#     listen es_wait|both SECONDS
listen() {
    as_unprivileged env PGHOST="$ES_WORK/s" PGUSER=postgres PGDATABASE=bench "$here/listen" "$1" "$rate" "$2"
}

# hold opens a transaction with an xid in a database and keeps it until its input ends.
#     hold DATABASE COMMAND...
hold() {
    local db=$1 ready=$ES_WORK/held status=0
    shift
    rm -f "$ready" "$ES_WORK/hold"
    mkfifo "$ES_WORK/hold"
    PGDATABASE=$db pg psql -qAtX <"$ES_WORK/hold" >"$ready" &
    exec 8>"$ES_WORK/hold"
    echo 'BEGIN; SELECT pg_current_xact_id();' >&8
    until [ -s "$ready" ]; do sleep 0.05; done
    "$@" 8>&- || status=$?
    exec 8>&-
    wait $!
    return $status
}

# pair prints a column of both ways' latencies, of the round with the median ratio.
pair() { paste -d' ' <(cut -d' ' -f"$1" "$ES_WORK/wait-ours") <(cut -d' ' -f"$1" "$ES_WORK/wait-notify") | middle_pair; }

# longest prints the longest of a file of latencies.
longest() { cut -d' ' -f3 "$ES_WORK/wait-$1" | sort -n | tail -n 1; }

# wait_rows measures and prints the latencies.
wait_rows() {
    local i side worst ours notify
    gcc -O2 -I"$("$(own_pg_config)" --includedir)" -L"$("$(own_pg_config)" --libdir)" -o "$here/listen" "$here/listen.c" -lpq
    for ((i = 0; i < rounds; i++)); do
        listen both $((2 * seconds)) >"$ES_WORK/wait-both"
        sed -n 1p "$ES_WORK/wait-both" >>"$ES_WORK/wait-ours"
        sed -n 2p "$ES_WORK/wait-both" >>"$ES_WORK/wait-notify"
        hold bench listen es_wait "$seconds" >>"$ES_WORK/wait-here"
        hold postgres listen es_wait "$seconds" >>"$ES_WORK/wait-elsewhere"
    done
    read -r ours notify <<<"$(pair 1)"
    print_row "$what, p50, ms" "$ours" "$notify" 'LISTEN/NOTIFY' '<=1.0'
    read -r ours notify <<<"$(pair 2)"
    print_row "$what, p99, ms" "$ours" "$notify" 'LISTEN/NOTIFY' '<=1.0'
    for side in here elsewhere; do
        worst=$(longest $side)
        print_row "$what, longest, xid held $side" "$worst" "$(longest ours)" 'no xid held' 'no stall'
        # a stalled reader would wait for as long as the transaction is open: all of the measurement
        awk -v w="$worst" -v s="$seconds" 'BEGIN { exit !(w < s * 500) }' || fail "W6: $worst ms with an xid held open $side"
    done
}

# beside measures the writer beside waiters, and appends the result to a file.
#     beside FILE WAITERS SCRIPT
beside() {
    local n=$2 pids=() others="backend_type = 'client backend' AND pid <> pg_backend_pid()"
    # several programs, as one may have too few file descriptors
    while [ "$n" -gt 0 ]; do
        pg pgbench -n -c $((n < 250 ? n : 250)) -j 1 -T 3600 -f "$here/$3" >/dev/null 2>&1 &
        pids+=($!)
        n=$((n - 250))
    done
    until [ "$(sql -c "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT es\_%' AND $others")" -ge "$2" ]; do sleep 0.2; done
    measure 1 1 append.sql >>"$ES_WORK/results/$1"
    sql -c "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE $others" >/dev/null
    wait "${pids[@]}" || true
}

# beside_row measures and prints a row: the writer beside waiters, and beside others.
#     beside_row WHAT WAITERS SCRIPT OTHERS SCRIPT TARGET NAME
beside_row() {
    local i
    wanted "$1" || return 0
    rm -rf "$ES_WORK/results"
    mkdir "$ES_WORK/results"
    for ((i = 0; i < rounds; i++)); do
        beside a "$2" "$3"
        beside b "$4" "$5"
    done
    print_row "$1" "$(middle a 1)" "$(middle b 1)" "$7" "$6" "$(middle a 2)" "$(middle b 2)"
}

what="W6 COMMIT to es_wait()'s return"
! wanted "$what" || wait_rows

if wanted 'W6 a writer beside waiters'; then
    # only here are there so many connections: their number has a price for everybody
    stop_cluster "$ES_WORK"
    echo 'max_connections = 1100' >>"$ES_WORK/data/postgresql.conf"
    start_cluster "$ES_WORK" "$pg_config" </dev/null
    for n in 10 200 1000; do
        beside_row "W6 a writer beside waiters, $n asleep" "$n" sleep.sql 0 sleep.sql '>=0.95' 'no waiter'
    done
    for n in 10 200; do
        beside_row "W6 a writer beside waiters, $n that follow" "$n" follow.sql "$n" poll.sql - 'the same, polling'
    done
fi
