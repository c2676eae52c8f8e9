#!/usr/bin/env bash
# rabbit.sh: how fast a relay drains stored events into a quorum queue of a real RabbitMQ, against a bare
# librabbitmq producer with the same window, properties and sizes, on the same machine and broker, in turn.
#     BENCH_EVENTS=200000  events a measurement
#     BENCH_ROUNDS=3       measurements of each side
#     BENCH_WINDOW=1000    unconfirmed messages
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../setup/lib.sh"

events=${BENCH_EVENTS:-200000} rounds=${BENCH_ROUNDS:-3} window=${BENCH_WINDOW:-1000}
"$ES_ROOT/test/setup/install.sh" bench
"$ES_ROOT/test/setup/install.sh" rabbitmq
make_cache
make_work_folder
# rabbit controls the broker.
rabbit() { as_unprivileged bash "$ES_ROOT/test/setup/rabbitmq.sh" "$1" "$ES_WORK/rabbit"; }
trap 'rabbit kill9 2>/dev/null || true; remove_work_folder' EXIT
pg_config=$(private_prefix "$(own_pg_config)" "$ES_WORK/pg")
bin=$("$pg_config" --bindir)
copy_source "$ES_WORK/src"
say "building"
build_and_install "$ES_WORK/src" "$pg_config" >"$ES_WORK/build.log" 2>&1 || { tail -n 40 "$ES_WORK/build.log" >&2; die "eventsrc does not build"; }
as_unprivileged gcc -O2 -w -o "$ES_WORK/rabbit_bare" "$ES_WORK/src/test/bench/relay/rabbit_bare.c" -lrabbitmq
as_unprivileged mkdir -p "$ES_WORK/rabbit"
address=$(rabbit up)
port=${address#*:}
start_cluster "$ES_WORK" "$pg_config" <<'END'
shared_buffers = 512MB
max_wal_size = 4GB
autovacuum = off
END

# sql runs statements and prints the result.
sql() { as_unprivileged env PGHOST="$ES_WORK/s" PGUSER=postgres PGDATABASE=postgres "$bin/psql" -qXAt -v ON_ERROR_STOP=1 "$@"; }

# the envelope of such an event has about 400 bytes
sql <<END >/dev/null
CREATE EXTENSION eventsrc;
SELECT es_create_store();
SET eventsrc.correlation_id = '0190163d-8694-739b-aea5-966c26f8ad90';
SELECT count(*) FROM (SELECT es_append('Order', (n % 1000)::text, 'Happened', jsonb_build_object('x', repeat('x', 190)))
                      FROM generate_series(1, $events) n) s;
CREATE SERVER mq FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port',
    declare 'queues', queues 'relay, bare', "window" '$window');
SELECT es_create_relay('size', 'mq', 'bare');
END
bytes=$(sql -c "SELECT 200 + 190")

# wait_until_sent waits until a relay has sent everything.
wait_until_sent() {
    until [ "$(sql -c "SELECT lag_events = 0 AND sent >= $events FROM es_relays WHERE relay = '$1'")" = t ]; do sleep 0.05; done
}

# purge empties the queues.
purge() {
    as_unprivileged bash "$ES_ROOT/test/setup/rabbitmq.sh" ctl "$ES_WORK/rabbit" -q purge_queue "$1"
}

# relay_rate prints the events a second of a relay that drains the store.
relay_rate() {
    local begun ended
    begun=$(date +%s%N)
    sql -c "SELECT es_create_relay('drain', 'mq', 'relay')" >/dev/null
    wait_until_sent drain
    ended=$(date +%s%N)
    sql -c "SELECT es_drop_relay('drain')" >/dev/null
    purge relay
    awk -v n="$events" -v t=$((ended - begun)) 'BEGIN { printf "%.0f\n", n / (t / 1e9) }'
}

# bare_rate prints the messages a second of the bare producer.
#     bare_rate BYTES [plain]
bare_rate() {
    as_unprivileged "$ES_WORK/rabbit_bare" "$port" bare "$window" "$events" "$@"
    purge bare
}

wait_until_sent size
sql -c "SELECT es_drop_relay('size')" >/dev/null
purge bare
# of the relay's messages 200 B are the event's data: beside them stand the same messages, and bare 200 B
printf '%-40s %10s %10s %8s %10s %8s\n' "quorum queue, window $window, events/s" relay bare ratio 'bare 200 B' ratio
for ((i = 1; i <= rounds; i++)); do
    a=$(relay_rate)
    b=$(bare_rate "$bytes")
    c=$(bare_rate 200 plain)
    awk -v i="$i" -v a="$a" -v b="$b" -v c="$c" \
        'BEGIN { printf "%-40s %10.0f %10.0f %8.2f %10.0f %8.2f\n", "round " i, a, b, a / b, c, a / c }'
done
stop_cluster "$ES_WORK"
