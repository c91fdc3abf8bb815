#!/bin/bash
# House rules that a machine can check: include arrows, portability seams, library fences, formatting,
# cppcheck, shellcheck.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
complain() { echo "lint: $1"; bad=1; }

# Include arrows go down only.
allow() { # dir, allowed regex for quoted includes
    local hits
    hits=$(grep -rnE '^#include "' "$1" --include='*.c' --include='*.h' --include='*.cu' --include='*.cuh' \
        --include='*.cpp' | grep -vE "$2")
    [ -z "$hits" ] || { echo "$hits"; complain "$1 includes something above it"; }
}
allow base '"base/'
allow config '"(base|config)/'
allow kernels '"(base|kernels)/'
allow engine '"(base|config|engine)/|"kernels/(kernels|roofs|comm|comm_procs|split)\.h"'
allow server '"(base|config|server)/|"engine/(engine|tools|launch)\.h"|"engine/text/|"engine/grammar/(grammar|cache)\.h"|"version\.h"'

# Libraries stay behind their fences.
fence() { # header, files that may include it
    local hits
    hits=$(grep -rlE "^#include <$1>" base config kernels engine server | grep -vE "$2")
    [ -z "$hits" ] || { echo "$hits"; complain "$1 is included outside its fence"; }
}
fence 'microhttpd\.h' '^server/http\.c$'
fence 'gnutls/.*' '^server/tls\.c$'
fence '(cjson/)?cJSON\.h' '^(server|config|engine/text)/'
fence 'check\.h' '^$'
fence 'immintrin\.h' '^kernels/cpu/'
fence '(cuda|cublas|nccl|driver_types|nv)[a-zA-Z_0-9]*\.h' '^kernels/cuda/'
fence 'mpi\.h' '^kernels/comm_mpi\.c$'
# Device code sees the device through one header; the runtime is behind gpu.h.
hits=$(grep -lE '^#include <cuda|^ *asm\b' kernels/cuda/* | grep -vE '/(ptx\.cuh|gpu\.cu|gpu_launch\.h|gemm\.c|emu_[a-z]*\.(h|cpp))$')
[ -z "$hits" ] || { echo "$hits"; complain "CUDA headers or inline assembly outside portable.cuh's files"; }

# Conditionals only where a portability seam lives (header guards apart).
hits=$(grep -rnE '^ *# *(if|ifdef|ifndef|elif)\b' base config engine server kernels --include='*.c' --include='*.h' \
    --include='*.cu' --include='*.cuh' --include='*.cpp' | grep -vE '#ifndef QUERN_' |
    grep -vE '^kernels/(kernels\.c|formats\.h)|^kernels/cpu/|^kernels/cuda/(portable\.cuh|ptx\.cuh|gpu[._]|emu)|^base/')
[ -z "$hits" ] || { echo "$hits"; complain "preprocessor conditionals outside the seam files"; }

# Sizes.
sources=$(git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp')
for f in $sources; do
    [ -f "$f" ] || continue
    n=$(wc -l <"$f")
    max=700
    [ "${f#tests/}" = "$f" ] || max=800
    [ "$n" -le "$max" ] || complain "$f has $n lines ($max at most)"
done

# A global of ours with the name of a libc function would take its place in every library we load.
if [ -f build/libquern.a ]; then
    hits=$(comm -12 <(nm -g --defined-only build/libquern.a 2>/dev/null | awk 'NF == 3 {print $3}' | sort -u) \
        <(for l in libc.so.6 libm.so.6; do nm -D --defined-only "$(gcc -print-file-name=$l)" | awk '{sub(/@.*/, "", $3); print $3}'; done | sort -u))
    [ -z "$hits" ] || { echo "$hits"; complain "global names of libc are defined again"; }
fi

fmt=$(command -v clang-format-14 || command -v clang-format)
# shellcheck disable=SC2086
"$fmt" --dry-run -Werror $sources >/tmp/quern-format.$$ 2>&1 || { head -20 /tmp/quern-format.$$; complain "run make format"; }
rm -f /tmp/quern-format.$$

cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -j2 -I. \
    --suppress=missingIncludeSystem --suppress=unknownMacro --suppress=preprocessorErrorDirective \
    base config engine server kernels/*.c || complain "cppcheck"

# shellcheck disable=SC2046
shellcheck $(git ls-files '*.sh') .ci/run || complain "shellcheck"
[ $bad = 0 ] && echo "lint: ok"
exit $bad
