#!/usr/bin/env bash
# rabbitmq.sh: a real RabbitMQ node, for tests, from Debian's package, without its service.
#     rabbitmq.sh up FOLDER             starts it (configured at the first time), waits until it answers;
#                                       prints host:port, and the port for TLS, if it has one
#     rabbitmq.sh down FOLDER           stops it, after 20 s by force
#     rabbitmq.sh kill9 FOLDER          kills it, as a crash would
#     rabbitmq.sh ctl FOLDER ARGUMENT.. runs rabbitmqctl on it
# up after down or kill9 starts the same node again, at the same port, with what it had stored.
# Any user may run it; the user guest with password guest may log in from this machine.
# Settings: RABBITMQ_CONF (a file that is added to rabbitmq.conf at the first up), RABBITMQ_TLS (a folder
# with ca.pem, cert.pem and key.pem: then it also listens with TLS).
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# not the programs in /usr/sbin: those want root or the user rabbitmq
bin=/usr/lib/rabbitmq/bin
act=${1:?up, down, kill9 or ctl} dir=${2:?folder}
shift 2

# alive tells whether this folder's node runs, by our copy of its process id: the node removes its
# own at the start of its shutdown.  A killed one may stay a zombie where nobody reaps it.
alive() { [ -s "$dir/beam" ] && tr '\0' '\n' <"/proc/$(cat "$dir/beam")/cmdline" 2>/dev/null | grep -qxF -- "$dir"; }

# answers tells whether the node greets as AMQP says: with a method frame.
answers() {
    local first
    first=$({ exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'AMQP\0\0\11\1' >&3 && timeout 2 head -c 1 <&3 | od -An -tu1; } 2>/dev/null) || return 1
    [ "$((first))" = 1 ]
}

# load_settings exports what the node and its tools read.
load_settings() {
    set -a
    # shellcheck source=/dev/null
    . "$dir/env"
    set +a
}

# configure writes the node's settings, at its first start.
configure() {
    local port tls dist epmd
    port=$(free_port)
    tls=$(free_port)
    dist=$(free_port)
    epmd=$(free_port)
    mkdir -p "$dir/mnesia" "$dir/log"
    cat >"$dir/rabbitmq.conf" <<-END
	listeners.tcp.1 = 127.0.0.1:$port
	log.file.level = warning
	disk_free_limit.absolute = 64MB
	vm_memory_high_watermark.absolute = 1GB
	END
    if [ -n "${RABBITMQ_TLS:-}" ]; then
        cat >>"$dir/rabbitmq.conf" <<-END
		listeners.ssl.1 = 127.0.0.1:$tls
		ssl_options.cacertfile = $RABBITMQ_TLS/ca.pem
		ssl_options.certfile = $RABBITMQ_TLS/cert.pem
		ssl_options.keyfile = $RABBITMQ_TLS/key.pem
		ssl_options.verify = verify_peer
		ssl_options.fail_if_no_peer_cert = false
		END
    else
        tls=
    fi
    [ -z "${RABBITMQ_CONF:-}" ] || cat "$RABBITMQ_CONF" >>"$dir/rabbitmq.conf"
    echo '[].' >"$dir/enabled_plugins"
    # - HOME holds the cookie by which node and tools trust each other
    # - an epmd of its own, on the loopback only, also for the tools
    cat >"$dir/env" <<-END
	HOME=$dir
	RABBITMQ_CONF_ENV_FILE=/dev/null
	RABBITMQ_NODENAME=t$port@localhost
	RABBITMQ_NODE_PORT=$port
	RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
	RABBITMQ_DIST_PORT=$dist
	ERL_EPMD_PORT=$epmd
	ERL_EPMD_ADDRESS=127.0.0.1
	RABBITMQ_MNESIA_BASE=$dir/mnesia
	RABBITMQ_LOG_BASE=$dir/log
	RABBITMQ_PID_FILE=$dir/pid
	RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf
	RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins
	RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
	RABBITMQ_CTL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
	AMQP_PORT=$port
	TLS_PORT=$tls
	END
    # made with its final mode: the node refuses a cookie that others may read
    (
        umask 077
        head -c 20 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/.erlang.cookie"
        chmod 400 "$dir/.erlang.cookie"
    )
}

# up starts the node and prints its ports.
up() {
    local begun=$SECONDS shell
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    [ -x "$bin/rabbitmq-server" ] || die "RabbitMQ is not there; run test/setup/install.sh rabbitmq first"
    [ -e "$dir/env" ] || configure
    load_settings
    if ! alive; then
        rm -f "$dir/pid" "$dir/beam"
        (cd "$dir" && exec setsid "$bin/rabbitmq-server" >>"$dir/out.log" 2>&1 </dev/null) &
        shell=$!
        until answers "$AMQP_PORT" && [ -s "$dir/pid" ]; do
            kill -0 $shell 2>/dev/null || { tail -n 20 "$dir/out.log" >&2; die "RabbitMQ ended"; }
            [ $((SECONDS - begun)) -le 300 ] || { tail -n 20 "$dir/out.log" >&2; die "RabbitMQ is not ready after 300 s"; }
            sleep 0.2
        done
        cp "$dir/pid" "$dir/beam"
    fi
    echo "127.0.0.1:$AMQP_PORT${TLS_PORT:+ $TLS_PORT}"
}

# stop_epmd ends the port mapper, which outlives the node.  It does not end while it believes that a node
# lives, which takes it a moment to find out after a kill.
stop_epmd() {
    local i
    for ((i = 0; i < 50; i++)); do
        epmd -kill >/dev/null 2>&1 || true
        epmd -names >/dev/null 2>&1 || return 0
        sleep 0.1
    done
}

# down stops the node.
down() {
    dir=$(cd "$dir" && pwd)
    load_settings
    if alive; then
        kill "$(cat "$dir/beam")"
        wait_until_gone || kill9
    fi
    stop_epmd
    rm -f "$dir/pid" "$dir/beam"
}

# kill9 kills the node.
kill9() {
    dir=$(cd "$dir" && pwd)
    load_settings
    if alive; then
        kill -9 "$(cat "$dir/beam")"
        wait_until_gone || die "RabbitMQ does not die"
    fi
    stop_epmd
    rm -f "$dir/pid" "$dir/beam"
}

# ctl runs rabbitmqctl.
ctl() {
    dir=$(cd "$dir" && pwd)
    load_settings
    (cd "$dir" && "$bin/rabbitmqctl" --node "$RABBITMQ_NODENAME" "$@")
}

case $act in
    up | down | kill9) "$act" ;;
    ctl) ctl "$@" ;;
    *) die "rabbitmq.sh: up, down, kill9 or ctl, not $act" ;;
esac
