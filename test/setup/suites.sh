#!/usr/bin/env bash
# suites.sh: builds eventsrc against one PostgreSQL and runs the test suites on it.
#     suites.sh LABEL PG_CONFIG [SUITE...]      suites: regress isolation pgtap tap broker torture
# tap runs test/t/0*.pl, broker runs test/t/1*.pl, which need brokers and mostly wait, two at a time, torture those of
# both that EVENTSRC_TORTURE makes longer.  With STOP_POINTS=1 the build has stop points; else tests that need them are
# skipped.  All run as an unprivileged user on copies: of the checkout, and of the PostgreSQL that eventsrc is installed
# into.
# Goes on after failures; ends with 1 if there were any.  Adds "LABEL<tab>passed<tab>failed<tab>seconds"
# to the file $ES_TALLY.  The work folder is removed unless something failed (or ES_KEEP is set).
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

label=${1:?label} original=${2:?pg_config} stop_points=${STOP_POINTS:+1}
shift 2
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(regress isolation pgtap tap)
begun=$SECONDS
passed=0 failed=0

# add counts results.
add() { passed=$((passed + $1)) failed=$((failed + $2)); }

# add_tally counts what tap.pl wrote.
add_tally() {
    local p f
    if [ -s "$1" ]; then
        read -r p f <"$1"
        add "$p" "$f"
    else
        say "$label: a suite ended before it counted"
        add 0 1
    fi
}

# run_regress runs pg_regress or pg_isolation_regress on all its tests.
#     run_regress regress|isolation PATTERN DIFFS
run_regress() {
    local suite=$1 log=$ES_WORK/$1.log want p f other files kept=()
    mapfile -t files < <(find "$ES_WORK/src/test" -path "$ES_WORK/src/test/$2")
    [ ${#files[@]} -gt 0 ] || { say "$label: no $suite tests"; add 0 1; return; }
    if [ -z "$stop_points" ]; then
        for p in "${files[@]}"; do
            case $(basename "$p") in
                races_*) echo "skip   $suite: $(basename "${p%.*}"): this build has no stop points" ;;
                *) kept+=("$p") ;;
            esac
        done
        files=("${kept[@]}")
    fi
    want=${#files[@]}
    # pg_regress gives up altogether at a test without expected output; this way it shows a difference
    for p in "${files[@]}"; do
        p=$(basename "${p%.*}")
        compgen -G "$ES_WORK/src/expected/$p*.out" >/dev/null || as_unprivileged touch "$ES_WORK/src/expected/$p.out"
    done
    other=ISOLATION=
    [ "$suite" = regress ] || other=REGRESS=
    as_unprivileged env PGHOST="$ES_WORK/s" PGUSER=postgres PATH="$bin:$PATH" \
        make -s -C "$ES_WORK/src" installcheck PG_CONFIG="$pg_config" STOP_POINTS="$stop_points" with_llvm=no "$other" >"$log" 2>&1 </dev/null || true
    # "test name ... ok 12 ms" up to PostgreSQL 15, "ok 1 - name 12 ms" since 16
    p=$(grep -cE '^(ok +[0-9]+ +[-+] |(test|    ) .*\.\.\. ok )' "$log" || true)
    f=$(grep -cE '^(not ok +[0-9]+ +[-+] |(test|    ) .*\.\.\. FAILED)' "$log" || true)
    if [ $((p + f)) -lt "$want" ]; then
        say "$label: $suite ran $((p + f)) of $want tests"
        f=$((want - p))
    fi
    add "$p" "$f"
    if [ "$f" = 0 ]; then
        echo "ok     $suite: $p tests"
    else
        echo "FAILED $suite: $p passed, $f failed"
        sed 's/^/    | /' "$log"
        [ ! -e "$ES_WORK/src/$3" ] || head -n 400 "$ES_WORK/src/$3"
    fi
}

# run_pgtap runs the pgTAP files, each in a database of its own.
run_pgtap() {
    local files=("$ES_WORK/src/test/pgtap"/*.sql)
    [ -e "${files[0]}" ] || { say "$label: no pgTAP tests"; add 0 1; return; }
    as_unprivileged mkdir -p "$ES_WORK/pgtap"
    as_unprivileged env PGHOST="$ES_WORK/s" PGUSER=postgres PATH="$bin:$PATH" \
        perl "$ES_WORK/src/test/setup/tap.pl" pgtap "$ES_WORK/pgtap/tally" "$ES_WORK/pgtap" "${files[@]}" </dev/null || true
    add_tally "$ES_WORK/pgtap/tally"
}

# run_tap runs the Perl tests that a pattern names; they make clusters of their own.  Where a text is given,
# only those that contain it; where a number, so many at a time.
#     run_tap PATTERN FOLDER [TEXT [JOBS]]
run_tap() {
    local files mine i j jobs=${4:-1} pids=()
    mapfile -t files < <(find "$ES_WORK/src/test/t" -name "$1" -exec grep -lF -- "${3:-}" {} + | sort)
    [ ${#files[@]} -gt 0 ] || { say "$label: no TAP tests $1"; add 0 1; return; }
    if [ "$jobs" = 1 ]; then
        run_files "$ES_WORK/$2" "${files[@]}"
        add_tally "$ES_WORK/$2/tally"
        return
    fi
    for ((i = 0; i < jobs; i++)); do
        mine=()
        for ((j = i; j < ${#files[@]}; j += jobs)); do mine+=("${files[j]}"); done
        run_files "$ES_WORK/$2$i" "${mine[@]}" >"$ES_WORK/$2$i.out" 2>&1 &
        pids+=($!)
    done
    wait "${pids[@]}" || true
    for ((i = 0; i < jobs; i++)); do
        cat "$ES_WORK/$2$i.out"
        add_tally "$ES_WORK/$2$i/tally"
    done
}

# run_files runs Perl tests in a folder.
#     run_files FOLDER FILE...
run_files() {
    local d=$1 pgxs
    shift
    as_unprivileged mkdir -p "$d/log" "$d/tmp_check/log" "$ES_WORK/ports" "$ES_WORK/t"
    pgxs=$(dirname "$("$pg_config" --pgxs)")/../..
    as_unprivileged env PATH="$bin:$PATH" PERL5LIB="$pgxs/src/test/perl:$ES_WORK/src/test/t" \
        TESTDIR="$d" TESTDATADIR="$d/tmp_check" TESTLOGDIR="$d/log" TMPDIR="$ES_WORK/t" PG_TEST_PORT_DIR="$ES_WORK/ports" \
        PG_REGRESS="$pgxs/src/test/regress/pg_regress" PG_CONFIG="$pg_config" PGPORT=65432 \
        top_builddir="$ES_WORK/src" EVENTSRC_CACHE="$ES_CACHE" STOP_POINTS="$stop_points" \
        perl "$ES_WORK/src/test/setup/tap.pl" perl "$d/tally" "$d" "$@" </dev/null || true
}

# check_server_log counts a failure if a process of the server died by a signal or an assertion.
check_server_log() {
    if grep -E 'TRAP:|was terminated by signal|PANIC:' "$ES_WORK/server.log" >"$ES_WORK/crash"; then
        echo "FAILED the server of the regress tests crashed:"
        sed 's/^/    | /' "$ES_WORK/crash"
        add 0 1
    fi
}

# finish reports and ends.
finish() {
    local seconds=$((SECONDS - begun))
    local left
    if [ -e "$ES_WORK/data/postmaster.pid" ] && ! stop_cluster "$ES_WORK" >/dev/null 2>&1; then
        echo "FAILED $label: the server does not stop"
        add 0 1
    fi
    left=$(end_processes)
    if [ -n "$left" ]; then
        echo "FAILED $label: tests left processes behind:"
        printf '%s\n' "$left" | sed 's/^/    | /'
        add 0 1
    fi
    printf '%s\t%d\t%d\t%d\n' "$label" "$passed" "$failed" "$seconds" >>"${ES_TALLY:-/dev/null}"
    echo "$label: $passed passed / $failed failed ($seconds s)"
    if [ "$failed" != 0 ] || [ -n "${ES_KEEP:-}" ]; then
        say "$label: logs and data are kept in $ES_WORK"
    else
        remove_work_folder
    fi
    [ "$failed" = 0 ] || exit 1
    exit 0
}

# interrupted cleans up when the user has had enough.
# shellcheck disable=SC2317  # called by trap
interrupted() {
    trap '' INT TERM
    remove_work_folder
    exit 130
}

make_work_folder test
trap interrupted INT TERM
say "$label: $("$original" --version), work folder $ES_WORK"
pg_config=$(private_prefix "$original" "$ES_WORK/pg")
bin=$("$pg_config" --bindir)
copy_source "$ES_WORK/src"
if ! build_and_install "$ES_WORK/src" "$pg_config" "$stop_points" >"$ES_WORK/build.log" 2>&1; then
    echo "FAILED $label: build"
    tail -n 60 "$ES_WORK/build.log"
    add 0 1
    finish
fi
if grep -q 'warning:' "$ES_WORK/build.log"; then
    echo "FAILED $label: build has warnings"
    grep 'warning:' "$ES_WORK/build.log"
    add 0 1
else
    echo "ok     $label: build ($((SECONDS - begun)) s)"
    add 1 0
fi
if grep -q 'eventsrc\.test_' "$ES_WORK/src/eventsrc.so"; then found=1; else found=; fi
if [ "$found" != "$stop_points" ]; then
    echo "FAILED $label: the build ${found:+has stop points that it should not have}${stop_points:+lacks its stop points}"
    add 0 1
fi
if ! start_cluster "$ES_WORK" "$pg_config" </dev/null; then
    echo "FAILED $label: the server does not start"
    add 0 1
    finish
fi
for suite in "${suites[@]}"; do
    case $suite in
        regress) run_regress regress 'sql/*.sql' regression.diffs ;;
        isolation) run_regress isolation 'specs/*.spec' output_iso/regression.diffs ;;
        pgtap) run_pgtap ;;
        tap) run_tap '0*.pl' tap ;;
        broker) run_tap '1*.pl' broker '' 2 ;;
        torture) run_tap '[01]*.pl' torture EVENTSRC_TORTURE ;;
        *) die "no suite $suite" ;;
    esac
done
check_server_log
finish
