#!/bin/bash
# Writes the recorded answers of tests/data, the seeds of tests/fuzz and engine/text/unicode_later.h
# again, with the reference libraries at the versions they were made with.  The venv lives in
# build/golden-venv and is made once; `git diff` then shows what changed.
#
# usage: tests/tools/golden.sh [STEP ...]       steps in order: json seeds unicode templates tokenizer
#                                               demo models pooled (all when none is named)
#   PYTHON=python3             the interpreter; unicode needs one of Unicode 14 (3.11)
#   QWEN2_VOCAB=vocab.json     vocabulary and merges of a Qwen2 checkpoint for the step tokenizer;
#   QWEN2_MERGES=merges.txt    without them it goes on from the reduced ones in the tree
# The steps models and pooled install torch (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares
# the CUDA libraries) and are the only heavy ones.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
venv=build/golden-venv
py=$venv/bin/python
torch=torch==2.15.0

say() { echo "golden: $*"; }

need() { # packages for pip
    [ -x "$py" ] || "$python" -m venv "$venv"
    "$py" -m pip install -q --disable-pip-version-check "$@"
}

# Writes a file from a command's output, and only if the command succeeds.
into() { # file, command ...
    local file=$1
    shift
    if "$@" >"$file.new"; then
        mv "$file.new" "$file"
    else
        rm -f "$file.new"
        return 1
    fi
}

step_json() {
    "$python" tests/tools/make_json_vectors.py
}

step_seeds() {
    "$python" tests/tools/make_fuzz_seeds.py
}

step_unicode() {
    local have
    have=$("$python" -c 'import unicodedata; print(unicodedata.unidata_version)')
    if [ "$have" != 14.0.0 ]; then
        say "unicode skipped: $python knows Unicode $have, 14.0.0 is needed (set PYTHON to a Python 3.11)"
        return
    fi
    need -r tests/tools/requirements.txt
    into engine/text/unicode_later.h "$py" tests/tools/unicode_later.py
    "$(command -v clang-format-14 || command -v clang-format)" -i engine/text/unicode_later.h
}

step_templates() {
    need -r tests/tools/requirements.txt
    "$py" tests/tools/template_compare.py --count 40 --seed 42 \
        --golden tests/data/templates/conversations.jsonl
}

step_tokenizer() {
    local vocab=${QWEN2_VOCAB:-} merges=${QWEN2_MERGES:-} tree=tests/data/tokenizer/qwen copy
    need -r tests/tools/requirements.txt
    if [ -n "$vocab" ] && [ -n "$merges" ]; then
        "$py" tests/tools/make_tokenizer_golden.py --vocab "$vocab" --merges "$merges"
        return
    fi
    say "tokenizer: cutting the vocabulary anew skipped: QWEN2_VOCAB and QWEN2_MERGES are not set"
    copy=$(mktemp -d)
    cp "$tree/vocab.json" "$tree/merges.txt" "$copy"
    "$py" tests/tools/make_tokenizer_golden.py --vocab "$copy/vocab.json" --merges "$copy/merges.txt"
    rm -r "$copy"
}

step_demo() {
    need -r tests/tools/requirements.txt
    "$py" models/demo/train/npcheck.py models/demo tests/data/demo_golden.json
}

step_models() {
    need -r tests/tools/requirements.txt "$torch"
    "$py" tests/tools/make_tiny_models.py tests/data/models
}

step_pooled() {
    need -r tests/tools/requirements.txt "$torch"
    "$py" tests/tools/make_pooled_golden.py tests/data/pooled_golden.json
}

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(json seeds unicode templates tokenizer demo models pooled)
for s in "${steps[@]}"; do
    if ! declare -F "step_$s" >/dev/null; then
        echo "golden.sh: no step '$s'; there are json seeds unicode templates tokenizer demo models pooled" >&2
        exit 2
    fi
done
for s in "${steps[@]}"; do
    say "$s"
    "step_$s"
done
[ $# -gt 0 ] || say "tests/data/quant_golden skipped: ggml's own C code wrote it, there is no generator here"
