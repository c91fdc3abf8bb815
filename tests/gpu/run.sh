#!/bin/bash
# Measures and checks on a GPU: one table, each program at most 10 minutes (LIMIT=seconds).
#   usage: tests/gpu/run.sh [--small] [PART ...]
#   parts: correctness serve roofs fp8 sampler formats library attention models sanitizer   (default: all)
#   --small: on the emulator, in miniature; shows that everything works, its times mean nothing
#   BUILT=1: takes what is built in $BUILD (build) as it is, on a machine that cannot build it
#   ONLY=7B: formats, library and attention at the shapes of one model; JOBS=n: n tests side by side
# Without a GPU (and without --small) it says "no GPU: skipped" and ends with 0.
set -u
cd "$(dirname "$0")/../.." || exit 1
limit=${LIMIT:-600} bad=0 small=
if [ "${1:-}" = --small ]; then
    small=1
    shift
fi
build=${BUILD:-build}
parts=("$@")
if [ -n "$small" ]; then
    [ $# -gt 0 ] || parts=(serve roofs fp8 sampler formats library attention models)
    [ -n "${BUILT:-}" ] || make -f tests/gpu/build.mk --no-print-directory gpu-small || exit 1
    bin=$build-emu/tests quern=$build-emu/quern
else
    if ! nvidia-smi -L >/dev/null 2>&1; then
        echo "no GPU: skipped"
        exit 0
    fi
    [ $# -gt 0 ] || parts=(correctness serve roofs fp8 sampler formats library attention models sanitizer)
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader
    # Only for the devices that are here.
    archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sort -u | tr -d . | sed 's/^90$/90a/' | xargs)
    [ -n "${BUILT:-}" ] || make -f tests/gpu/build.mk --no-print-directory "-j$(nproc)" CUDA=1 ARCHS="$archs" gpu || exit 1
    bin=$build/cuda/tests quern=$build/quern
fi

run() { # name, command...
    local name=$1 rc=0 start=$SECONDS
    shift
    timeout "$limit" "$@" || rc=$?
    case $rc in
    0) ;;
    77) echo "   $name: skipped" ;;
    124) echo "FAILED $name: not done after $limit s" ;;
    *) echo "FAILED $name: exit status $rc" ;;
    esac
    [ $rc = 0 ] || [ $rc = 77 ] || bad=1
    echo "   $name: $((SECONDS - start)) s"
}

# The op tests as they run on the emulator, built for the device.  A process that has used CUDA
# cannot fork.
correctness() {
    local t running=0
    for t in "$bin"/cuda/test_*; do
        if [ ! -x "$t" ] || [ "${t%.*}" != "$t" ]; then continue; fi
        run "$(basename "$t")" env CK_FORK=no "$t" >"$said/$(basename "$t")" 2>&1 &
        running=$((running + 1))
        if [ "$running" -ge "${JOBS:-1}" ]; then
            wait -n
            running=$((running - 1))
        fi
    done
    wait
    cat "$said"/test_*
    if grep -q '^FAILED' "$said"/test_*; then bad=1; fi
}
sanitizer() {
    local tool t
    if ! command -v compute-sanitizer >/dev/null; then
        echo "compute-sanitizer: not installed, skipped"
        return
    fi
    for tool in memcheck racecheck synccheck; do
        for t in "$bin"/cuda/test_*; do
            if [ -x "$t" ] && [ "${t%.*}" = "$t" ]; then
                run "$tool $(basename "$t")" env CK_FORK=no CK_DEFAULT_TIMEOUT=0 \
                    compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 "$t"
            fi
        done
    done
}

said=$(mktemp -d)
table=$said/roofs
trap 'rm -rf "$said"' EXIT
for part in "${parts[@]}"; do
    case $part in
    roofs)
        run roofs "$bin/gpu/roofs" | tee "$table"
        # A pipe's left side is a process of its own: what it found out is in its words.
        grep -q '^FAILED' "$table" && bad=1
        # What a model's decode is held against: the reads measured just now.
        GBS=$(awk '$1 == "read" { print $4 }' "$table")
        [ -n "$small" ] || export GBS
        ;;
    fp8 | sampler) run "$part" "$bin/gpu/$part" ;;
    attention) run "$part" "$bin/gpu/attention" "${ONLY:-}" ;;
    formats | library) run "$part" "$bin/gpu/products" "$part" "${ONLY:-}" ;;
    serve) run serve python3 tests/gpu/serve.py "$quern" ${small:+--small} ;;
    correctness) correctness ;;
    sanitizer) sanitizer ;;
    models) run models python3 tests/gpu/models.py "$quern" ${small:+--small} ;;
    *)
        echo "unknown part: $part" >&2
        exit 2
        ;;
    esac
done
[ $bad = 0 ] && echo "gpu: ok"
exit $bad
