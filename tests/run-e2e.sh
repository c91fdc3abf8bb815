#!/bin/bash
# The served binary driven from outside: raw sockets, curl, the official clients.  The venv lives in
# build/venv and is made once.
# usage: tests/run-e2e.sh --prepare | BINARY [pytest arguments]
set -eu
cd "$(dirname "$0")/.."
venv=build/venv
want=$(md5sum <tests/requirements.txt)
if [ "$(cat $venv/.want 2>/dev/null || true)" != "$want" ]; then
    rm -rf $venv
    python3 -m venv $venv
    $venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
    echo "$want" >$venv/.want
fi
[ "$1" != --prepare ] || exit 0
bin=$1
shift
[ $# -gt 0 ] || set -- tests/e2e
QUERN_BIN=$bin exec $venv/bin/python -m pytest -q -x --no-header -p no:cacheprovider "$@"
