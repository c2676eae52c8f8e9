# W7: eight writers that think between append and commit, a fifth of their transactions rolled back, and two readers
# by position that poll every 5 ms.  What a reader has not seen 2 s after the end, it has missed.
# shellcheck shell=bash disable=SC2154  # lib.sh's variables

# follow prints the events committed a second, those missed and those seen twice, of one side.
#     follow SUFFIX TABLE
follow() {
    local db=bench start readers run
    [ "$1" != _messagedb ] || db=messagedb
    run=$(($(cat "$ES_WORK/run" 2>/dev/null || echo 0) + 1))
    echo "$run" >"$ES_WORK/run"
    start=$(PGDATABASE=$db sql -c 'TRUNCATE seen' -c "SELECT coalesce(max(global_position), 0) FROM $2")
    PGDATABASE=$db pg pgbench -n -M prepared -c 2 -j 1 -T $((seconds + 2)) -D position="$start" -f "$here/read$1.sql" \
        >"$ES_WORK/readers.log" 2>&1 &
    readers=$!
    PGDATABASE=$db pg pgbench -n -M prepared -c 8 -j 2 -T "$seconds" -D run="$run" -D i=-1 -D p="$payload" -f "$here/write$1.sql" \
        >"$ES_WORK/writers.log" 2>&1 || { cat "$ES_WORK/writers.log" >&2; return 1; }
    wait "$readers" || { cat "$ES_WORK/readers.log" >&2; return 1; }
    PGDATABASE=$db sql -F ' ' -c "
        SELECT count(*) / 2 / $seconds.0, count(*) - count(position), coalesce(sum(times - 1), 0)
        FROM (SELECT reader, global_position FROM $2, generate_series(0, 1) reader WHERE global_position > $start) e
        LEFT JOIN (SELECT reader, position, count(*) AS times FROM seen GROUP BY 1, 2) s
            ON s.reader = e.reader AND s.position = e.global_position"
}

# follow_all measures and prints the rows.
follow_all() {
    local i side missed
    local -A names=([bare]='bare table' [messagedb]='message-db, one category')
    if need_reference messagedb; then PGDATABASE=messagedb sql -f "$here/seen.sql"; fi
    for ((i = 0; i < rounds; i++)); do
        follow '' es.events >>"$ES_WORK/order-ours"
        follow _bare bare >>"$ES_WORK/order-bare"
        if need_reference messagedb; then follow _messagedb messages >>"$ES_WORK/order-messagedb"; fi
    done
    for side in bare messagedb; do
        if [ -e "$ES_WORK/order-$side" ]; then
            print_row "$what" "$(cut -d' ' -f1 "$ES_WORK/order-ours" | median)" "$(cut -d' ' -f1 "$ES_WORK/order-$side" | median)" \
                "${names[$side]}: $(sum 2 "$side") missed" "$([ $side = bare ] && echo '>=0.95' || echo -)"
        fi
    done
    missed=$(sum 2 ours)
    print_row 'W7 events missed' "$missed" "$(sum 2 bare)" 'bare table' 0
    [ "$missed $(sum 3 ours)" = '0 0' ] || fail "W7: $missed events missed, $(sum 3 ours) seen twice"
}

# sum adds up a column of a side's results.
sum() { awk -v c="$1" '{ n += $c } END { print n + 0 }' "$ES_WORK/order-$2"; }

what='W7 8 writers that think, commits'
! wanted "$what" || follow_all
