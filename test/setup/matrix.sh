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

# run_suites runs the suites on one version, with its output in a file of its own.
run_suites() {
    local version=$1 label="PostgreSQL $1" stop_points=1
    [ "$version" != 18a ] || label="PostgreSQL 18 with assertions"
    [ "$version" != 17 ] || stop_points=
    # shellcheck disable=SC2086  # words
    STOP_POINTS=$stop_points "$ES_ROOT/test/setup/suites.sh" "$label" "$2" ${SUITES:-regress isolation pgtap tap} >"$output/$version" 2>&1
}

# First the servers, one after the other; then the suites on two of them at a time, as tests mostly wait.
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
versions=()
for version in ${ONLY:-17 18 18a}; do
    how=(deb "$version")
    [ "$version" != 18a ] || how=(src 18)
    if pg_config=$("$ES_ROOT/test/setup/prefix.sh" "${how[@]}"); then
        versions+=("$version $pg_config")
    else
        say "PostgreSQL $version: SKIPPED: it cannot be had from the package mirror, and none was kept. This counts as a failure."
        printf 'PostgreSQL %s, not to be had\t0\t1\t0\n' "$version" >>"$ES_TALLY"
        status=1
    fi
done
for version in "${versions[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do sleep 1; done
    say "PostgreSQL ${version%% *}: the suites run"
    { run_suites "${version%% *}" "${version#* }" && touch "$output/${version%% *}.passed"; } &
done
wait
for version in "${versions[@]}"; do
    cat "$output/${version%% *}"
    [ -e "$output/${version%% *}.passed" ] || status=1
done
[ -n "$tally" ] || print_tally "$ES_TALLY"
exit "$status"
