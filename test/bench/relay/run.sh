#!/usr/bin/env bash
# run.sh: make bench-relay.  What relays do beside Debezium Server and beside bare clients of the same brokers, on a
# throw-away server with fsync on, a real Kafka and a real RabbitMQ.  The sides take turns (A B A B ...); medians, their
# ratio and the target go into a table.
#     BENCH_ROUNDS=3       measurements of each side
#     BENCH_EVENTS=1000000 events that are drained (a fifth of it into RabbitMQ)
#     BENCH_SECONDS=4      how long writers are measured; latencies twice as long
#     BENCH_ONLY='K1|R1'   only the rows that match: K1 drains, K2 60,000 events/s, K3 latency, K4 writers, R1 RabbitMQ
#     BENCH_DEBEZIUM=no    leave out Debezium Server, which is 750 MB to fetch the first time
#     BENCH_QUICK=1        short ones, to try the bench itself: the figures mean little
# shellcheck source=test/bench/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# run_tool runs the client of Kafka.
run_tool() { as_unprivileged "$ES_WORK/kafka_tool" "$broker" "$@"; }

# run_kafka and run_rabbitmq control the brokers.
run_kafka() { as_unprivileged env EVENTSRC_CACHE="$ES_CACHE" bash "$ES_WORK/src/test/setup/kafka.sh" "$1" "$ES_WORK/kafka"; }
run_rabbitmq() {
    local act=$1
    shift
    as_unprivileged bash "$ES_WORK/src/test/setup/rabbitmq.sh" "$act" "$ES_WORK/rabbitmq" "$@"
}

# start_kafka installs and starts a broker, once.
start_kafka() {
    [ -z "$broker" ] || return 0
    "$ES_ROOT/test/setup/install.sh" kafka
    need_packages kcat libpq-dev
    as_unprivileged gcc -O2 -Wall -D_GNU_SOURCE -I"$("$pg_config" --includedir)" -I/usr/include/postgresql \
        -o "$ES_WORK/kafka_tool" "$here/kafka_tool.c" -lrdkafka -lpq -lpthread
    as_unprivileged mkdir -p "$ES_WORK/kafka"
    broker=$(run_kafka up)
    sql -c "ALTER SERVER kafka OPTIONS (SET \"bootstrap.servers\" '$broker')"
    # a broker's first requests are slow
    run_tool topic warm.up 4
    run_tool produce warm.up $((events / 5)) 1000 400 >/dev/null
    run_tool drop warm.up
}

# end_bench stops what the bench started.
end_bench() {
    [ ! -e "$ES_WORK/rabbitmq/env" ] || run_rabbitmq kill9 2>/dev/null || true
    remove_work_folder
}

# cpu_seconds prints the CPU time that processes have used so far.
#     cpu_seconds PID...
cpu_seconds() {
    local pid
    for pid in "$@"; do cat "/proc/$pid/stat"; done | awk -v t="$(getconf CLK_TCK)" '{ s += $14 + $15 } END { print s / t }'
}

# relay_cpu prints the CPU seconds of all workers of relays.
relay_cpu() {
    local pids
    mapfile -t pids < <(sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'eventsrc relay%'")
    cpu_seconds "${pids[@]}"
}

# start_relay makes a relay from the store live, from now on, and waits until it is at work.
#     start_relay TOPIC DELIVERY
start_relay() {
    run_tool topic "$1" 4
    sql -c "SELECT es_create_relay('live', 'kafka', '$1', NULL, options => '{\"delivery\": \"$2\"}', store => 'live')" >/dev/null
    until [ "$(sql -c "SELECT bool_and(state = 'running' AND pid IS NOT NULL AND lag_events = 0) FROM es_relays")" = t ]; do
        sleep 0.1
    done
}

# stop_relay drops the relay once it has sent everything, and its topic.
#     stop_relay TOPIC
stop_relay() {
    until [ "$(sql -c "SELECT bool_and(lag_events = 0) FROM es_relays")" = t ]; do sleep 0.1; done
    sql -c "SELECT es_drop_relay('live')" >/dev/null
    run_tool drop "$1"
}

# new_results makes room for the results of a few rows.
new_results() {
    rm -rf "$ES_WORK/results"
    mkdir "$ES_WORK/results"
}

# print_pair prints a row from the medians of a column of two sides' results, with those of another column as their costs.
#     print_pair WHAT OURS REFERENCE COLUMN REFERENCE_NAME TARGET [COST_COLUMN]
print_pair() {
    if [ -e "$ES_WORK/results/$3" ]; then
        print_row "$1" "$(middle "$2" "$4")" "$(middle "$3" "$4")" "$5" "$6" \
            "${7:+$(middle "$2" "$7")}" "${7:+$(middle "$3" "$7")}"
    else
        print_row "$1" "$(middle "$2" "$4")" '' "$5: skipped" "$6"
    fi
}

broker='' events=$((events / 100 * 100))
start_server
trap end_bench EXIT
# shellcheck source=test/bench/relay/debezium.sh
. "$bench/relay/debezium.sh"
print_head
begin_workload relay
for rows in drain latency writers rabbitmq; do
    # shellcheck source=/dev/null
    . "$here/$rows.sh"
done
print_conditions
if [ -n "$broker" ]; then
    echo "Kafka $(sed -n 's/^KAFKA=\([^ ]*\).*/\1/p' "$ES_ROOT/test/setup/kafka.sh"), one node, 4 partitions a topic$(
        [ "$debezium_is" != there ] || echo "; Debezium Server $DEBEZIUM, tuned").  The cost is that of the relay's worker, or of the reference's client, in drains; of the writers' backends beside a relay."
fi
stop_cluster "$ES_WORK"
[ ! -e "$ES_WORK/failed" ] || die "$(cat "$ES_WORK/failed")"
