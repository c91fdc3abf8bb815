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

# Each is waited for by its number: one that is over already still tells how it ended.
bad=0
pids=()
for t in "$@"; do
    if [ ${#pids[@]} -ge "$jobs" ]; then
        wait "${pids[0]}" || bad=1
        pids=("${pids[@]:1}")
    fi
    one "$t" &
    pids+=($!)
done
for p in "${pids[@]}"; do wait "$p" || bad=1; done
exit $bad
