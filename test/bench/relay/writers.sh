# K4: what a relay to Kafka, exactly once, costs those who append.
# shellcheck shell=bash disable=SC2154  # lib.sh's and run.sh's variables

# write_beside_relay measures four writers with a relay at work and without.
#     write_beside_relay WHAT EVENTS_A_CALL SCRIPT
write_beside_relay() {
    local i
    wanted "$1" || return 0
    start_kafka
    new_results
    export PGOPTIONS='-c eventsrc.store=live'
    for ((i = 0; i < rounds; i++)); do
        start_relay "beside.$2.$i" exactly_once
        measure 4 "$2" "../append/$3" >>"$ES_WORK/results/beside"
        stop_relay "beside.$2.$i"
        measure 4 "$2" "../append/$3" >>"$ES_WORK/results/alone"
    done
    unset PGOPTIONS
    print_pair "$1" beside alone 1 'no relay' '>=0.9' 2
}

write_beside_relay 'K4 one event a transaction, c=4, beside a relay' 1 one.sql
write_beside_relay 'K4 100 events a call, c=4, beside a relay' 100 hundred.sql
