#!/bin/sh
# Installs the Debian/Ubuntu packages Quern needs.  usage: docker/deps.sh run|test
# Says what is missing; asks for root (sudo) only when something really is.
set -eu

build="gcc make pkg-config libmicrohttpd-dev libcjson-dev libjemalloc-dev libpcre2-dev libutf8proc-dev libxxhash-dev"
check="check clang libclang-rt-dev clang-format cppcheck shellcheck curl python3 python3-venv"

case "${1:-run}" in
run) want=$build ;;
test) want="$build $check" ;;
*) echo "usage: $0 run|test" >&2; exit 2 ;;
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
