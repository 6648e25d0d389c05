#!/usr/bin/env bash
# The demo: a real three-member etcd, real gRPC servers, and a client under load while they come
# and go.  The first run makes .venv and installs into it; later runs install nothing.
# Arguments go to `etcd-grpc demo` (--json, --help ...); PYTHON names the interpreter for .venv.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
{ : <&0; } 2>/dev/null || exec </dev/null
"$root/scripts/bootstrap.sh" demo
exec "$root/.venv/bin/etcd-grpc" demo "$@"
