#!/usr/bin/env bash
# matrix.sh: make matrix.  Runs the suites that need no broker on the PostgreSQL versions that the
# machine does not have: 17, 18, and 18 built with assertions.  ONLY="17 18a" picks some,
# SUITES="regress tap" runs only those.  Ends with the line "N passed, N failed".
# 17 is tested as make install builds it, the others with stop points.
# A version that cannot be had and was not kept from an earlier run counts as failed: the matrix
# never passes on less than it says.
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tally=${ES_TALLY:-}
[ -n "$tally" ] || { ES_TALLY=$(mktemp); export ES_TALLY; }
status=0
"$ES_ROOT/test/setup/install.sh" test-tools
for version in ${ONLY:-17 18 18a}; do
    label="PostgreSQL $version" how=(deb "$version")
    [ "$version" != 18a ] || { label="PostgreSQL 18 with assertions" how=(src 18); }
    if pg_config=$("$ES_ROOT/test/setup/prefix.sh" "${how[@]}"); then
        stop_points=1
        [ "$version" != 17 ] || stop_points=
        # shellcheck disable=SC2086  # words
        STOP_POINTS=$stop_points "$ES_ROOT/test/setup/suites.sh" "$label" "$pg_config" ${SUITES:-regress isolation pgtap tap} || status=1
    else
        say "$label: SKIPPED: it cannot be had from the package mirror, and none was kept. This counts as a failure."
        printf '%s, not to be had\t0\t1\t0\n' "$label" >>"$ES_TALLY"
        status=1
    fi
done
[ -n "$tally" ] || print_tally "$ES_TALLY"
exit "$status"
