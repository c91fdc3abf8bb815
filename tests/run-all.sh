#!/bin/bash
# Everything CI runs, in one order, with times.  Stops at the first failure.
set -u
cd "$(dirname "$0")/.." || exit 1
jobs=$(nproc)
start=$(date +%s)
step() {
    local name=$1 t
    t=$(date +%s)
    shift
    echo "---- $name"
    if ! "$@"; then
        echo "---- $name FAILED after $(($(date +%s) - t)) s"
        exit 1
    fi
    echo "---- $name: $(($(date +%s) - t)) s"
}
quiet() { "$@" >build-step.log 2>&1 || { tail -60 build-step.log; rm -f build-step.log; return 1; }; rm -f build-step.log; }

step "build (gcc)" quiet make -j"$jobs" --no-print-directory all
step "lint" make --no-print-directory lint
step "unit" make -j"$jobs" --no-print-directory unit
step "e2e" make --no-print-directory e2e
step "asan" make -j"$jobs" --no-print-directory asan
step "tsan" make -j"$jobs" --no-print-directory tsan
step "build (clang), fuzz" make --no-print-directory fuzz
echo "everything passed in $(($(date +%s) - start)) s"
