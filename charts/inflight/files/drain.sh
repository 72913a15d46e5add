#!/bin/bash
# Lets a router leave without breaking a request: used as its preStop hook.
#
#   drain.sh [seconds]    longest wait for open requests, 30 if left out
#
# Fails the readiness and asks clients to close their connections with their next answer, keeps serving while
# Services forget this address, then waits until nothing is open. Needs bash and coreutils only, so that it runs in this
# project's image and in Envoy's own (not in the distroless one).
set -u
ADMIN_PORT=${INFLIGHT_ADMIN_PORT:-9901}
FORGET_SECONDS=${INFLIGHT_FORGET_SECONDS:-5}
deadline=$((SECONDS + ${1:-30}))

admin() { # METHOD PATH: prints the answer of Envoy's administration
    exec 3<>"/dev/tcp/127.0.0.1/$ADMIN_PORT" || return 1
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n' "$1" "$2" >&3
    cat <&3
    exec 3>&-
}

open_requests() {
    admin GET '/stats?usedonly&filter=^http\.inflight\.downstream_rq_active$' |
        sed -n 's/.*downstream_rq_active: \([0-9]*\).*/\1/p'
}

admin POST /healthcheck/fail >/dev/null || exit 0 # Envoy is gone already
sleep "$FORGET_SECONDS"
while [ "$SECONDS" -lt "$deadline" ]; do
    [ "$(open_requests)" = 0 ] && break
    sleep 0.2
done
exit 0
