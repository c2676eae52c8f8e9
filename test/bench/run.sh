#!/usr/bin/env bash
# run.sh: make bench.  What eventsrc does beside the bare machine and beside other event stores, on a throw-away
# server with fsync on.  The sides take turns (A B A B ...); medians, their ratio and the target go into a table.
#     BENCH_SECONDS=4      a measurement's length
#     BENCH_ROUNDS=3       measurements of each side
#     BENCH_EVENTS=1000000 events that are read
#     BENCH_ONLY='W1 .*'   only the rows that match
#     BENCH_QUICK=1        short ones, to try the bench itself: the figures mean little
#     BENCH_COUNT=instructions:u   perf counts this in the server's processes, in place of their CPU time
# One folder a workload: setup.sql makes its database, rows.sh the table's rows.
# shellcheck source=test/bench/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server
print_head
for workload in append read state order wait size; do
    begin_workload "$workload"
    # shellcheck source=/dev/null
    . "$here/rows.sh"
    end_workload
done
print_conditions
stop_cluster "$ES_WORK"
[ ! -e "$ES_WORK/failed" ] || die "$(cat "$ES_WORK/failed")"
