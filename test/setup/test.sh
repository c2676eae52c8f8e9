#!/usr/bin/env bash
# test.sh: make test.  Installs what is missing and runs all suites on the machine's own PostgreSQL.
# Ends with the line "N passed, N failed".  SUITES="regress tap" runs only those.  The build has stop points;
# STOP_POINTS= tests what make install installs.
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tally=${ES_TALLY:-}
[ -n "$tally" ] || { ES_TALLY=$(mktemp); export ES_TALLY; }
"$ES_ROOT/test/setup/install.sh" test-tools
SUITES=${SUITES:-regress isolation pgtap tap broker}
case $SUITES in
    *broker* | *torture*)
        "$ES_ROOT/test/setup/install.sh" kafka || say "no Apache Kafka: the tests that need it will fail"
        "$ES_ROOT/test/setup/install.sh" rabbitmq || say "no RabbitMQ: the tests that need it will fail"
        ;;
esac
export STOP_POINTS=${STOP_POINTS-1}
# shellcheck disable=SC2086  # words
"$ES_ROOT/test/setup/suites.sh" "PostgreSQL $ES_VERSION" "$(own_pg_config)" $SUITES && status=0 || status=1
[ -n "$tally" ] || print_tally "$ES_TALLY"
exit "$status"
