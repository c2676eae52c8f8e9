# K1: a million stored events into Kafka.
# shellcheck shell=bash disable=SC2154  # lib.sh's and run.sh's variables

# take_drain reads a drained topic, drops it, and appends to a file: events a second by the broker's clock, CPU
# microseconds an event, those with what else worked for it, the size of transactions and of messages.
#     take_drain FILE TOPIC CPU_SECONDS ALL_CPU_SECONDS
take_drain() {
    local distinct twice seconds size bytes
    read -r distinct twice seconds size bytes < <(run_tool read "$2" "$events")
    case $1 in
        bare) ;;
        once) [ "$distinct $twice" = "$events 0" ] || fail "K1: exactly once brought $distinct events, $twice of them again" ;;
        *) [ "$distinct" = "$events" ] || fail "K1: $1 brought $distinct of $events events" ;;
    esac
    run_tool drop "$2"
    awk -v n="$events" -v s="$seconds" -v c="$3" -v a="$4" -v size="$size" -v bytes="$bytes" \
        'BEGIN { printf "%.6g %.4g %.4g %d %d\n", n / s, c * 1e6 / n, a * 1e6 / n, size, bytes }' >>"$ES_WORK/results/$1"
}

# drain_by_relay drains the store by a relay.
#     drain_by_relay FILE DELIVERY TOPIC
drain_by_relay() {
    local cpu
    run_tool topic "$3" 4
    sql -c "SELECT es_create_relay('drain', 'kafka', '$3', options => '{\"delivery\": \"$2\"}')" >/dev/null
    run_tool wait "$3" "$events" 600
    until [ "$(sql -c "SELECT bool_and(lag_events = 0) FROM es_relays")" = t ]; do sleep 0.1; done
    cpu=$(relay_cpu)
    sql -c "SELECT es_drop_relay('drain')" >/dev/null
    take_drain "$1" "$3" "$cpu" "$cpu"
}

# drain_by_bare sends as many messages, as large as those of the relay exactly once, in transactions as large, from memory.
#     drain_by_bare TOPIC
drain_by_bare() {
    local cpu size bytes
    read -r _ _ _ size bytes < <(tail -n 1 "$ES_WORK/results/once")
    run_tool topic "$1" 4
    cpu=$(run_tool produce "$1" "$events" "$size" "$bytes")
    take_drain bare "$1" "$cpu" "$cpu"
}

# drain_by_debezium drains the same table by Debezium Server, from a slot that is as old as the events.
#     drain_by_debezium TOPIC
drain_by_debezium() {
    local before after
    run_tool topic "$1" 4
    sql -c "SELECT pg_copy_logical_replication_slot('stored', 'debezium')" >/dev/null
    start_debezium es.events "$1"
    # its start is not counted
    if run_tool wait "$1" 1 300 && read -r -a before < <(debezium_cpu) && run_tool wait "$1" "$events" 600; then
        read -r -a after < <(debezium_cpu)
        stop_debezium
        take_drain debezium "$1" "$(awk -v a="${after[0]}" -v b="${before[0]}" 'BEGIN { print a - b }')" \
            "$(awk -v a="${after[0]}" -v b="${before[0]}" -v s="${after[1]}" -v t="${before[1]}" 'BEGIN { print a - b + s - t }')"
    else
        give_debezium_up
    fi
}

what='K1 drain'
if wanted "$what"; then
    start_kafka
    have_debezium || true
    new_results
    for ((i = 0; i < rounds; i++)); do
        drain_by_relay once exactly_once "once.$i"
        drain_by_relay least at_least_once "least.$i"
        drain_by_bare "bare.$i"
        ! have_debezium || drain_by_debezium "debezium.$i"
    done
    print_pair "$what, exactly once" once debezium 1 'Debezium Server' '>=4' 2
    print_pair "$what, exactly once" once bare 1 "bare producer, txns of $(middle bare 4)" '>=0.5' 2
    print_pair "$what, exactly once" once least 1 'at least once' '>=0.6' 2
    print_pair "$what, at least once" least debezium 1 'Debezium Server' - 2
    print_pair "$what, CPU s per 1M events, exactly once" once debezium 2 'Debezium Server' '<=5 s'
    print_pair "$what, CPU s per 1M events, exactly once" once debezium 3 'Debezium and its walsender' '<=5 s'
    # nobody needs the old log any more; what the drains left to write is not to slow down what follows
    sql -c "SELECT pg_drop_replication_slot('stored')" >/dev/null
    PGDATABASE=postgres sql -c CHECKPOINT
    sync
fi
