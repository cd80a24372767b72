#!/usr/bin/env bash
# A real Docker engine, and a base image made of Debian's packages, on a machine that has neither and can pull nothing.
#
#   tests/docker/engine.sh start     installs what is missing, starts dockerd unless one answers, makes the base $TUNELINE_BASE
#   tests/docker/engine.sh stop      stops the dockerd that start started, and removes its images
set -euo pipefail
FOLDER="${TUNELINE_ENGINE_FOLDER:-/var/tmp/tuneline-engine}"
BASE="${TUNELINE_BASE:-tuneline-base:bookworm}"
SUITE=bookworm

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install() {
    local missing=()
    for pair in docker:docker.io dockerd:docker.io debootstrap:debootstrap docker-registry:docker-registry; do
        PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ "${#missing[@]}" = 0 ] && return
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

start_engine() {
    docker info >/dev/null 2>&1 && return
    as_root mkdir -p "$FOLDER"
    as_root rm -f "$FOLDER/pid"  # of one that was killed: by now its number may be another process's
    as_root setsid dockerd --data-root "$FOLDER/data" --pidfile "$FOLDER/pid" </dev/null >"/tmp/tuneline-dockerd.log" 2>&1 &
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        sleep 1
    done
    echo "dockerd does not answer; its log:" >&2
    tail -20 /tmp/tuneline-dockerd.log >&2
    exit 1
}

make_base() {
    docker image inspect "$BASE" >/dev/null 2>&1 && return
    local root
    root="$(mktemp -d)"
    as_root debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$SUITE" "$root" >/dev/null
    as_root rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    as_root tar -C "$root" -c . | docker import - "$BASE" >/dev/null
    as_root rm -rf "$root"
}

# Nothing here fails: what could not be tidied away says nothing about what was tested.
stop() {
    [ -f "$FOLDER/pid" ] || return 0
    local pid mount
    pid="$(cat "$FOLDER/pid")"
    as_root kill "$pid" || true
    for _ in $(seq 300); do
        [ -d "/proc/$pid" ] || break
        sleep 0.2
    done
    # dockerd mounts its folder on itself, and does not always take that back.
    while read -r mount; do
        case "$mount" in "$FOLDER"/*) as_root umount --lazy "$mount" || true ;; esac
    done < <(cut -d ' ' -f 5 /proc/self/mountinfo | sort -r)
    as_root rm -rf "$FOLDER" || echo "$FOLDER: not all of it could be removed" >&2
}

case "${1:-}" in
    start)
        install
        start_engine
        make_base
        ;;
    stop) stop ;;
    *) echo "usage: $0 start|stop" >&2 && exit 2 ;;
esac
