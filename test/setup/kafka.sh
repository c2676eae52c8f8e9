#!/usr/bin/env bash
# kafka.sh: a real Apache Kafka, one node in KRaft mode, for tests.
#     kafka.sh fetch         gets its jars from Maven Central into the cache, once
#     kafka.sh up FOLDER     formats (once) and starts it, waits until it answers, prints host:port
#     kafka.sh down FOLDER   stops it, after 20 s by force
#     kafka.sh kill9 FOLDER  kills it, as a crash would
# up after down or kill9 starts the same broker again, at the same port, with what it had stored.
# Fetching needs a user that may install packages; the rest runs as any user.
# Settings: KAFKA_XMX (512m), KAFKA_PROPERTIES (a file with more properties, read at the first up),
# KAFKA_SECURE (a PEM file with a private key and its certificate for localhost: the broker listens with
# SASL_SSL, too, at the address in FOLDER/secure, and knows the user relay, password in KAFKA_PASSWORD).
# KAFKA_PROXY (the port of a proxy: clients that come by it are sent to it again; it is to connect to 127.0.0.1 at
# the port in FOLDER/behind).
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# 4.3 and 4.4 lose transactions while the broker has no leaders, as after a kill: KAFKA-20734
KAFKA=4.2.2 SCALA=2.13 LOG4J=2.25.2
jars=$ES_CACHE/kafka-$KAFKA
scram=()
act=${1:?fetch, up, down or kill9}
[ "$act" = fetch ] || dir=${2:?folder}

# fetch gets the jars.
fetch() {
    need_java
    command -v openssl >/dev/null || need_packages openssl
    [ ! -e "$jars/ok" ] || return 0
    say "fetching Apache Kafka $KAFKA from Maven Central into $jars"
    command -v mvn >/dev/null || need_packages maven
    mkdir -p "$jars"
    # kafka-tools-api is named by the broker's pom, but was not published and is not needed to run
    cat >"$jars/pom.xml" <<-END
	<project xmlns="http://maven.apache.org/POM/4.0.0">
	  <modelVersion>4.0.0</modelVersion>
	  <groupId>local</groupId><artifactId>kafka-fetch</artifactId><version>1</version><packaging>pom</packaging>
	  <dependencies>
	    <dependency>
	      <groupId>org.apache.kafka</groupId><artifactId>kafka_$SCALA</artifactId><version>$KAFKA</version>
	      <exclusions><exclusion>
	        <groupId>org.apache.kafka</groupId><artifactId>kafka-tools-api</artifactId>
	      </exclusion></exclusions>
	    </dependency>
	    <dependency>
	      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>$LOG4J</version>
	    </dependency>
	    <dependency>
	      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$LOG4J</version>
	    </dependency>
	  </dependencies>
	</project>
	END
    mvn -B -q -f "$jars/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$jars/libs" >"$jars/mvn.log" 2>&1 </dev/null ||
        { tail -n 40 "$jars/mvn.log" >&2; die "Maven cannot fetch Apache Kafka $KAFKA"; }
    chmod -R a+rX "$jars"
    touch "$jars/ok"
}

# alive tells whether this folder's broker runs.  kill -0 would not do: a killed broker may stay
# a zombie where nobody reaps it, and process ids are used again.
alive() { [ -s "$dir/pid" ] && grep -qsF "$dir/server.properties" "/proc/$(cat "$dir/pid")/cmdline"; }

# configure writes the broker's settings, at its first start.
configure() {
    local port controller secure
    port=$(free_port)
    controller=$(free_port)
    while [ "$controller" = "$port" ]; do controller=$(free_port); done
    # - internal topics have few partitions: each costs files and time
    # - a killed broker may come back only when its old session is over, 9 s by default
    cat >"$dir/server.properties" <<-END
	process.roles=broker,controller
	node.id=1
	controller.quorum.voters=1@127.0.0.1:$controller
	listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
	advertised.listeners=PLAINTEXT://127.0.0.1:$port
	controller.listener.names=CONTROLLER
	listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
	log.dirs=$dir/data
	num.partitions=1
	auto.create.topics.enable=true
	offsets.topic.replication.factor=1
	offsets.topic.num.partitions=4
	transaction.state.log.replication.factor=1
	transaction.state.log.min.isr=1
	transaction.state.log.num.partitions=4
	share.coordinator.state.topic.replication.factor=1
	share.coordinator.state.topic.min.isr=1
	group.initial.rebalance.delay.ms=0
	num.network.threads=2
	num.io.threads=4
	log.cleaner.dedupe.buffer.size=16777216
	broker.heartbeat.interval.ms=500
	broker.session.timeout.ms=2000
	END
    # a second door, for clients that come through a proxy and are to go on through it
    if [ -n "${KAFKA_PROXY:-}" ]; then
        free_port >"$dir/behind"
        cat >>"$dir/server.properties" <<-END
	listeners=PLAINTEXT://127.0.0.1:$port,PROXY://127.0.0.1:$(cat "$dir/behind"),CONTROLLER://127.0.0.1:$controller
	advertised.listeners=PLAINTEXT://127.0.0.1:$port,PROXY://127.0.0.1:$KAFKA_PROXY
	listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXY:PLAINTEXT,CONTROLLER:PLAINTEXT
	inter.broker.listener.name=PLAINTEXT
	END
    fi
    if [ -n "${KAFKA_SECURE:-}" ]; then
        secure=$(free_port)
        while [ "$secure" = "$port" ] || [ "$secure" = "$controller" ]; do secure=$(free_port); done
        cat >>"$dir/server.properties" <<-END
	listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller,SECURE://127.0.0.1:$secure
	advertised.listeners=PLAINTEXT://127.0.0.1:$port,SECURE://localhost:$secure
	listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
	listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
	listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_relay="$KAFKA_PASSWORD";
	listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
	listener.name.secure.ssl.keystore.type=PEM
	listener.name.secure.ssl.keystore.location=$KAFKA_SECURE
	END
        echo "localhost:$secure" >"$dir/secure"
        scram=(--add-scram "SCRAM-SHA-512=[name=relay,password=$KAFKA_PASSWORD]")
    fi
    [ -z "${KAFKA_PROPERTIES:-}" ] || cat "$KAFKA_PROPERTIES" >>"$dir/server.properties"
    cat >"$dir/log4j2.xml" <<-'END'
	<Configuration status="WARN">
	  <Appenders><Console name="o"><PatternLayout pattern="%d %p %m (%c)%n%ex"/></Console></Appenders>
	  <Loggers><Root level="INFO"><AppenderRef ref="o"/></Root></Loggers>
	</Configuration>
	END
    echo "127.0.0.1:$port" >"$dir/bootstrap"
}

# up starts the broker and prints its address.
up() {
    local java id begun=$SECONDS address
    mkdir -p "$dir/tmp"
    dir=$(cd "$dir" && pwd)
    [ -e "$jars/ok" ] || die "Apache Kafka is not in $jars; run test/setup/install.sh kafka first"
    [ -e "$dir/server.properties" ] || configure
    address=$(cat "$dir/bootstrap")
    if alive; then echo "$address"; return; fi
    java=(java -Xms128m "-Xmx${KAFKA_XMX:-512m}" -XX:+UseSerialGC "-Djava.io.tmpdir=$dir/tmp" -Djava.awt.headless=true
        "-Dlog4j2.configurationFile=$dir/log4j2.xml" -cp "$jars/libs/*")
    if [ ! -e "$dir/data/meta.properties" ]; then
        id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'xy' | tr -d =)
        "${java[@]}" kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties" "${scram[@]}" >"$dir/format.log" 2>&1 ||
            { cat "$dir/format.log" >&2; die "Kafka cannot format its storage"; }
    fi
    setsid "${java[@]}" kafka.Kafka "$dir/server.properties" >>"$dir/kafka.log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    until kcat -L -b "$address" -m 2 2>/dev/null | grep -q ' broker 1 '; do
        alive || { tail -n 20 "$dir/kafka.log" >&2; die "Kafka ended"; }
        [ $((SECONDS - begun)) -le 300 ] || { tail -n 20 "$dir/kafka.log" >&2; die "Kafka is not ready after 300 s"; }
        sleep 0.2
    done
    echo "$address"
}

# down stops the broker.
down() {
    dir=$(cd "$dir" && pwd)
    if alive; then
        kill "$(cat "$dir/pid")"
        wait_until_gone || kill9
    fi
    rm -f "$dir/pid"
}

# kill9 kills the broker.
kill9() {
    dir=$(cd "$dir" && pwd)
    if alive; then
        kill -9 "$(cat "$dir/pid")"
        wait_until_gone || die "Kafka does not die"
    fi
    rm -f "$dir/pid"
}

case $act in
    fetch | up | down | kill9) "$act" ;;
    *) die "kafka.sh: fetch, up, down or kill9, not $act" ;;
esac
