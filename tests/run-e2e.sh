#!/bin/bash
# The served binary driven from outside: raw sockets, curl, the official clients.  The venv lives in
# build/venv and is made once.  usage: tests/run-e2e.sh BINARY
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
QUERN_BIN=$1 exec $venv/bin/python -m pytest -q -x --no-header -p no:cacheprovider tests/e2e
