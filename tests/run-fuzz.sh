#!/bin/bash
# Builds everything with clang (warnings are errors there too), then runs every fuzz target for an
# equal share of FUZZ_SECONDS (300 in all), two at a time, under ASan and UBSan.  New inputs stay in
# build-fuzz/; the committed seeds are only read.
set -u
cd "$(dirname "$0")/.." || exit 1
total=${FUZZ_SECONDS:-300}
pkgs="libmicrohttpd libcjson libpcre2-8 libutf8proc libxxhash"
make -j2 --no-print-directory fuzzers build-fuzz/server/main.o BUILD=build-fuzz CC="${CLANG:-clang}" PKGS="$pkgs" \
    CFLAGS="-O1 -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
    LDFLAGS="-fsanitize=address,undefined" >build-fuzz.log 2>&1 || { tail -30 build-fuzz.log; exit 1; }
rm -f build-fuzz.log

targets=()
for f in tests/fuzz_*.c; do targets+=("$(basename "$f" .c)"); done
share=$((total * 2 / ${#targets[@]}))
[ "$share" -ge 5 ] || share=5

one() {
    local t=$1 corpus=build-fuzz/corpus/$1 seeds=tests/fuzz/${1#fuzz_}
    mkdir -p "$corpus"
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086
    if build-fuzz/fuzz/"$t" -max_total_time="$share" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/$t-" "$corpus" $seeds >"build-fuzz/$t.log" 2>&1; then
        echo "fuzz $t: $share s, $(grep -o 'number_of_executed_units: *[0-9]*' "build-fuzz/$t.log" | grep -o '[0-9]*$') inputs, no fault"
    else
        echo "fuzz $t: FAILED"
        tail -40 "build-fuzz/$t.log"
        return 1
    fi
}

bad=0
pids=()
for t in "${targets[@]}"; do
    one "$t" & pids+=($!)
    if [ ${#pids[@]} -eq 2 ]; then
        wait "${pids[0]}" || bad=1
        wait "${pids[1]}" || bad=1
        pids=()
    fi
done
for p in "${pids[@]}"; do wait "$p" || bad=1; done
exit $bad
