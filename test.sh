#!/usr/bin/env bash
# Everything that must hold: lint, format, types, layers, then all the tests.  Every step runs, so
# one run shows all that is wrong; the exit status is 0 only if all of them passed.
#
#   ./test.sh                       all of it
#   ./test.sh tests/unit -k lease   only pytest, with these arguments, in one process
#
# The first run makes .venv and installs into it; later runs install nothing.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P) || exit
{ : <&0; } 2>/dev/null || exec </dev/null
"$root/scripts/bootstrap.sh" dev || exit
cd -- "$root" || exit

export PATH="$root/.venv/bin:$PATH"
# A developer's own etcd is no test fixture.
for name in "${!ETCDCTL_@}" "${!ETCD_GRPC_@}"; do
    [ "$name" = ETCD_GRPC_ETCD_BIN ] || unset "$name"
done

[ $# -eq 0 ] || exec pytest "$@"

failed=()
step() {
    printf '\n== %s\n' "$*"
    "$@" || failed+=("$*")
}
step ruff check
step ruff format --check
step mypy
step lint-imports

cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null) || cores=2
[ "$cores" -le 8 ] || cores=8  # each worker runs an etcd cluster of its own
printf '\n== pytest (%s workers)\n' "$cores"
# pytest's summary must stay the last line, so what failed before it is said before it.
[ ${#failed[@]} -eq 0 ] || printf 'FAILED before the tests: %s\n' "${failed[@]}"
pytest -n "$cores" --dist worksteal
status=$?

# A machine that is shared may stand still for seconds in the middle of a test.  So a few failures (more
# are no accident) are asked about once more, by themselves, and named above the last summary: each
# is a weak test or a rare fault, and wants mending either way.
last=.pytest_cache/v/cache/lastfailed
if [ "$status" -eq 1 ] && [ "$(grep -c ': true' "$last")" -le 3 ]; then
    printf '\n== failed, and asked once more:\n'
    grep ': true' "$last"
    pytest --last-failed
    status=$?
fi
[ "$status" -eq 0 ] && [ ${#failed[@]} -eq 0 ]
