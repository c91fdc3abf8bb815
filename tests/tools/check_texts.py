#!/usr/bin/env python3
"""Validates random texts of `bench_masks texts` (standard input: id, tab, text, 0x1e) with
python-jsonschema against the schemas of the MaskBench slice.  Exit 1 if any is not valid.  A text
that has an undeclared key twice (J5 lets those repeat) is counted apart if that is why it fails: of
two members a reader keeps one.
usage: build/bench/bench_masks texts 500 | tests/tools/check_texts.py [SLICE.jsonl.xz]"""
import collections
import json
import lzma
import pathlib
import sys
import warnings

import jsonschema

warnings.simplefilter("ignore")
SLICE = pathlib.Path(__file__).parents[1] / "data/grammar/maskbench-open.jsonl.xz"


def schemas(path):
    with lzma.open(path, "rt", encoding="utf-8") as f:
        return {o["id"]: o["schema"] for o in map(json.loads, f)}


def members(pairs):
    """An object, with a mark if a key came twice."""
    out = dict(pairs)
    if len(out) < len(pairs):
        members.repeated = True
    return out


def faults(texts, known):
    """(id, what is wrong) of every text that its schema refuses, and how many were looked at."""
    count, wrong, validators = collections.Counter(), [], {}
    for raw in texts.split(b"\x1e")[:-1]:
        name, text = raw.split(b"\t", 1)
        name = name.decode()
        count["texts"] += 1
        if name not in validators:
            schema = known[name]
            kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
            validators[name] = kind(schema)
        members.repeated = False
        try:
            value = json.loads(text.decode("utf-8"), object_pairs_hook=members)
            error = next(validators[name].iter_errors(value), None)
        except (ValueError, RecursionError) as e:
            error = e
        except Exception as e:  # a schema that python-jsonschema itself cannot run
            count["not judged: " + type(e).__name__] += 1
            continue
        if error is not None and members.repeated:
            count["not valid, with an undeclared key twice"] += 1
        elif error is not None:
            wrong.append((name, str(error)[:300], text[:200]))
    count["schemas"] = len(validators)
    return wrong, count


if __name__ == "__main__":
    bad, counted = faults(sys.stdin.buffer.read(), schemas(sys.argv[1] if len(sys.argv) > 1 else SLICE))
    for name, what, text in bad:
        print(f"{name}: {what}\n    {text}")
    print(dict(counted), "not valid:", len(bad))
    sys.exit(bool(bad) or not counted["texts"])
