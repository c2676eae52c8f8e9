#!/usr/bin/env bash
# install.sh: installs the Debian packages that something needs, those only that are missing.
#     install.sh demo | bench    a server, its headers, a compiler, librdkafka, librabbitmq
#     install.sh test-tools      the same and what the suites without a broker need
#     install.sh kafka           Java and Apache Kafka
#     install.sh rabbitmq        RabbitMQ and what reads from it
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:?what for} in
    demo | bench) need_build_packages ;;
    test-tools) need_test_packages ;;
    kafka) with_cache_lock "$ES_ROOT/test/setup/kafka.sh" fetch ;;
    rabbitmq) need_packages rabbitmq-server python3-pika openssl ;;
    *) die "install.sh: demo, bench, test-tools, kafka or rabbitmq, not $1" ;;
esac
