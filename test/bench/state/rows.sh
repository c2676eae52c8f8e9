# States, computed from all events of a stream, and from a snapshot; and those of many streams.
# shellcheck shell=bash
for n in 100 1000; do
    compare "es_state() of $n events, merge" 1 "$n" "merge_$n.sql" "merge_${n}_bare.sql >=1.0 state || data aggregate" \
        "fetch_$n.sql >=4.0 the rows to the client"
    compare "es_state() of $n events, plpgsql reducer" 1 "$n" "reducer_$n.sql" "reducer_${n}_bare.sql >=2.0 plpgsql loop"
    compare "es_state() of $n events, plpgsql reducer of branches" 1 "$n" "branches_$n.sql" "branches_${n}_bare.sql >=2.0 plpgsql loop"
done
# with four clients no core waits for a client; and what a statement that reads nothing would reach
compare "es_state() of 100 events, merge, 4 clients" 4 100 merge_100.sql 'merge_100_bare.sql >=1.0 state || data aggregate' \
    'fetch_100.sql >=4.0 the rows to the client'
for c in 1 4; do
    compare "SELECT 1 in place of es_state() of 100 events, clients: $c" "$c" 100 nothing.sql 'fetch_100.sql - the rows to the client'
done
compare "es_state() 50 events after a snapshot, stream of $events" 1 1 snapshot.sql 'merge_100.sql >=0.67 es_state() of 100 events'
compare "es_states() of $((events / 10)) aggregates" 1 "$events" states.sql 'states_bare.sql >=1.0 state || data aggregate' \
    'states_bare_object.sql - jsonb_object_agg()'
