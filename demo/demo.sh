#!/usr/bin/env bash
# demo.sh: make demo.  Builds eventsrc, starts a throw-away server and plays the story of demo/*.sql on it.
#     demo.sh                 plays and leaves the server running
#     demo.sh check           plays, stops the server and removes it; ends with 1 if the story went wrong
#     demo.sh stop [FOLDER]   stops and removes that demo, or all of this user's
# Colours only on a terminal, or never with NO_COLOR.
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../test/setup/lib.sh"

# demo_folders prints the folders of demos that this user's servers own.
demo_folders() {
    pick_user
    find "${EVENTSRC_TMP:-/tmp}" -maxdepth 1 -type d -name 'eventsrc-demo.*' -user "$ES_USER" 2>/dev/null
}

# stop_demo stops a demo's server and removes its folder.
stop_demo() {
    ES_WORK=$1
    case $ES_WORK in */eventsrc-demo.*) ;; *) die "not the folder of a demo: $ES_WORK" ;; esac
    [ -d "$ES_WORK" ] || die "no such demo: $ES_WORK"
    [ ! -e "$ES_WORK/data/postmaster.pid" ] || stop_cluster "$ES_WORK" || true
    remove_work_folder
    say "stopped and removed $1"
}

# build_key prints, as a short hash, what a build depends on.
build_key() {
    {
        find "$ES_ROOT"/Makefile "$ES_ROOT"/*.control "$ES_ROOT"/src "$ES_ROOT"/sql -type f \
            ! -name '*.o' ! -name '*.bc' ! -name 'eventsrc--*.sql' -print0 | sort -z | xargs -0 cat
        "$pg_config" --version
        dpkg-query -W gcc librdkafka-dev
    } | sha256sum | cut -c1-16
}

# install_eventsrc builds eventsrc and installs it into our prefix; what was built is kept for the next time.
install_eventsrc() {
    local kept
    make_cache
    kept=$ES_CACHE/demo-$(build_key)
    if [ ! -d "$kept" ]; then
        say "building eventsrc for PostgreSQL $ES_VERSION in $ES_WORK"
        copy_source "$ES_WORK/src"
        build_and_install "$ES_WORK/src" "$pg_config" >"$ES_WORK/build.log" 2>&1 ||
            { tail -n 40 "$ES_WORK/build.log" >&2; fail "eventsrc does not build"; }
        rm -rf "$ES_CACHE"/demo-*
        mkdir -m 755 "$kept.new"
        cp "$ES_WORK/src/eventsrc.so" "$ES_WORK"/src/sql/eventsrc--*.sql "$ES_WORK/src/eventsrc.control" "$kept.new/"
        mv -T "$kept.new" "$kept"
        rm -rf "$ES_WORK/src"
    else
        say "using the build of last time"
        as_unprivileged cp "$kept/eventsrc.so" "$("$pg_config" --pkglibdir)/"
        as_unprivileged cp "$kept"/*.sql "$kept/eventsrc.control" "$("$pg_config" --sharedir)/extension/"
    fi
}

# paint colours the story's output line by line, sets chapters apart and leaves out empty results.
# SQL begins with a capital letter and goes on to a semicolon; psql begins the lines of its results with a space.
paint() {
    local colour=
    [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ] || colour=yes
    awk -v colour="$colour" '
        function put(code, line) { print colour && code ? "\033[" code "m" line "\033[0m" : line; kind = code; fflush() }
        function gap() { if (NR > 1 && kind != "blank") print ""; kind = "blank" }
        sql                                  { put("1", $0); sql = !/;$/; next }
        void                                 { void = !/^$/; next }
        /^ es_[a-z_]+ $/                     { header = $0; next }
        header && /^(─)+$/                    { rule = $0; next }
        header && /^ *$/                     { header = ""; void = 1; next }
        header                               { put("", header); put("", rule); header = "" }
        /^== /                               { gap(); put("1;36", $0); next }
        /^-- /                               { if (kind != "32" && kind != "1;36") gap(); put("32", $0); next }
        /^(ERROR|DETAIL|HINT|SQLSTATE): /    { put("31", $0); next }
        /^[A-Z]/                             { put("1", $0); sql = !/;$/; next }
        /^$/                                 { gap(); next }
                                             { put("", $0) }'
}

# play runs the story; psql is fed, as it may not be able to read the checkout.
play() {
    cat "$ES_ROOT"/demo/[0-9]*.sql |
        as_unprivileged env PATH="$bin:$PATH" PGOPTIONS='-c client_min_messages=warning' \
            psql -X -q -v ON_ERROR_STOP=1 -v ECHO=queries \
            -P footer=off -P pager=off -P linestyle=unicode -P border=1 -P null=- \
            -h "$ES_WORK/s" -U postgres -d demo 2>&1 | paint
}

# show_way_on tells how to connect and how to stop.
show_way_on() {
    cat <<-END

	The server goes on running. To connect and go on:

	    psql -h $ES_WORK/s -U postgres demo

	    SELECT * FROM es_append('Order', '4711', 'LineAdded', '{"quantity": 1, "price": 5}');
	    SELECT es_state('Order', '4711');

	To stop and remove it (it lies in $ES_WORK):

	    $ES_ROOT/demo/demo.sh stop $ES_WORK
	END
}

# fail shows the server's log and leaves nothing behind.
fail() {
    say "$1"
    [ ! -e "$ES_WORK/server.log" ] || tail -n 20 "$ES_WORK/server.log" >&2
    remove_work_folder
    exit 1
}

mode=${1:-play}
case $mode in
    play | check) ;;
    stop)
        if [ $# -gt 1 ]; then
            stop_demo "$2"
        else
            demo_folders | while read -r folder; do stop_demo "$folder"; done
        fi
        exit
        ;;
    *) die "demo.sh: check, stop or nothing, not $mode" ;;
esac

begun=$SECONDS
need_packages kcat
make_work_folder demo
trap 'trap "" INT TERM HUP PIPE; remove_work_folder; exit 130' INT TERM HUP PIPE
pg_config=$(private_prefix "$(own_pg_config)" "$ES_WORK/pg")
bin=$("$pg_config" --bindir)
install_eventsrc
say "starting a server as $ES_USER"
start_cluster "$ES_WORK" "$pg_config" <<<'unix_socket_permissions = 0700' || fail "the server does not start"
as_unprivileged "$bin/createdb" -h "$ES_WORK/s" -U postgres demo
play || fail "the story went wrong"
if [ "$mode" = check ]; then
    stop_demo "$ES_WORK"
else
    show_way_on
fi
say "took $((SECONDS - begun)) s"
