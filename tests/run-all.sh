#!/bin/bash
# Everything CI runs.  Two lanes share two cores: in front, one after the other, what prints test
# results; behind it, at the lowest priority, builds and downloads that later steps need.  A step of
# the back lane is waited for where it is needed, and its log is shown only if it failed.  The first
# failure ends the run.  The last lines are a table of all steps and their seconds.
set -u
cd "$(dirname "$0")/.." || exit 1
jobs=$(nproc)
logs=build/ci
rm -rf $logs
mkdir -p $logs
start=$(date +%s)
table=()
lane=
mk=(make --no-print-directory)

stop_lane() {
    if [ -n "$lane" ]; then kill -- "-$lane"; fi
    lane=
} 2>/dev/null
trap stop_lane EXIT

finish() {
    printf '\n%-34s %7s\n' "step" "seconds"
    printf '%s\n' "${table[@]}"
    printf '%-34s %7d\n' "$1" $(($(date +%s) - start))
}
fail() {
    stop_lane
    finish "FAILED: $1, after"
    exit 1
}

# A step in front.
step() {
    local name=$1 t=$SECONDS
    shift
    echo "---- $name"
    "$@" || fail "$name"
    echo "---- $name: $((SECONDS - t)) s"
    table+=("$(printf '%-34s %7d' "$name" $((SECONDS - t)))")
}
quiet() { "$@" >$logs/quiet.log 2>&1 || { tail -60 $logs/quiet.log; return 1; }; }

# The back lane: behind NAME COMMAND... puts a step into it, start_lane starts it.
queue=()
behind() {
    local name=$1
    shift
    queue+=("$name|$*")
}
run_lane() {
    local q name t
    for q in "${queue[@]}"; do
        name=${q%%|*}
        t=$(date +%s)
        # The commands hold no spaces but those between their words.
        # shellcheck disable=SC2086
        ${q#*|} >"$logs/$name.log" 2>&1
        echo "$? $(($(date +%s) - t))" >"$logs/$name.rc"
        grep -q '^0 ' "$logs/$name.rc" || return
    done
}
start_lane() {
    set -m
    (renice -n 19 $BASHPID >/dev/null && run_lane) &
    lane=$!
    set +m
}
await() {
    local name=$1 rc s t=$SECONDS
    until [ -s "$logs/$name.rc" ]; do
        if ! kill -0 "$lane" 2>/dev/null && [ ! -s "$logs/$name.rc" ]; then
            for f in "$logs"/*.rc; do grep -q '^0 ' "$f" || { f=${f%.rc}; echo "---- ${f##*/}"; tail -60 "$f.log"; fail "${f##*/}"; }; done
            fail "$name (never ran)"
        fi
        sleep 0.5
    done
    read -r rc s <"$logs/$name.rc"
    if [ "$rc" != 0 ]; then
        echo "---- $name"
        tail -60 "$logs/$name.log"
        fail "$name"
    fi
    echo "---- $name: $s s behind the steps above, $((SECONDS - t)) s waited for"
    table+=("$(printf '%-34s %7d  (in the background, waited for %d)' "$name" "$s" $((SECONDS - t)))")
}

behind clients tests/run-e2e.sh --prepare
behind emulator "${mk[@]}" CUDA=0 -j"$jobs" emu-tests
behind nvcc docker/deps.sh nvcc
behind devices "${mk[@]}" CUDA=1 -j"$jobs" cuda-objects
behind asan-build "${mk[@]}" -j"$jobs" asan-build
behind tsan-build "${mk[@]}" -j"$jobs" tsan-build

step "build (gcc)" quiet "${mk[@]}" -j"$jobs" CUDA=0 all tests
start_lane
step "lint" "${mk[@]}" lint
step "unit" "${mk[@]}" CUDA=0 unit
await clients
await emulator
step "emulated kernels" "${mk[@]}" CUDA=0 TEST_JOBS="$jobs" cuda-emu
step "e2e on the emulator" "${mk[@]}" CUDA=0 e2e-emu
await nvcc
await devices
step "link, registers, memory, spills" "${mk[@]}" CUDA=1 all ptxas
step "e2e" "${mk[@]}" CUDA=1 e2e
await asan-build
step "asan" "${mk[@]}" asan
step "emulated kernels, asan" "${mk[@]}" cuda-emu-asan
await tsan-build
step "tsan" "${mk[@]}" tsan
step "fuzz" "${mk[@]}" fuzz
finish "everything passed in"
