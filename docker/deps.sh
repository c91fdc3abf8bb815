#!/bin/sh
# Installs what Quern needs.  usage: docker/deps.sh run|test|nvcc
#   run, test   Debian/Ubuntu packages; asks for root (sudo) only when something really is missing
#   nvcc        where no CUDA compiler is found: one from PyPI, into build/nvcc (400 MB, no root)
set -eu

# build/nvcc/nvidia/cu13 becomes what /usr/local/cuda is elsewhere.  Of cuBLAS, which is opened at run
# time, only the headers are kept.
if [ "${1:-}" = nvcc ]; then
    cd "$(dirname "$0")/.."
    for home in "${CUDA_HOME:-}" "$(dirname "$(readlink -f "$(command -v nvcc || echo /)")")/.." /usr/local/cuda; do
        if [ -x "$home/bin/nvcc" ] && [ -f "$home/include/cublasLt.h" ]; then exit 0; fi
    done
    want=$(md5sum <docker/nvcc-requirements.txt)
    [ "$(cat build/nvcc/.want 2>/dev/null || true)" != "$want" ] || exit 0
    tests/run-e2e.sh --prepare
    pip="build/venv/bin/pip --disable-pip-version-check -q"
    rm -rf build/nvcc
    $pip install --no-deps --target build/nvcc -r docker/nvcc-requirements.txt
    $pip download --no-deps -d build/nvcc/wheels nvidia-cublas==13.1.0.3
    build/venv/bin/python - build/nvcc <<'END'
import glob, sys, zipfile
for wheel in glob.glob(sys.argv[1] + "/wheels/*.whl"):
    with zipfile.ZipFile(wheel) as z:
        z.extractall(sys.argv[1], [n for n in z.namelist() if n.startswith("nvidia/cu13/include/")])
END
    rm -rf build/nvcc/wheels
    build/nvcc/nvidia/cu13/bin/nvcc --version | tail -2
    echo "$want" >build/nvcc/.want
    exit 0
fi

build="gcc g++ make pkg-config libmicrohttpd-dev libgnutls28-dev libcjson-dev libjemalloc-dev libpcre2-dev libutf8proc-dev libxxhash-dev"
check="check clang libclang-rt-dev clang-format cppcheck shellcheck curl openssl python3 python3-venv libopenmpi-dev openmpi-bin iproute2 xz-utils"

case "${1:-run}" in
run) want=$build ;;
test) want="$build $check" ;;
*) echo "usage: $0 run|test|nvcc" >&2; exit 2 ;;
esac

missing=
for p in $want; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || { echo "missing packages:$missing; install their equivalents, then run make again" >&2; exit 1; }
echo "installing missing packages:$missing"
sudo=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "run as root: apt-get install$missing" >&2; exit 1; }
    sudo=sudo
fi
# shellcheck disable=SC2086
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
