# R1: stored events into a quorum queue of RabbitMQ.
# shellcheck shell=bash disable=SC2154  # lib.sh's and run.sh's variables

window=1000

# purge empties a queue.
purge() { run_rabbitmq ctl -q purge_queue "$1"; }

# send_by_relay sends the last of the stored events by a relay; sets bytes, the size of a message's body.
#     send_by_relay EVENTS
send_by_relay() {
    local rate cpu count
    sql -c "SELECT es_create_relay('queue', 'rabbitmq', 'relay',
        (SELECT global_position FROM es.events ORDER BY global_position DESC OFFSET $1 LIMIT 1))" >/dev/null
    rate=$(sql -c "SELECT relay_rate('queue', $1)")
    cpu=$(relay_cpu)
    sql -c "SELECT es_drop_relay('queue')" >/dev/null
    read -r count bytes < <(as_unprivileged "$ES_WORK/rabbitmq_bare" "$port" relay look)
    [ "$count" = "$1" ] || fail "R1: of $1 events $count are in the queue"
    purge relay
    awk -v rate="$rate" -v cpu="$cpu" -v n="$1" 'BEGIN { print rate, cpu * 1e6 / n }' >>"$ES_WORK/results/relay"
}

# send_by_bare sends as many messages by the bare producer.
#     send_by_bare FILE EVENTS BYTES [plain]
send_by_bare() {
    local file=$1 count=$2
    shift 2
    as_unprivileged "$ES_WORK/rabbitmq_bare" "$port" bare "$window" "$count" "$@" | awk -v n="$count" '{ print $1, $2 * 1e6 / n }' \
        >>"$ES_WORK/results/$file"
    purge bare
}

what="R1 into a quorum queue, window $window"
if wanted "$what"; then
    # the other broker's work is done
    [ -z "$broker" ] || run_kafka down
    "$ES_ROOT/test/setup/install.sh" rabbitmq
    as_unprivileged gcc -O2 -Wall -o "$ES_WORK/rabbitmq_bare" "$here/rabbitmq_bare.c" -lrabbitmq
    as_unprivileged mkdir -p "$ES_WORK/rabbitmq"
    port=$(run_rabbitmq up)
    port=${port#*:}
    sql -c "ALTER SERVER rabbitmq OPTIONS (SET port '$port')"
    new_results
    for ((i = 0; i < rounds; i++)); do
        send_by_relay $((events / 5))
        send_by_bare same $((events / 5)) "$bytes"
        send_by_bare plain $((events / 5)) 200 plain
    done
    run_rabbitmq down
    print_pair "$what" relay same 1 "bare, same messages, $bytes bytes" '>=0.8' 2
    print_pair "$what" relay plain 1 'bare, 200 bytes, only an id' '>=0.8' 2
fi
