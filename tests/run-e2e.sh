#!/bin/bash
# The served binary driven from outside: raw sockets, curl, the official clients.  The venvs live in
# build/venv and, for litellm, which wants an older openai, build/venv-litellm; each is made once.
# usage: tests/run-e2e.sh --prepare | BINARY [pytest arguments]
set -eu
cd "$(dirname "$0")/.."
venv=build/venv
prepare() { # venv, requirements
    local want
    want=$(md5sum <"$2")
    if [ "$(cat "$1/.want" 2>/dev/null || true)" != "$want" ]; then
        rm -rf "$1"
        python3 -m venv "$1"
        "$1/bin/pip" install -q --disable-pip-version-check -r "$2"
        echo "$want" >"$1/.want"
    fi
}
prepare $venv tests/requirements.txt
prepare $venv-litellm tests/requirements-litellm.txt
[ "$1" != --prepare ] || exit 0
bin=$1
shift
[ $# -gt 0 ] || set -- tests/e2e
QUERN_BIN=$bin exec $venv/bin/python -m pytest -q --maxfail 5 --no-header -p no:cacheprovider "$@"
