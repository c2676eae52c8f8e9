# Reads.
# shellcheck shell=bash
for c in 1 4; do
    compare "W4a reads of a 100-event stream, c=$c" "$c" 100 stream.sql 'stream_bare.sql >=1.0 SELECT by index'
done
compare 'W4b all events in pages of 1000' 1 1000 all.sql 'all_bare.sql >=1.0 SELECT by position'
compare 'W4b the same, in the server alone (1M/s wanted)' 1 1000 all_count.sql 'all_count_bare.sql - SELECT by position'
