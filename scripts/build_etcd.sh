#!/usr/bin/env bash
# Builds the etcd server of a release from its Go module, for tests against a current version.
#
#   scripts/build_etcd.sh 3.6.16 /tmp/etcd-3.6.16/etcd
#   ETCD_GRPC_ETCD_BIN=/tmp/etcd-3.6.16/etcd ./test.sh
#
# Needs only `go` on the PATH; the sources come through Go's own module download.  A small program
# around etcd's main package, because `go install MODULE@VERSION` refuses modules that replace others.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 VERSION OUTPUT    (for example: $0 3.6.16 ./etcd)" >&2
    exit 2
fi
version=v${1#v}
mkdir -p -- "$(dirname -- "$2")"
output=$(cd -- "$(dirname -- "$2")" && pwd -P)/$(basename -- "$2")
command -v go >/dev/null || { echo "$0: go is not on the PATH" >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
cd -- "$folder"
cat >main.go <<'MAIN'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
MAIN
go mod init etcd >/dev/null 2>&1
go get "go.etcd.io/etcd/server/v3@$version"
CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$output" .
"$output" --version
