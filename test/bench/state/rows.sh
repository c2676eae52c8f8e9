# States, computed from all events of a stream, without snapshots.
# shellcheck shell=bash
for n in 100 1000; do
    compare "es_state() of $n events, merge" 1 "$n" "merge_$n.sql" "merge_${n}_bare.sql - state || data aggregate"
    compare "es_state() of $n events, plpgsql reducer" 1 "$n" "reducer_$n.sql" "reducer_${n}_bare.sql - plpgsql loop"
done
