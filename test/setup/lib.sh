# lib.sh: what the scripts of test/, demo/ and .ci/ share.  Source it from bash:
#     . "$(dirname "${BASH_SOURCE[0]}")/../test/setup/lib.sh"
#
# It sets
#     ES_ROOT     the checkout
#     ES_CACHE    what is kept between runs: server prefixes, Kafka's jars
#                 ($EVENTSRC_CACHE, else /var/cache/eventsrc as root, else ~/.cache/eventsrc)
#     ES_USER     the user that servers, builds and tests run as: a server refuses to run as root,
#                 so root borrows the user of Debian's package, or nobody
#     ES_VERSION  the major version of the distribution's own PostgreSQL
# and, after make_work_folder, ES_WORK: a folder that ES_USER owns and that goes away at exit.
# Nothing here writes into system folders, packages that the user has been told of apart.
# shellcheck shell=bash

set -euo pipefail

ES_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ "$(id -u)" = 0 ]; then
    ES_CACHE=${EVENTSRC_CACHE:-/var/cache/eventsrc}
else
    ES_CACHE=${EVENTSRC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eventsrc}
fi
case $ES_CACHE in /*) ;; *) ES_CACHE=$PWD/$ES_CACHE ;; esac
ES_WORK=

# What the caller's shell or make set for another server or build is not for ours.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL PG_CONFIG PGXS
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGOPTIONS PGDATA PGSSLMODE PGTZ
unset PERL5LIB PERL5OPT PROVE_TESTS CDPATH
export LC_ALL=C.UTF-8 TZ=UTC

# say tells the user what goes on.
say() { printf '%s\n' "== $*" >&2; }

# die tells what is wrong and ends the script.
die() { printf '%s\n' "!! $*" >&2; exit 1; }

# own_version prints the major version of PostgreSQL that this Debian release ships.
own_version() {
    local codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    case $codename in
        bookworm) echo 15 ;;
        trixie) echo 17 ;;
        forky) echo 18 ;;
        *) die "this needs Debian 12 or later, with apt; found: ${codename:-unknown}" ;;
    esac
}
ES_VERSION=$(own_version)

# as_root runs a command as root, through sudo if need be.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif ! command -v sudo >/dev/null; then
        die "this needs root, and there is no sudo: $*"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

# have_package tells whether a Debian package is installed.
have_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# need_packages installs the Debian packages that are missing, and says which.
need_packages() {
    local p missing=()
    for p in "$@"; do have_package "$p" || missing+=("$p"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    # a list of some other repository that cannot be had is no reason to give up
    as_root apt-get -qq update >&2 || say "apt-get update had errors; going on with the lists that there are"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 install "${missing[@]}" </dev/null >&2 || die "cannot install: ${missing[*]}"
}

# need_build_packages, need_test_packages and need_java install for one purpose each.
need_build_packages() {
    need_packages gcc make libc6-dev "postgresql-$ES_VERSION" "postgresql-server-dev-$ES_VERSION" librdkafka-dev \
        librabbitmq-dev libssl-dev
}
need_test_packages() {
    need_packages gcc make libc6-dev "postgresql-$ES_VERSION" "postgresql-server-dev-$ES_VERSION" librdkafka-dev \
        librabbitmq-dev libssl-dev "postgresql-$ES_VERSION-pgtap" perl libipc-run-perl kcat json-schema-test-suite
}
need_java() { command -v java >/dev/null || need_packages default-jre-headless; }

# pick_user sets ES_USER.
pick_user() {
    if [ "$(id -u)" != 0 ]; then
        ES_USER=$(id -un)
    elif id -u postgres >/dev/null 2>&1; then
        ES_USER=postgres
    else
        ES_USER=nobody
    fi
}

# as_unprivileged runs a command as ES_USER, from a folder that it can read.
as_unprivileged() {
    pick_user
    if [ "$(id -u)" != 0 ]; then
        (cd "${ES_WORK:-/}" && "$@")
    else
        (cd "${ES_WORK:-/}" && exec setpriv --reuid="$ES_USER" --regid="$(id -g "$ES_USER")" --init-groups \
            env HOME="${ES_WORK:-/}" USER="$ES_USER" LOGNAME="$ES_USER" "$@")
    fi
}

# make_cache makes the cache folder and sees to it that ES_USER can read it.
make_cache() {
    mkdir -p "$ES_CACHE" || die "cannot make the cache folder $ES_CACHE; set EVENTSRC_CACHE"
    as_unprivileged test -x "$ES_CACHE" ||
        die "the user $ES_USER cannot read the cache folder $ES_CACHE; set EVENTSRC_CACHE to another"
}

# with_cache_lock runs a command while no other run changes the cache.
with_cache_lock() {
    make_cache
    (
        flock -n 9 || { say "waiting for another run that fills $ES_CACHE"; flock 9; }
        "$@" 9>&-
    ) 9>"$ES_CACHE/.lock"
}

# make_work_folder makes ES_WORK.  Its path is short: sockets lie in it.
make_work_folder() {
    ES_WORK=$(mktemp -d "${EVENTSRC_TMP:-/tmp}/eventsrc-${1:-work}.XXXXXX")
    chmod 755 "$ES_WORK"
    pick_user
    [ "$(id -u)" != 0 ] || chown "$ES_USER:" "$ES_WORK"
    as_unprivileged test -w "$ES_WORK" || die "the user $ES_USER cannot write to $ES_WORK; set EVENTSRC_TMP"
}

# end_processes ends what still runs out of ES_WORK: servers and brokers of tests that were cut off.
# Prints the command lines of what it found.
end_processes() {
    local signal proc found
    [ -n "$ES_WORK" ] || return 0
    for signal in QUIT KILL; do
        found=
        for proc in /proc/[0-9]*; do
            if grep -qsF "$ES_WORK/" "$proc/cmdline"; then
                [ $signal = KILL ] || { tr '\0' ' ' <"$proc/cmdline" | cut -c1-200; echo; } 2>/dev/null || true
                kill -$signal "${proc#/proc/}" 2>/dev/null || true
                found=yes
            fi
        done
        [ -n "$found" ] || return 0
        # an immediate shutdown takes a moment
        sleep 2
    done
}

# remove_work_folder ends what may still run in ES_WORK and removes it.
remove_work_folder() {
    [ -n "$ES_WORK" ] && [ -d "$ES_WORK" ] || return 0
    end_processes >/dev/null
    rm -rf "$ES_WORK"
    ES_WORK=
}

# free_port prints a TCP port of this machine that nobody listens on.  Tests that run side by side have a folder in
# common, where each port is taken only once: a broker may not listen on its own yet, or be down for a while.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        [ ! -d "${PG_TEST_PORT_DIR:-}" ] || (set -C && : >"$PG_TEST_PORT_DIR/broker.$port") 2>/dev/null || continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# wait_until_gone waits up to 20 s for the script's broker to end: until its function alive says no.
wait_until_gone() {
    local i
    for ((i = 0; i < 200; i++)); do
        alive || return 0
        sleep 0.1
    done
    return 1
}

# own_pg_config prints the pg_config of the distribution's own PostgreSQL.
own_pg_config() { echo "/usr/lib/postgresql/$ES_VERSION/bin/pg_config"; }

# private_prefix copies a PostgreSQL into a folder of ours, so that eventsrc can be installed into it
# without touching the original, and prints the copy's pg_config.  PostgreSQL finds its files
# relative to its programs, so a copy works anywhere.
#     private_prefix PG_CONFIG FOLDER
private_prefix() {
    local original=$1 to=$2 v bin
    mkdir -p "$to"
    bin=$(dirname "$original")
    case $original in
        /usr/lib/postgresql/*)
            v=${original#/usr/lib/postgresql/}
            v=${v%%/*}
            mkdir -p "$to"/usr/{lib,share,include}/postgresql
            cp -a "/usr/lib/postgresql/$v" "$to/usr/lib/postgresql/"
            cp -aL "/usr/share/postgresql/$v" "$to/usr/share/postgresql/"
            ln -s "/usr/include/postgresql/$v" "$to/usr/include/postgresql/$v"
            ;;
        */usr/lib/postgresql/*)
            cp -a "${bin%/usr/lib/postgresql/*}/." "$to/"
            ;;
        *)
            cp -a "$(dirname "$bin")/." "$to/"
            ;;
    esac
    [ "$(id -u)" != 0 ] || { pick_user; chown -Rh "$ES_USER:" "$to"; }
    case $original in
        */usr/lib/postgresql/*) echo "$to/usr/lib/postgresql/${bin##*/usr/lib/postgresql/}/pg_config" ;;
        *) echo "$to/bin/pg_config" ;;
    esac
}

# copy_source copies the checkout, what was built in it left out, for ES_USER to build in.
copy_source() {
    local to=$1
    mkdir -p "$to"
    tar -C "$ES_ROOT" --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' --exclude='./sql/eventsrc--*.sql' \
        --exclude=./results --exclude=./output_iso --exclude=./tmp_check --exclude='./regression.*' --exclude=./dist \
        -cf - . | tar -C "$to" --no-same-owner -xf -
    # tracked upgrade scripts are source, the joined script is not
    find "$ES_ROOT/sql" -name 'eventsrc--*--*.sql' -exec cp {} "$to/sql/" \;
    chmod -R u+w,a+rX "$to"
    [ "$(id -u)" != 0 ] || { pick_user; chown -Rh "$ES_USER:" "$to"; }
}

# build_and_install builds a source folder with warnings as errors and installs into a private prefix;
# with stop points, for tests, if a third argument is given that is not empty.
#     build_and_install FOLDER PG_CONFIG [1]
build_and_install() {
    as_unprivileged make -s -C "$1" -j2 WERROR=1 with_llvm=no STOP_POINTS="${3:-}" PG_CONFIG="$2" all &&
        as_unprivileged make -s -C "$1" with_llvm=no STOP_POINTS="${3:-}" PG_CONFIG="$2" install
}

# start_cluster starts a throw-away server with eventsrc loaded, reachable by a socket in FOLDER/s only,
# superuser postgres.  Lines on standard input go into its postgresql.conf.
#     start_cluster FOLDER PG_CONFIG </dev/null
start_cluster() {
    local dir=$1 bin
    bin=$("$2" --bindir)
    mkdir -p "$dir/s"
    [ "$(id -u)" != 0 ] || { pick_user; chown "$ES_USER:" "$dir" "$dir/s"; }
    if [ ! -e "$dir/data/PG_VERSION" ]; then
        as_unprivileged "$bin/initdb" -D "$dir/data" -U postgres -A trust -N --locale=C.UTF-8 -E UTF8 >"$dir/initdb.log" 2>&1 ||
            { cat "$dir/initdb.log" >&2; die "initdb failed"; }
        echo "$bin" >"$dir/bindir"
        {
            cat <<-CONF
			shared_preload_libraries = 'eventsrc'
			listen_addresses = ''
			unix_socket_directories = '$dir/s'
			max_worker_processes = 20
			wal_level = logical
			max_prepared_transactions = 5
			fsync = off
			log_line_prefix = '%m [%p] %b '
			CONF
            cat
        } >>"$dir/data/postgresql.conf"
    fi
    as_unprivileged "$bin/pg_ctl" -s -w -t 120 -D "$dir/data" -l "$dir/server.log" start </dev/null ||
        { tail -n 30 "$dir/server.log" >&2; return 1; }
}

# stop_cluster stops what start_cluster started.
stop_cluster() {
    as_unprivileged "$(cat "$1/bindir")/pg_ctl" -s -w -t 60 -m "${2:-fast}" -D "$1/data" stop </dev/null
}

# print_tally prints a tally file's lines, if there are several, and, last, the sum as "N passed, N failed".
print_tally() {
    awk -F '\t' '
        { line[NR] = sprintf("%s: %d passed / %d failed (%d s)", $1, $2, $3, $4); p += $2; f += $3 }
        END {
            for (i = 1; NR > 1 && i <= NR; i++) print line[i]
            printf "%d passed, %d failed\n", p, f
        }' "$1"
}
