#!/bin/sh
# From nothing to the served checkpoint: tokenizer, training, export, scores, independent check.
# Needs Python 3.11 or newer with torch, numpy, jinja2 and regex, and a C++ compiler for
# torch.compile.  About 1 h 30 min on two free cores.
#   PY=python3      the interpreter
#   WORK=DIR        for tokenizer, checkpoint and logs; an interrupted run goes on there
#   MINUTES=82      training time
#   OUT=..          the model folder to write
#   GOLDEN=FILE     answers for the server's tests
set -e
cd "$(dirname "$0")"
PY=${PY:-python3} WORK=${WORK:-../../../build/demo} MINUTES=${MINUTES:-82} OUT=${OUT:-..}
GOLDEN=${GOLDEN:-../../../tests/data/demo_golden.json}
export GOMP_SPINCOUNT=2000      # on shared cores OpenMP's default spinning costs up to 30 times
mkdir -p "$WORK"
[ -f "$WORK/tokenizer.json" ] || $PY bpe.py "$WORK/tokenizer.json" 2048
set --
if [ -f "$WORK/main.pt" ]; then set -- --resume; fi
$PY train.py --tokenizer "$WORK/tokenizer.json" --out "$WORK/main.pt" --minutes "$MINUTES" "$@"
$PY export.py "$WORK/main.pt" "$WORK/tokenizer.json" "$OUT"
$PY evaluate.py "$WORK/main.pt" "$WORK/tokenizer.json" --cases 80 --json "$WORK/scores.json"
$PY npcheck.py "$OUT" "$GOLDEN" "$WORK/main.pt"
