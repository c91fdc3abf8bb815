#!/usr/bin/env python3
"""Writes the seed corpora tests/fuzz/{gguf,safetensors,config}: tiny, valid, one feature each."""
import json
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))
from gguf_file import gguf

ROOT = pathlib.Path(__file__).parent.parent / "fuzz"


def put(target, name, data):
    d = ROOT / target
    d.mkdir(parents=True, exist_ok=True)
    (d / name).write_bytes(data)


def counted(n):
    return bytes(i % 251 for i in range(n))


put("gguf", "empty", gguf([], []))
put("gguf", "types", gguf([("k%d" % k, k, v) for k, v in
                           [(0, 1), (1, -1), (2, 2), (3, -2), (4, 3), (5, -3), (6, 0.5), (7, 1), (8, "x"),
                            (10, 4), (11, -4), (12, 0.25)]]
                          + [("a%d" % k, 9, (k, v)) for k, v in
                             [(0, [1, 2]), (5, [1, -1]), (6, [0.5]), (7, [0, 1]), (8, ["", "a", "bc"]), (12, [])]],
                          [("f", [4], 0, counted(16)), ("h", [4, 2], 1, counted(16)), ("q", [32, 1], 8, counted(34)),
                           ("k", [256], 12, counted(144))]))
put("gguf", "model", gguf([("general.architecture", 8, "qwen2"), ("general.alignment", 4, 64),
                           ("qwen2.block_count", 4, 1), ("qwen2.embedding_length", 4, 8),
                           ("qwen2.feed_forward_length", 4, 8), ("qwen2.context_length", 4, 64),
                           ("qwen2.attention.head_count", 4, 2), ("qwen2.attention.head_count_kv", 4, 1),
                           ("qwen2.attention.layer_norm_rms_epsilon", 6, 1e-6), ("qwen2.rope.freq_base", 6, 1e6),
                           ("qwen2.rope.scaling.type", 8, "yarn"), ("qwen2.rope.scaling.factor", 6, 4.0),
                           ("qwen2.rope.scaling.original_context_length", 4, 16),
                           ("tokenizer.ggml.tokens", 9, (8, ["a", "b", "c"])),
                           ("tokenizer.ggml.eos_token_id", 4, 2)],
                          [("token_embd.weight", [8, 3], 0, counted(96)), ("output_norm.weight", [8], 0, counted(32))], 64))
put("gguf", "split", gguf([("split.no", 2, 0), ("split.count", 2, 1), ("split.tensors.count", 5, 1)],
                          [("t", [1], 30, counted(2))]))


def safetensors(header, n):
    h = json.dumps(header).encode()
    return struct.pack("<Q", len(h)) + h + counted(n)


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


put("safetensors", "one", safetensors({"a": entry("F32", [1], 0, 4)}, 4))
put("safetensors", "many", safetensors({"__metadata__": {"format": "pt"}, "a": entry("BF16", [2, 3], 0, 12),
                                        "b": entry("F8_E4M3", [2], 12, 14), "c": entry("I64", [], 14, 22),
                                        "d": entry("F32", [0, 5], 22, 22), "e": entry("NEW", [9], 22, 23),
                                        "f": entry("F4", [4], 23, 25)}, 25))

qwen = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 100,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "eos_token_id": [1, 2],
        "tie_word_embeddings": True, "use_sliding_window": False, "hidden_act": "silu", "temperature": 0.7,
        "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "do_sample": True}
put("config", "qwen2", json.dumps(qwen).encode())
put("config", "qwen3", json.dumps({**qwen, "model_type": "qwen3", "head_dim": 32, "attention_bias": False,
                                   "layer_types": ["full_attention"] * 2,
                                   "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
                                                       "original_max_position_embeddings": 128, "beta_fast": 32}}).encode())
put("config", "moe", json.dumps({"model_type": "qwen3_5_moe", "text_config": {**qwen, "num_experts": 8},
                                 "quantization_config": {"quant_method": "fp8"}}).encode())
put("config", "rope", b'{"type":"yarn","factor":4,"original_max_position_embeddings":32768,"attention_factor":1.1}')
put("config", "override", b'{"temperature":0,"top_k":-1,"eos_token_id":7,"min_p":0.05,"presence_penalty":1}')
