#!/bin/bash
# Runs every fuzz target for an equal share of FUZZ_SECONDS (300 in all), two at a time.  New inputs
# stay beside the binaries; the committed seeds and dictionaries of tests/fuzz are only read.
# usage: tests/run-fuzz.sh BINARY...
set -u
cd "$(dirname "$0")/.." || exit 1
total=${FUZZ_SECONDS:-300}
share=$((total / $#))
[ "$share" -ge 5 ] || share=5

one() {
    local bin=$1 name dir log
    name=$(basename "$bin")
    dir=$(dirname "$bin")
    log=$bin.log
    local corpus=$dir/corpus/$name seeds=tests/fuzz/${name#fuzz_} dict=tests/fuzz/${name#fuzz_}.dict
    mkdir -p "$corpus"
    [ -d "$seeds" ] || seeds=
    [ -f "$dict" ] || dict=
    # shellcheck disable=SC2086
    if "$bin" -max_total_time="$share" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        ${dict:+-dict=$dict} -artifact_prefix="$bin-" "$corpus" $seeds >"$log" 2>&1; then
        echo "fuzz ${name#fuzz_}: $share s, $(sed -n 's/.*number_of_executed_units: *//p' "$log") inputs, no fault"
    else
        echo "fuzz ${name#fuzz_}: FAILED"
        tail -40 "$log"
        return 1
    fi
}

bad=0
pids=()
for t in "$@"; do
    if [ ${#pids[@]} -ge 2 ]; then
        wait "${pids[0]}" || bad=1
        pids=("${pids[@]:1}")
    fi
    one "$t" &
    pids+=($!)
done
for p in "${pids[@]}"; do wait "$p" || bad=1; done
exit $bad
