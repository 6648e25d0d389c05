#!/usr/bin/env bash
# Makes .venv hold this package with EXTRA ("demo", or "dev" which includes it), and does nothing
# if it already does.  All output goes to stderr, so that a caller's stdout stays its own.
#
#   scripts/bootstrap.sh EXTRA
#   PYTHON=...  the interpreter to make .venv with (else the first Python >= 3.11 found)
#
# Two files in .venv tell its state:
#   .bootstrap-root  the folder it was made in.  Without this file the venv is somebody else's: it
#                    is installed into, and never wiped as long as its Python runs.
#   .bootstrap       "EXTRA HASH" of what is installed, or "failed".  It is absent while we work,
#                    so a run that was killed is seen by the next one, which makes .venv anew.
set -u

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P) || exit
venv=$root/.venv
state=$venv/.bootstrap
made_in=$venv/.bootstrap-root
extra=${1:-}

say() { printf '%s\n' "$@" >&2; }
die() {
    say "$@"
    exit 1
}

# Exit status 3: too old.  4: cannot make a venv with pip (Debian packs ensurepip apart).
probe='import sys
if sys.version_info < (3, 11): sys.exit(3)
try: import ensurepip, venv
except ImportError: sys.exit(4)'

find_python() {
    local candidate without_venv=''
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c "$probe" 2>/dev/null
        case $? in
        0) python=$PYTHON && return ;;
        3) die "PYTHON=$PYTHON is older than Python 3.11." ;;
        4) without_venv=$PYTHON ;;
        *) die "PYTHON=$PYTHON does not run." ;;
        esac
    else
        for candidate in python3 python3.13 python3.12 python3.11 python; do
            "$candidate" -c "$probe" 2>/dev/null
            case $? in
            0) python=$candidate && return ;;
            4) without_venv=${without_venv:-$candidate} ;;
            esac
        done
    fi
    [ -z "$without_venv" ] || die "$without_venv has no working venv module." \
        "On Debian or Ubuntu: apt-get install python3-venv (or python3.X-venv for that version)."
    die "No Python 3.11 or newer found (tried python3, python3.13, python3.12, python3.11, python)." \
        "Install one, or name it: PYTHON=/path/to/python3"
}

# An explicit PYTHON of another version than the venv's: only the user can say which one is meant.
check_python_matches() {
    [ -n "${PYTHON:-}" ] && [ -x "$venv/bin/python" ] || return 0
    local version='import sys; print("%d.%d" % sys.version_info[:2])' asked have
    asked=$("$PYTHON" -c "$version" 2>/dev/null) || die "PYTHON=$PYTHON does not run."
    have=$("$venv/bin/python" -c "$version" 2>/dev/null) || return 0
    [ "$asked" = "$have" ] ||
        die "PYTHON=$PYTHON is Python $asked, but .venv has $have: unset PYTHON, or remove $venv"
}

# Prints a hash of all that decides what is installed; fails if the venv's Python does not run.
# The folder is part of it: the scripts of a venv that was moved point to the old place.
fingerprint() {
    "$venv/bin/python" -I -S -c '
import hashlib, sys
if sys.version_info < (3, 11): sys.exit(3)
digest = hashlib.sha256(repr((sys.version_info[:3], sys.argv[1])).encode())
for path in sys.argv[2:]:
    with open(path, "rb") as file:
        digest.update(hashlib.sha256(file.read()).digest())
print(digest.hexdigest())
' "$root" "$root/pyproject.toml" "$root/constraints.txt" 2>/dev/null
}

is_current() {
    local have_extra='' have_hash='' hash
    [ -r "$state" ] && read -r have_extra have_hash <"$state"
    [ "$have_extra" = "$extra" ] || [ "$have_extra" = dev ] || return 1
    hash=$(fingerprint) && [ "$hash" = "$have_hash" ]
}

# True if .venv is whole enough to install into.
is_usable() {
    if [ -e "$made_in" ]; then
        [ -e "$state" ] && [ "$(cat "$made_in")" = "$root" ] || return 1
    fi
    fingerprint >/dev/null || return 1
    "$venv/bin/python" -c 'import pip' 2>/dev/null ||
        "$venv/bin/python" -m ensurepip >/dev/null 2>&1
}

make_venv() {
    find_python
    say "Making .venv with $("$python" --version 2>&1) ..."
    rm -rf "$venv" && mkdir "$venv" && printf '%s\n' "$root" >"$made_in" || exit
    "$python" -m venv "$venv" >&2 || die "$python -m venv failed, see above."
}

install_package() {
    local log=$venv/bootstrap.log status
    say "Installing etcd-grpc[$extra] into .venv (about a minute the first time) ..."
    rm -f "$state"
    # PIP_USER in the environment would make pip refuse to work in a venv.
    (cd -- "$root" && PIP_USER=0 "$venv/bin/python" -m pip install \
        --quiet --disable-pip-version-check --no-input \
        --constraint constraints.txt --editable ".[$extra]") >"$log" 2>&1
    status=$?
    if [ $status -ne 0 ]; then
        cat "$log" >&2
        # Unless it was killed, pip has put back what it had changed: the next run may go on here.
        [ $status -ge 128 ] || echo failed >"$state"
        die "pip could not install etcd-grpc[$extra]: its output is above and in $log"
    fi
    printf '%s %s\n' "$extra" "$(fingerprint)" >"$state"
}

case $extra in demo | dev) ;; *) die "usage: scripts/bootstrap.sh demo|dev" ;; esac

# A service manager or cron may start us with stdin closed; Python and pip want one.
{ : <&0; } 2>/dev/null || exec </dev/null
# With .venv activated, its Python comes first, but cannot be used to make it anew.
PATH=:$PATH: && PATH=${PATH//:"$venv/bin":/:} && PATH=${PATH#:} && PATH=${PATH%:}

check_python_matches
is_current && exit

# Two runs at once must not install at once; where there is no flock they may.
if command -v flock >/dev/null; then
    exec 9<"${BASH_SOURCE[0]}"
    flock -n 9 || { say "Another run is installing, waiting for it ..." && flock 9; }
    is_current && exit
fi
# pip survives an interrupt; that must not be taken for a failure it has cleaned up after.
trap 'exit 130' INT
trap 'exit 143' TERM
is_usable || make_venv
install_package
