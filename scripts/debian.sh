# shellcheck shell=bash
# Sourced by the other scripts: messages, and packages where we may install them.

lists_are_fresh=''

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install_packages() { # NAME...
    local log
    log=$(mktemp)
    say "Installing with apt-get: $*"
    refresh_package_lists "$log"
    if ! apt_quietly "$log" install --no-install-recommends "$@"; then
        tail -n 20 "$log" >&2
        die "apt-get could not install: $* (whole log: $log)"
    fi
    rm -f "$log"
}

refresh_package_lists() { # LOG
    [ -z "$lists_are_fresh" ] || return 0
    apt_quietly "$1" update || say "note: apt-get update failed; going on with the package lists already here"
    lists_are_fresh=yes
}

apt_quietly() { # LOG COMMAND [ARGUMENT...]
    local log=$1
    shift
    DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1 </dev/null
}
