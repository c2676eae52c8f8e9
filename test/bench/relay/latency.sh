# K2 and K3: from the end of a commit to a read_committed consumer.
# shellcheck shell=bash disable=SC2154  # lib.sh's and run.sh's variables

# append_and_watch appends to the store live at a rate, and appends to a file what the consumer of a topic saw.
#     append_and_watch FILE TOPIC RATE SECONDS ROWS
append_and_watch() {
    local count lost twice rest
    read -r count lost twice rest < <(
        run_tool latency "$2" "host=$ES_WORK/s port=${PGPORT:-5432} user=postgres dbname=bench" "$3" "$4" "$5") || return 1
    case $1 in *once*) [ "$twice" = 0 ] || fail "$1: of $count events $twice came again" ;; esac
    [ "$lost" = 0 ] || fail "$1: of $count events $lost did not come"
    echo "$rest" >>"$ES_WORK/results/$1"
}

# watch_relay measures a relay.
#     watch_relay FILE DELIVERY RATE SECONDS ROWS
watch_relay() {
    start_relay "$1.$i" "$2"
    # the first transactions wait for coordinators
    append_and_watch warm "$1.$i" "$3" 2 "$5"
    append_and_watch "$1" "$1.$i" "$3" "$4" "$5"
    stop_relay "$1.$i"
}

# watch_debezium measures Debezium Server at the wanted rates.
watch_debezium() {
    local topic=debezium.live.$i
    run_tool topic "$topic" 4
    sql -c "SELECT pg_create_logical_replication_slot('debezium', 'pgoutput')" >/dev/null
    start_debezium live.events "$topic"
    # Java compiles what it has seen often
    if wait_for_debezium && append_and_watch warm "$topic" 20000 "$warm" 1000; then
        for rate in "${rates[@]}"; do
            append_and_watch warm "$topic" "$rate" 2 10
            append_and_watch "debezium.$rate" "$topic" "$rate" $((seconds * 2)) 10
        done
        stop_debezium
        run_tool drop "$topic"
    else
        give_debezium_up
    fi
}

what='K2 60,000 events/s offered, arrived'
if wanted "$what"; then
    start_kafka
    new_results
    for ((i = 0; i < rounds; i++)); do
        watch_relay once exactly_once 60000 "$seconds" 1000
        watch_relay least at_least_once 60000 "$seconds" 1000
    done
    print_pair "$what, exactly once" once least 6 'at least once' '>=0.9'
    print_pair 'K2 the same, appended' once least 5 'at least once' -
fi

rates=() warm=10
[ -z "${BENCH_QUICK:-}" ] || warm=2
for rate in 1000 5000; do ! wanted "K3 latency at $rate/s" || rates+=("$rate"); done
if [ ${#rates[@]} -gt 0 ]; then
    start_kafka
    have_debezium || true
    new_results
    # Java compiles Kafka's transactions, too
    i=0 watch_relay warm exactly_once 5000 $((warm * 4)) 10
    for ((i = 0; i < rounds; i++)); do
        for rate in "${rates[@]}"; do
            watch_relay "once.$rate" exactly_once "$rate" $((seconds * 2)) 10
            watch_relay "least.$rate" at_least_once "$rate" $((seconds * 2)) 10
        done
        ! have_debezium || watch_debezium
    done
    for rate in "${rates[@]}"; do
        for delivery in once least; do
            what="K3 latency at $rate/s, ms, "
            if [ $delivery = once ]; then what+='exactly once' p50='<=0.5' p99='<=1.0'; else what+='at least once' p50='<=0.25' p99='<=0.5'; fi
            print_pair "$what, p50" "$delivery.$rate" "debezium.$rate" 1 'Debezium Server' $p50
            print_pair "$what, p95" "$delivery.$rate" "debezium.$rate" 2 'Debezium Server' -
            print_pair "$what, p99" "$delivery.$rate" "debezium.$rate" 3 'Debezium Server' $p99
        done
    done
fi
