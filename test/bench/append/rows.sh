# Appends.
# shellcheck shell=bash
for c in 1 4 16; do
    more=()
    [ "$c" != 16 ] || more=('one_messagedb_category.sql >=5 message-db, one category')
    compare "W1 one event a transaction, c=$c" "$c" 1 one.sql 'one_bare.sql >=1.0 prepared INSERT' \
        'one_messagedb.sql >=1.4 message-db' "${more[@]}"
    mixed "W1 transaction by transaction, c=$c" "$c" one.sql 'one_bare.sql >=1.0 prepared INSERT'
    compare "W1 as SELECT es_append(...), c=$c" "$c" 1 one_select.sql 'one_bare.sql >=1.0 prepared INSERT'
done
for c in 1 4; do
    compare "W3 100 events a call, c=$c" "$c" 100 hundred.sql 'hundred_bare.sql >=1.0 one INSERT'
done
compare '100,000 events in one call' 1 100000 many.sql 'many_bare.sql >=1.0 INSERT ... SELECT' 'many_bare_copy.sql >=1.0 COPY'
compare '20,000 calls in one transaction' 1 20000 calls.sql 'calls_bare.sql - INSERT ... SELECT'
