# make.sh: other event stores as references, from their npm packages: message-db and Emmett, each in a database of its own.
# shellcheck shell=bash disable=SC2154  # lib.sh's variables

MESSAGEDB=1.3.1
MESSAGEDB_SHA512=9f785d13960064d5d3af61caf601b4189e9dbac81d139e382d3bd2fb6d7fc8e10706f36e5333665d7c39bd2d39be97ba452ba1cd3472e56834abb73555f260f8
EMMETT=0.42.0
EMMETT_SHA512=ca6618ca7c0335d081d00b8dd663a88119540e00a31cb35389018e8a1828042e81c0d6e7a64b5c948966d65a7008c31a8b6a4d5f21a6642dc8d2d7dd21c3c188

# make_messagedb makes the database messagedb by the package's own script.
make_messagedb() {
    local from
    from=$(with_cache_lock fetch_npm @eventide/message-db "$MESSAGEDB" "$MESSAGEDB_SHA512") &&
        as_unprivileged env PATH="$bin:$PATH" PGHOST="$ES_WORK/s" PGUSER=postgres DATABASE_NAME=messagedb \
            bash "$from/database/install.sh" &&
        PGDATABASE=messagedb sql -c 'ALTER DATABASE messagedb SET search_path = message_store, public'
}

# make_emmett makes the database emmett by the schema that the package holds as one text.
make_emmett() {
    local from
    # shellcheck disable=SC2016  # JavaScript's quotes
    from=$(with_cache_lock fetch_npm @event-driven-io/emmett-postgresql "$EMMETT" "$EMMETT_SHA512") &&
        awk '/^var schema_0_42_0 = / { on = 1; sub(/.*`/, "") } on && /^`;/ { exit } on' "$from/dist/index.js" >"$ES_WORK/emmett.sql" &&
        PGDATABASE=postgres sql -c 'CREATE DATABASE emmett' &&
        PGDATABASE=emmett sql -f "$ES_WORK/emmett.sql" &&
        PGDATABASE=emmett sql -c 'TABLE emt_messages'
}

# fetch_npm gets an npm package into the cache, once, and prints its folder.
#     fetch_npm NAME VERSION SHA512
fetch_npm() {
    local to=$ES_CACHE/npm-${1#*/}-$2
    if [ ! -e "$to/package.json" ]; then
        say "fetching the npm package $1 $2 into $to"
        command -v npm >/dev/null || need_packages npm
        rm -rf "$to" "$to.new"
        mkdir -p "$to.new" &&
            (cd "$to.new" && npm_config_cache=$to.new/cache npm pack --loglevel=error "$1@$2" >&2 &&
                echo "$3  $(echo ./*.tgz)" | sha512sum -c --quiet - >&2 &&
                tar -xzf ./*.tgz --strip-components=1 --no-same-owner && rm -rf cache ./*.tgz) &&
            chmod -R a+rX "$to.new" && mv "$to.new" "$to" || return 1
    fi
    echo "$to"
}
