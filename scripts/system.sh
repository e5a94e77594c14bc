#!/usr/bin/env bash
# Makes sure that the machine has what the chores need beside Python:
#
#   scripts/system.sh [engine] [registry] [busybox] [postgres] [--optional NAME...]
#
#   engine     a container engine that answers (DOCKER_HOST, Docker's socket, Podman's socket)
#   registry   the program docker-registry; the tests start their own
#   busybox    a static /bin/busybox, from which images are built where no registry can be reached
#   postgres   PostgreSQL's programs; the tests start their own server
#
# Root on Debian or Ubuntu gets what is missing installed; anyone else is told what to install.
# What follows --optional is only remarked upon when it cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/debian.sh
source scripts/debian.sh

export PATH="$PATH:/usr/sbin:/sbin" # dockerd and iptables live there
PATIENCE=60                         # seconds for the engine to come up
PID_FILE=/var/run/docker.pid
LOG=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/compute-horde/dockerd.log
started='' # the dockerd that this run started

main() { # NAME...
    local name optional='' refused='' needs=() wishes=() wanted=("$@")
    for name in "$@"; do
        if [ "$name" = --optional ]; then
            optional=yes
        elif has "$name"; then
            continue
        elif may_install; then
            local packages
            read -ra packages <<<"$(packages_of "$name")"
            if [ -n "$optional" ]; then wishes+=("${packages[@]}"); else needs+=("${packages[@]}"); fi
        elif [ -n "$optional" ]; then
            say "note: $(advice "$name")"
        else
            say "error: $(advice "$name")"
            refused=yes
        fi
    done
    [ -z "$refused" ] || exit 1
    case " ${needs[*]} ${wishes[*]} " in *" postgresql "*) make_no_cluster ;; esac
    [ ${#needs[@]} = 0 ] || install_packages "${needs[@]}"
    [ ${#wishes[@]} = 0 ] || (install_packages "${wishes[@]}") || say "note: going on without: ${wishes[*]}"
    case " ${needs[*]} " in *" docker-registry "*) quieten_registry ;; esac
    case " ${wanted[*]} " in *" engine "*) ensure_engine ;; esac
}

has() { # NAME
    case $1 in
        engine) engine_answers || [ -n "${DOCKER_HOST:-}" ] || may_start_engine ;;
        registry) command -v docker-registry >/dev/null ;;
        busybox) [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 ;;
        postgres) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ;;
        *) die "unknown name '$1'; see the top of $0" ;;
    esac
}

packages_of() { # NAME
    case $1 in
        engine) echo docker.io iptables ca-certificates ;;
        registry) echo docker-registry ;;
        busybox) echo busybox-static ;;
        postgres) echo postgresql ;;
    esac
}

advice() { # NAME
    case $1 in
        engine)
            python3 scripts/engine_address.py >/dev/null || true # says what was asked
            echo "a container engine is missing. Start Docker or Podman's service and check that this user may" \
                "open its socket, or set DOCKER_HOST. To install one on Debian: sudo apt-get install docker.io"
            ;;
        registry)
            echo "docker-registry is missing; the tests push their images to one." \
                "On Debian: sudo apt-get install docker-registry. Elsewhere: put the program of" \
                "https://github.com/distribution/distribution on PATH under that name"
            ;;
        busybox)
            echo "a static /bin/busybox is missing; images are built from it where no registry can be reached." \
                "On Debian: sudo apt-get install busybox-static"
            ;;
        postgres)
            echo "PostgreSQL is missing (initdb and postgres, in /usr/lib/postgresql/*/bin or on PATH);" \
                "the tests start their own. On Debian: sudo apt-get install postgresql"
            ;;
    esac
}

# Its package starts a service for the whole network on port 5000; only the program is wanted.
quieten_registry() {
    [ ! -d /run/systemd/system ] || systemctl disable --now docker-registry >/dev/null 2>&1 ||
        say "note: the service docker-registry, which nothing here needs, could not be stopped"
}

# Its package makes a cluster and starts it at each boot, unless it is told not to beforehand.
make_no_cluster() {
    local folder=/etc/postgresql-common
    [ ! -e $folder/createcluster.conf ] || return 0 # an operator's own
    mkdir -p $folder/createcluster.d
    [ -e $folder/createcluster.d/compute-horde.conf ] ||
        echo 'create_main_cluster = false' >$folder/createcluster.d/compute-horde.conf
}

engine_answers() { python3 scripts/engine_address.py >/dev/null 2>&1; }

may_start_engine() { [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null && command -v iptables >/dev/null; }

ensure_engine() {
    engine_answers && return
    [ -z "${DOCKER_HOST:-}" ] || die "DOCKER_HOST is $DOCKER_HOST, and no engine answers there"
    if [ -d /run/systemd/system ]; then
        start_service
    elif ! engine_process_lives; then
        start_dockerd
    fi
    await_engine
}

start_service() {
    say "Starting the docker service"
    systemctl start docker || die "the docker service does not start; see: journalctl -u docker"
}

start_dockerd() {
    mkdir -p "$(dirname "$LOG")"
    rm -f "$PID_FILE" # dockerd refuses to start beside one whose number some other process has by now
    say "Starting dockerd (log: $LOG)"
    setsid nohup dockerd >"$LOG" 2>&1 </dev/null &
    started=$!
    disown
}

engine_process_lives() {
    local pid
    pid=$(cat "$PID_FILE" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]
}

await_engine() {
    local deadline=$((SECONDS + PATIENCE))
    until engine_answers; do
        [ "$SECONDS" -lt "$deadline" ] || give_up "the container engine did not answer within $PATIENCE seconds"
        # Ours may have made way for one that somebody else started at the same moment.
        [ -z "$started" ] || kill -0 "$started" 2>/dev/null || engine_process_lives ||
            give_up "dockerd stopped while starting"
        sleep 0.5
    done
}

give_up() { # REASON
    [ -z "$started" ] || tail -n 15 "$LOG" >&2
    die "$1"
}

main "$@"
