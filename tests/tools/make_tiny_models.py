#!/usr/bin/env python3
"""Tiny random Qwen checkpoints and what Hugging Face transformers computes with them in fp32.

usage: make_tiny_models.py OUT_DIR        (tests/data/models)

Every model is a directory that transformers itself saved: config*.json, model.safetensors,
golden.json and golden.bin.  golden.json lists cases: the configuration file to use (rope variants
share the weights), the prompt, the positions whose logits are kept (f32, little endian, row after
row in golden.bin from byte `offset`), and the ids greedy decoding adds.  Deterministic.
Needs PyPI torch (CPU is enough), transformers, safetensors.
"""
import json
import os
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config


def randomise(model, seed):
    """Weights of a trained-looking scale: unit gain per matrix, norms about 1, visible biases."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            if name.endswith("norm.weight"):
                p.copy_(1 + 0.2 * r)
            elif name.endswith(".bias"):
                p.copy_(0.5 * r)
            elif "embed_tokens" in name or "lm_head" in name:
                p.copy_(r if "embed" in name else r * p.shape[1] ** -0.5 * 3)
            else:
                p.copy_(r * p.shape[1] ** -0.5 * 1.5)


def save(out, config, dtype, seed, extra=None):
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomise(model, seed)
    model = model.to(dtype)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    model.save_pretrained(out)
    path = os.path.join(out, "model.safetensors")
    tensors = load_file(path)
    if extra:
        tensors.update(extra(tensors))
    save_file(tensors, path, metadata={"format": "pt"})
    trim(os.path.join(out, "config.json"))
    gen = os.path.join(out, "generation_config.json")
    if os.path.exists(gen):
        os.remove(gen)


def trim(path, **change):
    """Rewrites a config without the version that wrote it and with the released files' spelling."""
    with open(path) as f:
        c = json.load(f)
    c.pop("transformers_version", None)
    rope = c.pop("rope_parameters", None) or {}
    c["rope_theta"] = rope.pop("rope_theta", 10000.0)
    c["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    c["torch_dtype"] = c.pop("dtype", "float32")
    c.update(change)
    with open(path, "w") as f:
        json.dump(c, f, indent=1, sort_keys=True)
        f.write("\n")


def load(out, config_name):
    """The model as transformers loads the directory with that configuration file."""
    tmp = out + ".tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    shutil.copytree(out, tmp)
    shutil.copy(os.path.join(out, config_name), os.path.join(tmp, "config.json"))
    m = AutoModelForCausalLM.from_pretrained(tmp, dtype=torch.float32, attn_implementation="eager")
    shutil.rmtree(tmp)
    return m.eval()


def prompt_ids(n, vocab, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab, (n,), generator=g).tolist()


def golden(out, cases):
    """cases: (name, config file, prompt length, keep every k-th position, greedy count)."""
    blob, rows = b"", []
    for i, (name, cfg, n, every, n_greedy) in enumerate(cases):
        m = load(out, cfg)
        ids = prompt_ids(n, m.config.vocab_size, 1000 + i)
        with torch.no_grad():
            logits = m(torch.tensor([ids]), use_cache=False).logits[0]
            keep = [p for p in range(n) if p % every == every - 1 or p == n - 1]
            more, seq = [], list(ids)
            for _ in range(n_greedy):
                nxt = m(torch.tensor([seq]), use_cache=False).logits[0, -1].topk(2)
                # A tie would make the expected id a matter of rounding.
                assert nxt.values[0] - nxt.values[1] > 1e-2, (out, name)
                more.append(int(nxt.indices[0]))
                seq.append(more[-1])
        rows.append({"name": name, "config": cfg, "ctx": n + n_greedy, "prompt": ids,
                     "positions": keep, "offset": len(blob), "greedy": more})
        blob += logits[keep].contiguous().numpy().astype("<f4").tobytes()
    with open(os.path.join(out, "golden.bin"), "wb") as f:
        f.write(blob)
    text = json.dumps({"transformers": transformers.__version__, "cases": rows})
    with open(os.path.join(out, "golden.json"), "w") as f:
        f.write(text.replace('{"name"', '\n{"name"') + "\n")


def variant(out, name, **change):
    path = os.path.join(out, "config-%s.json" % name)
    shutil.copy(os.path.join(out, "config.json"), path)
    with open(path) as f:
        c = json.load(f)
    c.update(change)
    with open(path, "w") as f:
        json.dump(c, f, indent=1, sort_keys=True)
        f.write("\n")


def main():
    root = sys.argv[1]
    common = dict(hidden_act="silu", use_sliding_window=False, bos_token_id=1, eos_token_id=2,
                  rms_norm_eps=1e-6, rope_theta=1e6)

    # Seven query heads on one key head, tied, ff and vocabulary odd.
    out = os.path.join(root, "qwen2-gqa7")
    save(out, Qwen2Config(hidden_size=48, intermediate_size=77, num_hidden_layers=2,
                          num_attention_heads=7, num_key_value_heads=1, head_dim=32,
                          vocab_size=293, max_position_embeddings=32, tie_word_embeddings=True,
                          **common), torch.bfloat16, 1)
    variant(out, "linear", rope_scaling={"type": "linear", "factor": 3.0})
    variant(out, "dynamic", rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    golden(out, [("plain", "config.json", 24, 1, 16),
                 ("linear", "config-linear.json", 70, 9, 8),
                 ("dynamic", "config-dynamic.json", 75, 9, 0)])

    # Untied, as many key heads as query heads, another epsilon and theta, f32 on disk.
    out = os.path.join(root, "qwen2-untied")
    save(out, Qwen2Config(hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                          num_attention_heads=2, num_key_value_heads=2, vocab_size=161,
                          max_position_embeddings=128, tie_word_embeddings=False,
                          **{**common, "rms_norm_eps": 1e-5, "rope_theta": 1e4}),
         torch.float32, 2)
    golden(out, [("plain", "config.json", 24, 1, 16)])

    # Qwen3: norms on every q and k head, head_dim * heads (128) far from hidden (40).
    out = os.path.join(root, "qwen3")
    save(out, Qwen3Config(hidden_size=40, intermediate_size=60, num_hidden_layers=3,
                          num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                          vocab_size=257, max_position_embeddings=320, tie_word_embeddings=True,
                          attention_bias=False, **common), torch.bfloat16, 3)
    yarn = {"factor": 4.0, "original_max_position_embeddings": 64}
    variant(out, "yarn", rope_scaling={"rope_type": "yarn", **yarn})
    variant(out, "yarn-type", rope_scaling={"type": "yarn", **yarn, "beta_fast": 16.0,
                                            "attention_factor": 1.25})
    golden(out, [("plain", "config.json", 24, 1, 16),
                 ("long", "config.json", 300, 50, 0),
                 ("yarn", "config-yarn.json", 200, 25, 8),
                 ("yarn-type", "config-yarn-type.json", 90, 15, 4)])

    # Qwen3 with attention_bias: q, k, v and o have biases.  head_dim 64, untied, f16 on disk.
    out = os.path.join(root, "qwen3-bias")
    save(out, Qwen3Config(hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                          num_attention_heads=2, num_key_value_heads=1, head_dim=64,
                          vocab_size=128, max_position_embeddings=64, tie_word_embeddings=False,
                          attention_bias=True, **common), torch.float16, 4)
    golden(out, [("plain", "config.json", 24, 1, 16)])

    # The config says tied, the file holds another lm_head.weight: transformers then does not tie.
    out = os.path.join(root, "qwen2-tie-differs")
    save(out, Qwen2Config(hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                          num_attention_heads=1, num_key_value_heads=1, vocab_size=67,
                          max_position_embeddings=64, tie_word_embeddings=True, **common),
         torch.bfloat16, 5,
         extra=lambda t: {"lm_head.weight": t["model.embed_tokens.weight"].flip(0).contiguous()})
    golden(out, [("plain", "config.json", 16, 1, 8)])


if __name__ == "__main__":
    main()
