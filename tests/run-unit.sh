#!/bin/sh
# Runs check binaries one after another; prints their own closing lines; fails if any failed.
# usage: tests/run-unit.sh BINARY...
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
for t in "$@"; do
    start=$(date +%s)
    echo "== $(basename "$t")"
    "$t" || { bad=1; echo "FAILED: $t"; }
    echo "   $(($(date +%s) - start)) s"
done
exit $bad
