#!/usr/bin/env bash
# install.sh: installs the Debian packages that something needs, those only that are missing.
#     install.sh demo | bench    a server, its headers, a compiler, librdkafka
#     install.sh test-tools      the same and what the suites without a broker need
#     install.sh kafka           Java and Apache Kafka
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:?what for} in
    demo | bench) need_build_packages ;;
    test-tools) need_test_packages ;;
    kafka) with_cache_lock "$ES_ROOT/test/setup/kafka.sh" fetch ;;
    *) die "install.sh: demo, bench, test-tools or kafka, not $1" ;;
esac
