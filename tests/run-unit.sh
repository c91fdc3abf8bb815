#!/bin/bash
# Runs check binaries; prints their own closing lines; fails if any failed.  TEST_JOBS (1) at a time:
# more than one only where nothing is timed.  usage: tests/run-unit.sh BINARY...
set -u
cd "$(dirname "$0")/.." || exit 1
jobs=${TEST_JOBS:-1}

one() {
    local t=$1 start=$SECONDS log rc=0
    log=$(mktemp)
    "$t" >"$log" 2>&1 || rc=1
    {
        echo "== $(basename "$t")"
        if [ $rc = 0 ]; then grep -vE '^(warn|error): |^Running suite' "$log"; else cat "$log"; echo "FAILED: $t"; fi
        echo "   $((SECONDS - start)) s"
    } | cat
    rm -f "$log"
    return $rc
}

bad=0
while [ $# -gt 0 ]; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || bad=1; done
    one "$1" &
    shift
done
while [ -n "$(jobs -rp)" ]; do wait -n || bad=1; done
wait || bad=1
exit $bad
