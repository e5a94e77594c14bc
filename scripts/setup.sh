#!/usr/bin/env bash
# Makes .venv match uv.lock. Finds uv, or puts one under .cache; never downloads a Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/debian.sh
source scripts/debian.sh

PRIVATE=$PWD/.cache/uv-venv
export PATH="$PRIVATE/bin:$PATH"
export UV_PYTHON_DOWNLOADS=never
unset VIRTUAL_ENV # another project's environment is none of ours
export PIP_ROOT_USER_ACTION=ignore

main() {
    uv_works || install_uv
    [ -e .venv ] || check_python
    uv sync --locked --all-extras
}

# A version manager's shim can be on PATH with no uv behind it, so ask uv itself.
uv_works() { uv --version >/dev/null 2>&1; }

install_uv() {
    command -v python3 >/dev/null || provide_python python3 python3-venv
    if ! can_make_venv && ! has_pip; then
        provide_python python3-venv
    fi
    say "Installing uv into ${PRIVATE#"$PWD"/}"
    rm -rf "$PRIVATE"
    if can_make_venv; then
        python3 -m venv "$PRIVATE"
        "$PRIVATE/bin/python" -m pip install --quiet --disable-pip-version-check uv
    else # a folder of its own, so an externally managed Python does not mind
        python3 -m pip install --quiet --disable-pip-version-check --target "$PRIVATE" uv
    fi
    hash -r
    uv_works || die "uv was installed into $PRIVATE but does not run; see https://docs.astral.sh/uv for other ways"
}

can_make_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

has_pip() { python3 -m pip --version >/dev/null 2>&1; }

provide_python() { # PACKAGE...
    may_install || die "uv is missing, and so is what would install it. Install uv" \
        "(https://docs.astral.sh/uv), or as root: apt-get install $*"
    install_packages "$@"
}

check_python() {
    uv python find >/dev/null 2>&1 || die "no suitable Python here: this project needs" \
        "$(sed -n 's/^requires-python = "\(.*\)"$/Python \1/p' pyproject.toml)." \
        "Install one (on Debian 12 or newer: apt-get install python3) and run this again."
}

main
