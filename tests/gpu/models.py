#!/usr/bin/env python3
"""Whole models with made-up weights through `quern bench`, against what the device cannot beat:
a decode step reads all weights and the context's keys and values once, and multiplies; a prefill multiplies.

usage: tests/gpu/models.py QUERN [--small] [NAME[:KIND[,KIND]] ...]
  --small: the smallest shape on the emulator, few tokens;  Qwen2.5-7B:BF16,Q4_K: that model in those types only
GBS (reads) and TFLOPS (bf16) in the environment say what to count on, as measured by the part "roofs"; else the
data sheet's.
Prints a line a run; a model that does not fit is said so.  Exits 1 if a run fails for another reason."""
import json, os, re, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
LARGE = os.path.join(HERE, "..", "data", "configs")
MODELS = [(os.path.join(HERE, "configs", "Qwen2.5-7B"), ["BF16", "Q8_0", "Q4_K"]),
          (os.path.join(LARGE, "Qwen2.5-32B"), ["BF16", "Q8_0", "Q4_K"]),
          (os.path.join(LARGE, "Qwen2.5-72B"), ["Q8_0", "Q4_K"])]
BITS = {"BF16": 16, "F16": 16, "Q8_0": 8.5, "Q4_K": 4.5, "Q6_K": 6.5625, "Q4_0": 4.5}
SHEETS = [("H200", 4800, 989), ("H100", 3350, 989), ("A100", 2039, 312), ("4090", 1008, 165), ("B200", 8000, 2250)]
DECODE, PREFILL, CTX = [1, 8, 32, 128], [512, 2048, 8192], 1024
SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 1024, "max_window_layers": 2}


def sizes(c):
    """Weights of the layers, of the head; KV values a token; attention multiply-adds a token and context token."""
    h, ff, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    d = c.get("head_dim") or h // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    return layers * (h * (q + 2 * kv) + q * h + 3 * h * ff), c["vocab_size"] * h, 2 * layers * kv, 2 * layers * q


def decode_floor(c, kind, batch, ctx, gbs, tflops):
    body, head, kv, attn = sizes(c)
    bytes_ = (body + head) * BITS[kind] / 8 + batch * ctx * kv * 2
    flops = 2 * batch * (body + head + ctx * attn)
    return max(bytes_ / (gbs * 1e9), flops / (tflops * 1e12))


def prefill_floor(c, n, tflops):
    body, head, _, attn = sizes(c)
    return (2 * (n * body + head) + n * n * attn) / (tflops * 1e12)


def roofs(report):
    name = report.get("device", "")
    sheet = next((s for s in SHEETS if s[0] in name), ("", 0, 0))
    gbs = float(os.environ.get("GBS") or sheet[1])
    tflops = float(os.environ.get("TFLOPS") or sheet[2])
    return gbs, tflops


def bench(quern, folder, kind, decode, prefill, ctx, extra):
    args = [quern, "bench", folder, "--dummy-weights", "--dummy-type", kind, "--json", "--ctx", str(ctx),
            "--decode-batches", ",".join(map(str, decode)), "--prefill-tokens", ",".join(map(str, prefill))] + extra
    r = subprocess.run(args, capture_output=True, text=True)
    if r.returncode:
        return None, (r.stderr.strip().split("\n") or [""])[-1]
    return json.loads(r.stdout), ""


def show(what, seconds, rate, floor):
    share = "%6.1f %% of the roof" % (100 * floor / seconds) if floor else ""
    print("%-34s %10.3f ms %10.1f tok/s  %s" % (what, seconds * 1e3, rate, share), flush=True)


def run(quern, folder, kind, decode, prefill, ctx, extra):
    name = os.path.basename(folder)
    report, why = bench(quern, folder, kind, decode, prefill, ctx, extra)
    if report is None:
        print("%-34s not run: %s" % (name + " " + kind, why))
        return bool(re.search(r"memory|fit|lower --|GiB|MiB", why))
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        c = json.load(f)
    gbs, tflops = roofs(report)
    for d in report["decode"]:
        s = d["batch"] / d["tok_s"]
        floor = decode_floor(c, kind, d["batch"], ctx, gbs, tflops) if gbs and tflops else 0
        show("%s %s decode %d x %d" % (name, kind, d["batch"], ctx), s, d["tok_s"], floor)
    for p in report["prefill"]:
        s = p["tokens"] / p["tok_s"]
        show("%s %s prefill %d" % (name, kind, p["tokens"]), s, p["tok_s"],
             prefill_floor(c, p["tokens"], tflops) if tflops else 0)
    return True


def check_self():
    """The floors of Qwen2.5-7B on a 4.8 TB/s, 989 TFLOP/s device, as worked out by hand."""
    with open(os.path.join(MODELS[0][0], "config.json"), encoding="utf-8") as f:
        c = json.load(f)
    assert abs(decode_floor(c, "BF16", 1, 1000, 4800, 989) * 1e3 - 2.96) < 0.02
    assert abs(prefill_floor(c, 8192, 989) * 1e3 - 122) < 2


def chosen(words):
    """MODELS, or what of them the words name."""
    if not words:
        return MODELS
    folders = {os.path.basename(folder): (folder, kinds) for folder, kinds in MODELS}
    out = []
    for word in words:
        name, _, kinds = word.partition(":")
        out.append((folders[name][0], kinds.split(",") if kinds else folders[name][1]))
    return out


def main():
    check_self()
    quern, small = sys.argv[1], "--small" in sys.argv
    print("\n== whole models, made-up weights")
    if not small:
        ok = [run(quern, folder, kind, DECODE, PREFILL, CTX, ["--device", "cuda"])
              for folder, kinds in chosen(sys.argv[2:]) for kind in kinds]
        return 0 if all(ok) else 1
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(MODELS[0][0], "config.json"), encoding="utf-8") as f:
            c = dict(json.load(f), **SMALL)
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
            json.dump(c, f)
        ok = [run(quern, folder, kind, [1, 2], [20], 16, ["--device", "cuda-emu", "--reps", "1"])
              for kind in ("BF16", "Q8_0")]
    return 0 if all(ok) else 1


if __name__ == "__main__":
    sys.exit(main())
