#!/usr/bin/env bash
# Sees to the programs that the tests drive: .make/programs.sh
# As root they are installed with apt, saying so; otherwise what is missing is named. In CI a missing one is a failure.
set -euo pipefail

# program:Debian package:what the tests use it for
needed="
storescu:dcmtk:a DICOM sender that is not ours
Orthanc:orthanc:a PACS that is not ours
redis-server:redis-server:the second make of the queue's store
promtool:prometheus:checks every /metrics page
java:openjdk-17-jre-headless:runs Apache Kafka
mvn:maven:fetches Apache Kafka
cc:gcc libc6-dev:compiles the shim that makes a clock wrong
"
missing= packages=
while IFS=: read -r program package use; do
    [ -n "$program" ] || continue
    if ! PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null; then
        missing="$missing\n  $program ($package): $use"; packages="$packages $package"
    fi
done <<< "$needed"
[ -n "$packages" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "· installing with apt:$packages" >&2
    apt-get update -qq
    # no service may start by itself: the tests start their own, on free ports
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
else
    printf 'Missing programs:%b\nTests that need them are skipped here (in CI they fail). Install: sudo apt-get install%s\n' "$missing" "$packages" >&2
    [ -z "${CI:-}" ] || exit 1
fi
