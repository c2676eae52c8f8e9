# Bytes on disk an event: heap and indexes of all tables, vacuumed.
# shellcheck shell=bash disable=SC2154  # lib.sh's variables

payload300='{"amount": 10, "note": "'$(printf 'x%.0s' {1..274})'"}'

# size prints the bytes an event of one side, loaded by its own function.
#     size SUFFIX DATABASE
size() {
    local n=$((events < 100000 ? events : 100000))
    PGDATABASE=$2 sql -f "$here/load$1.sql" -c "CALL load($n, '$payload300')" -c VACUUM >&2
    PGDATABASE=$2 sql -c "
        SELECT sum(pg_table_size(oid) + pg_indexes_size(oid)) / $n.0 FROM pg_class
        WHERE relkind = 'r' AND relnamespace::regnamespace::text !~ '^(pg_|information_schema|eventsrc)'"
}

what='bytes on disk an event'
if wanted "$what"; then
    declare -A names=([messagedb]=message-db [emmett]=Emmett)
    ours=$(size '' bench)
    for side in messagedb emmett; do
        if need_reference "$side"; then
            print_row "$what" "$ours" "$(size "_$side" "$side")" "${names[$side]}" '<=1.0'
        else
            print_row "$what" "$ours" '' "${names[$side]}: skipped" '<=1.0'
        fi
    done
fi
