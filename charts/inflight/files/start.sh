#!/bin/bash
# Starts a router.
#
#   start.sh HOST:PORT envoy-argument...      HOST:PORT is the operator's
#
# With an operator it is plain Envoy. When none answers for five seconds, and there is a last known good configuration
# (mounted from a ConfigMap), the router serves that from files; as soon as an operator answers, an Envoy that asks it
# takes the sockets over (hot restart), and no request is lost. Without such a configuration the router waits, and is not
# ready: it never serves an empty world. Needs bash, coreutils and gzip, which this project's image and Envoy's own have.
set -u
CONFIG=${INFLIGHT_CONFIG_DIR:-/etc/inflight}
FILES=${INFLIGHT_LAST_GOOD_DIR:-/tmp/inflight-last-good}
STATUS_PORT=${INFLIGHT_STATUS_PORT:-9091}
PATIENCE_SECONDS=${INFLIGHT_PATIENCE_SECONDS:-5}
TAKE_OVER_SECONDS=30
operator_host=${1%:*} operator_port=${1##*:}
shift

say() { printf '{"event": "%s", "logger": "start.sh"}\n' "$1"; }

connects() { # HOST PORT
    timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
}

ready() {
    local request='GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
    timeout 1 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "$1" >&3 && grep -q "^HTTP/1.1 200" <&3' \
        "$STATUS_PORT" "$request" 2>/dev/null
}

while ! connects "$operator_host" "$operator_port"; do
    [ "$SECONDS" -ge "$PATIENCE_SECONDS" ] && break
    sleep 0.25
done
if [ "$SECONDS" -lt "$PATIENCE_SECONDS" ] || [ ! -e "$CONFIG/last-good/rds.pb.gz" ]; then
    exec envoy --config-path "$CONFIG/bootstrap.yaml" --disable-hot-restart "$@"
fi

say "no operator answers: serving the last known good configuration"
mkdir -p "$FILES"
for name in cds lds rds; do
    gzip -dc "$CONFIG/last-good/$name.pb.gz" >"$FILES/$name.pb" || exit 1
done
current=
trap 'kill -TERM $current 2>/dev/null' TERM INT
common=(--base-id "${INFLIGHT_BASE_ID:-0}" --drain-time-s 10 --parent-shutdown-time-s 15)
envoy --config-path "$CONFIG/bootstrap-last-good.yaml" --restart-epoch 0 "${common[@]}" "$@" &
current=$!
while kill -0 "$current" 2>/dev/null && ! connects "$operator_host" "$operator_port"; do
    sleep 1
done
kill -0 "$current" 2>/dev/null || { wait "$current"; exit; }

say "an operator answers: asking it from now on"
old=$current
envoy --config-path "$CONFIG/bootstrap.yaml" --restart-epoch 1 "${common[@]}" "$@" &
current=$!
trap 'kill -TERM $current $old 2>/dev/null' TERM INT
deadline=$((SECONDS + TAKE_OVER_SECONDS))
until ready; do
    if [ "$SECONDS" -ge "$deadline" ] || ! kill -0 "$current" 2>/dev/null; then
        say "it did not take over: starting again"
        kill -KILL "$current" "$old" 2>/dev/null
        exit 1
    fi
    sleep 0.5
done
while kill -0 "$current" 2>/dev/null; do
    wait "$current"
done
