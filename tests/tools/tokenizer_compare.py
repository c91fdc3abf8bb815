#!/usr/bin/env python3
"""Token ids of `quern tokenize` against Hugging Face's tokenizers on seeded random texts, and texts of
`quern detokenize` on random ids.  Exit code 1 at the first difference.

  tokenizer_compare.py --quern build/quern --model MODEL --tokenizer tokenizer.json [--n 10000] [--seed 1]

MODEL is what quern takes (directory or GGUF); tokenizer.json the same vocabulary for Hugging Face."""
import argparse
import json
import random
import subprocess
import sys

from tokenizers import Tokenizer

from tokenizer_texts import GENERATORS, texts


def quern(args, command, lines):
    text = "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines)
    p = subprocess.run([args.quern, command, args.model, "--jsonl"], input=text.encode("utf8"), capture_output=True)
    if p.returncode:
        sys.exit("quern %s: exit code %d: %s" % (command, p.returncode, p.stderr.decode("utf8", "replace")))
    out = [json.loads(x) for x in p.stdout.decode("utf8").split("\n")[:-1]]
    assert len(out) == len(lines), (len(out), len(lines))
    return out


def compare(what, given, got, want):
    for i, (g, w) in enumerate(zip(got, want)):
        if g != w:
            print("%s %d differs\n  given %s\n  quern %s\n  want  %s" % (what, i, ascii(given[i]), g, w))
            sys.exit(1)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--quern", default="build/quern")
    a.add_argument("--model", required=True)
    a.add_argument("--tokenizer", required=True)
    a.add_argument("--n", type=int, default=10000)
    a.add_argument("--seed", type=int, default=1)
    args = a.parse_args()
    hf = Tokenizer.from_file(args.tokenizer)

    given = texts(args.n, args.seed)
    got = quern(args, "tokenize", given)
    want = [e.ids for e in hf.encode_batch(given, add_special_tokens=False)]
    compare("text", given, got, want)

    back = quern(args, "detokenize", got)
    compare("round trip", given, back, [hf.decode(x, skip_special_tokens=False) for x in want])

    r = random.Random(args.seed)
    known = [i for i in range(hf.get_vocab_size()) if hf.id_to_token(i) is not None]
    ids = [[r.choice(known if r.random() < 0.5 else known[:256]) for _ in range(r.randint(0, 20))] for _ in range(args.n // 4)]
    compare("ids", ids, quern(args, "detokenize", ids), [hf.decode(x, skip_special_tokens=False) for x in ids])
    print("equal: %d texts of %d generators (%d tokens), their round trips, %d id lists"
          % (len(given), len(GENERATORS), sum(map(len, got)), len(ids)))


main()
