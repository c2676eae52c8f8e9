#!/usr/bin/env bash
# kafka.sh: how fast a relay sends to a real Kafka, exactly once and at least once, beside a bare librdkafka producer
# that sends from memory in transactions of about the same size; on the same machine and broker, in turn.
#     BENCH_EVENTS=1000000  events a drain
#     BENCH_ROUNDS=3        measurements of each side
#     BENCH_SECONDS=20      how long latency is measured, at each rate
#     BENCH_RATES='1000 5000'  events a second
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../setup/lib.sh"

events=${BENCH_EVENTS:-1000000} rounds=${BENCH_ROUNDS:-3} seconds=${BENCH_SECONDS:-20} rates=${BENCH_RATES:-1000 5000}
"$ES_ROOT/test/setup/install.sh" bench
"$ES_ROOT/test/setup/install.sh" kafka
need_packages kcat libpq-dev
make_cache
make_work_folder
# kafka controls the broker.
kafka() { as_unprivileged env EVENTSRC_CACHE="$ES_CACHE" bash "$ES_WORK/src/test/setup/kafka.sh" "$1" "$ES_WORK/kafka"; }
trap 'kafka kill9 2>/dev/null || true; remove_work_folder' EXIT
pg_config=$(private_prefix "$(own_pg_config)" "$ES_WORK/pg")
bin=$("$pg_config" --bindir)
copy_source "$ES_WORK/src"
say "building"
build_and_install "$ES_WORK/src" "$pg_config" >"$ES_WORK/build.log" 2>&1 || { tail -n 40 "$ES_WORK/build.log" >&2; die "eventsrc does not build"; }
as_unprivileged gcc -O2 -Wall -D_GNU_SOURCE -I"$("$pg_config" --includedir)" -I/usr/include/postgresql \
    -o "$ES_WORK/kafka_tool" "$ES_WORK/src/test/bench/relay/kafka_tool.c" -lrdkafka -lpq -lpthread
as_unprivileged mkdir -p "$ES_WORK/kafka"
broker=$(kafka up)
start_cluster "$ES_WORK" "$pg_config" <<'END'
shared_buffers = 512MB
max_wal_size = 4GB
autovacuum = off
END

# sql runs statements and prints the result.
sql() { as_unprivileged env PGHOST="$ES_WORK/s" PGUSER=postgres PGDATABASE=postgres "$bin/psql" -qXAt -v ON_ERROR_STOP=1 "$@"; }
# tool runs the client.
tool() { as_unprivileged "$ES_WORK/kafka_tool" "$broker" "$@"; }
# median prints the median of numbers, a line each.
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

sql <<END >/dev/null
CREATE EXTENSION eventsrc;
SELECT es_create_store();
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" '$broker');
SELECT count(*) FROM (
    SELECT es_append_events('Order', s::text, array_fill('Placed'::text, ARRAY[100]),
                            array_fill(jsonb_build_object('n', -1, 'x', repeat('x', 180)), ARRAY[100]))
    FROM generate_series(1, $events / 100) s) x;
CHECKPOINT;
END

# relay_rate drains the store and prints events a second, from the worker's first confirmation on, and the worker's
# CPU seconds a million events.
#     relay_rate exactly_once | at_least_once TOPIC
relay_rate() {
    local begun ended sent=0 first=0 pid= cpu
    tool topic "$2" 4
    sql -c "SELECT es_create_relay('drain', 'kafka', '$2', options => '{\"delivery\": \"$1\"}')" >/dev/null
    while [ "$sent" -lt "$events" ]; do
        sleep 0.02
        IFS='|' read -r sent pid < <(sql -c "SELECT sent, pid FROM es_relays WHERE relay = 'drain'")
        [ "$first" != 0 ] || [ "$sent" = 0 ] || { first=$sent begun=$(date +%s%N); }
    done
    ended=$(date +%s%N)
    cpu=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
    sql -c "SELECT es_drop_relay('drain')" >/dev/null
    awk -v n=$((events - first)) -v t=$((ended - begun)) -v c="$cpu" -v h="$(getconf CLK_TCK)" -v e="$events" \
        'BEGIN { printf "%.0f %.2f\n", n / (t / 1e9), c / h * 1e6 / e }'
}

printf '%s\n' "drains of $events events, events/s and CPU seconds of the client a million events:" \
    "| round | exactly once | at least once | bare, transactions of 10,000 |" "|-|-|-|-|"
for ((i = 1; i <= rounds; i++)); do
    once=$(relay_rate exactly_once "once$i")
    least=$(relay_rate at_least_once "least$i")
    tool topic "bare$i" 4
    bytes=$(kcat -C -q -b "$broker" -t "once$i" -c 1 -o beginning -f '%S')
    bare=$(tool drain "bare$i" "$events" 10000 "$bytes" | awk -v e="$events" '{ printf "%.0f %.2f\n", $1, $2 * 1e6 / e }')
    echo "| $i | $once | $least | $bare |"
    echo "$once" >>"$ES_WORK/once"
    echo "$least" >>"$ES_WORK/least"
    echo "$bare" >>"$ES_WORK/bare"
done
awk -v o="$(median <"$ES_WORK/once")" -v l="$(median <"$ES_WORK/least")" -v b="$(median <"$ES_WORK/bare")" 'BEGIN {
    printf "medians %.0f, %.0f, %.0f: exactly once is %.2f of at least once, %.2f of the bare producer\n\n", o, l, b, o / l, o / b }'

printf '%s\n' "from commit to a read_committed consumer, 10 events a transaction, ms:" \
    "| events/s | delivery | arrived | p50 | p95 | p99 | longest |" "|-|-|-|-|-|-|-|"
for rate in $rates; do
    for delivery in exactly_once at_least_once; do
        tool topic "latency.$delivery.$rate" 4
        sql -c "SELECT es_create_relay('latency', 'kafka', 'latency.$delivery.$rate', from_position => NULL, options => '{\"delivery\": \"$delivery\"}')" >/dev/null
        until [ "$(sql -c "SELECT state = 'running' AND pid IS NOT NULL AND lag_events = 0 FROM es_relays")" = t ]; do sleep 0.1; done
        # the first transactions wait for coordinators
        tool latency "latency.$delivery.$rate" "host=$ES_WORK/s user=postgres dbname=postgres" 1000 2 >/dev/null
        tool latency "latency.$delivery.$rate" "host=$ES_WORK/s user=postgres dbname=postgres" "$rate" "$seconds" |
            awk -v r="$rate" -v d="$delivery" '{ printf "| %s | %s | %s | %s | %s | %s | %s | %s\n", r, d, $1, $2, $3, $4, $5, substr($0, index($0, "(")) }'
        sql -c "SELECT es_drop_relay('latency')" >/dev/null
    done
done
echo "load: $(cut -d' ' -f1-3 /proc/loadavg) at the end"
