#!/usr/bin/env python3
"""Writes tests/data/tokenizer: reduced vocabularies in every form we read, and what Hugging Face's
tokenizers makes of seeded texts with each.

  make_tokenizer_golden.py --vocab vocab.json --merges merges.txt     (those of any Qwen2 checkpoint)

The vocabularies hold the 256 bytes and the first MERGES merges of Qwen2:
  qwen/        vocab.json, merges.txt, tokenizer_config.json (the oldest form)
  qwen.json    the same as tokenizer.json, merges as texts
  odd.json     merges as pairs, ByteLevel with its own expression, added tokens with every flag
  qwen35.gguf  tokenizer.ggml.* with pre "qwen35", control, user-defined and unused tokens
  ../../fuzz/tokenizer, ../../fuzz/output: seeds for the fuzz targets
  cases.jsonl  {"t": text, "n": its NFC if that differs, "qwen"|"odd"|"qwen35": ids}"""
import argparse
import json
import os
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../e2e"))
from gguf_file import gguf
from tokenizer_texts import texts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join(ROOT, "tests", "data", "tokenizer")
MERGES = 1200
N_TEXTS = 600
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
# text: single_word, lstrip, rstrip, normalized, special
ODD = {"<|im_end|>": (0, 0, 0, 0, 1), "<|im_start|>": (0, 0, 1, 0, 1), "<think>": (0, 1, 1, 0, 0), "word": (1, 0, 0, 1, 0),
       "the": (1, 0, 0, 0, 0), "caf\u00e9": (0, 0, 0, 1, 0), "e\u0301!": (0, 0, 0, 1, 1), "|>": (0, 1, 0, 0, 0), "<|": (0, 0, 0, 0, 0),
       "\u4e2d": (1, 1, 0, 1, 0), "\u212b": (0, 0, 0, 1, 0)}


def tokenizer(vocab, merges, pattern, added):
    t = Tokenizer(models.BPE(dict(vocab), list(merges)))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    for text, special in added:
        a = AddedToken(text, normalized=False, special=special)
        (t.add_special_tokens if special else t.add_tokens)([a])
    return t


def odd_tokenizer(vocab, merges):
    t = Tokenizer(models.BPE(dict(vocab), list(merges)))
    t.normalizer = normalizers.Sequence([normalizers.NFC()])
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    for text, (single, left, right, normalized, special) in ODD.items():
        a = AddedToken(text, single_word=bool(single), lstrip=bool(left), rstrip=bool(right), normalized=bool(normalized),
                       special=bool(special))
        (t.add_special_tokens if special else t.add_tokens)([a])
    return t


def seeds(names, merges, config):
    """Small files that load, so that fuzzing starts behind the loader."""
    for sub in ("tokenizer", "output"):
        os.makedirs(os.path.join(ROOT, "tests", "fuzz", sub), exist_ok=True)

    def put(name, data):
        with open(os.path.join(ROOT, "tests", "fuzz", name), "wb") as f:
            f.write(data)

    vocab = {k: i for i, k in enumerate(names[: 256 + 12])}
    t = odd_tokenizer(vocab, merges[:12])
    put("tokenizer/odd.json", t.to_str().encode("utf8"))
    t = tokenizer(vocab, merges[:12], QWEN2, [(x, True) for x in CONTROL] + [(x, False) for x in USER])
    plain = json.loads(t.to_str())
    plain["model"]["merges"] = ["%s %s" % m for m in merges[:12]]
    put("tokenizer/qwen.json", json.dumps(plain, ensure_ascii=False).encode("utf8"))
    put("tokenizer/config.json", json.dumps(config).encode("utf8"))
    put("output/think", b"\x09\x03STOP\0<think>\na\n</think>\n\nb STOP c")
    put("output/open", b"\x1a\x05fox\0brown fox j\0\xc3\xa9\0a </th</think> the brown fox \xe4\xbd\xa0\xff")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--vocab", required=True)
    a.add_argument("--merges", required=True)
    args = a.parse_args()
    os.makedirs(os.path.join(OUT, "qwen"), exist_ok=True)
    full = json.load(open(args.vocab, encoding="utf8"))
    lines = [x.rstrip("\n") for x in open(args.merges, encoding="utf8") if not x.startswith("#version") and x.strip()]
    merges = [tuple(x.split(" ")) for x in lines[:MERGES]]
    names = [k for k, v in sorted(full.items(), key=lambda x: x[1]) if v < 256] + ["".join(m) for m in merges]
    vocab = {k: i for i, k in enumerate(names)}

    q = os.path.join(OUT, "qwen")
    json.dump(vocab, open(os.path.join(q, "vocab.json"), "w", encoding="utf8"), ensure_ascii=False)
    open(os.path.join(q, "merges.txt"), "w", encoding="utf8").write("#version: 0.2\n" + "".join("%s %s\n" % m for m in merges))
    added = [(x, True) for x in CONTROL] + [(x, False) for x in USER]
    flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False)
    config = {"add_prefix_space": False,
              "added_tokens_decoder": {str(len(vocab) + i): dict(content=x, special=sp, **flags) for i, (x, sp) in enumerate(added)},
              "bos_token": None, "chat_template": [{"name": "other", "template": "x"}, {"name": "default", "template": TEMPLATE}],
              "eos_token": {"content": "<|im_end|>", "__type": "AddedToken"}, "pad_token": "<|endoftext|>",
              "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}
    json.dump(config, open(os.path.join(q, "tokenizer_config.json"), "w", encoding="utf8"), indent=1)

    hf = {"qwen": tokenizer(vocab, merges, QWEN2, added), "odd": odd_tokenizer(vocab, merges)}
    hf["odd"].save(os.path.join(OUT, "odd.json"), pretty=False)
    plain = json.loads(hf["qwen"].to_str())
    plain["model"]["merges"] = ["%s %s" % m for m in merges]
    json.dump(plain, open(os.path.join(OUT, "qwen.json"), "w", encoding="utf8"), ensure_ascii=False)

    unused = ["[PAD%d]" % i for i in range(len(vocab) + len(added), len(vocab) + len(added) + 5)]
    pairs = [("general.architecture", "qwen35"), ("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "qwen35"),
             ("tokenizer.ggml.tokens", names + CONTROL + USER + unused),
             ("tokenizer.ggml.token_type", [1] * len(names) + [3] * len(CONTROL) + [4] * len(USER) + [5] * len(unused)),
             ("tokenizer.ggml.merges", ["%s %s" % m for m in merges]), ("tokenizer.ggml.eos_token_id", len(vocab) + 2),
             ("tokenizer.ggml.bos_token_id", len(vocab)), ("tokenizer.ggml.padding_token_id", len(vocab)),
             ("tokenizer.ggml.add_bos_token", False), ("tokenizer.chat_template", TEMPLATE)]
    with open(os.path.join(OUT, "qwen35.gguf"), "wb") as f:
        f.write(gguf(pairs))
    hf["qwen35"] = tokenizer(vocab, merges, QWEN35, added)

    seeds(names, merges, config)
    given = [t[:40] for t in texts(N_TEXTS, 2024)]
    with open(os.path.join(OUT, "cases.jsonl"), "w", encoding="utf8") as f:
        for t in given:
            case = {"t": t}
            nfc = normalizers.NFC().normalize_str(t)
            if nfc != t:
                case["n"] = nfc
            for name, h in hf.items():
                case[name] = h.encode(t, add_special_tokens=False).ids
            f.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
