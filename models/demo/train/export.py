"""Write the served checkpoint as Hugging Face would: export.py CHECKPOINT.pt TOKENIZER.json OUTDIR"""
import json
import os
import shutil
import struct
import sys

import numpy as np

import gen
from bpe import ADDED, Tokenizer
from model import EPS, MAX_POSITIONS, SIZES, THETA, load


def tensors_of(net):
    """Hugging Face names and layout; our fused q, k, v and gate, up are split."""
    s, c = net.state_dict(), net.c
    q, kv = c["nh"] * c["hd"], c["nkv"] * c["hd"]
    out = {"model.embed_tokens.weight": s["emb"], "model.norm.weight": s["norm"]}
    for i in range(c["L"]):
        theirs, ours = f"model.layers.{i}.", f"blocks.{i}."
        query, key, value = s[ours + "qkv"].split([q, kv, kv])
        gate, up = s[ours + "gu"].chunk(2)
        out.update({theirs + n + ".weight": t for n, t in {
            "self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": value,
            "self_attn.o_proj": s[ours + "o"], "self_attn.q_norm": s[ours + "qn"],
            "self_attn.k_norm": s[ours + "kn"], "mlp.gate_proj": gate, "mlp.up_proj": up,
            "mlp.down_proj": s[ours + "down"], "input_layernorm": s[ours + "ln1"],
            "post_attention_layernorm": s[ours + "ln2"]}.items()})
    return {n: np.ascontiguousarray(t.float().numpy().astype(np.float16)) for n, t in out.items()}


def write_safetensors(tensors, path):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for n in sorted(tensors):
        size = tensors[n].nbytes
        header[n] = dict(dtype="F16", shape=list(tensors[n].shape),
                         data_offsets=[offset, offset + size])
        offset += size
    h = json.dumps(header, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h)
        for n in sorted(tensors):
            f.write(tensors[n].tobytes())


def main():
    checkpoint, tokenizer, out = sys.argv[1:4]
    os.makedirs(out, exist_ok=True)
    (net, d), tok = load(checkpoint), Tokenizer(tokenizer)
    c, end, pad = SIZES[d["size"]], tok.added["<|im_end|>"], tok.added["<|endoftext|>"]

    def write(name, doc):
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            json.dump(doc, f, ensure_ascii=False, indent=2)
            f.write("\n")

    write("config.json", dict(
        architectures=["Qwen3ForCausalLM"], attention_bias=False, attention_dropout=0.0,
        bos_token_id=pad, eos_token_id=end, head_dim=c["hd"], hidden_act="silu",
        hidden_size=c["h"], initializer_range=0.02, intermediate_size=c["ff"],
        layer_types=["full_attention"] * c["L"], max_position_embeddings=MAX_POSITIONS,
        max_window_layers=c["L"], model_type="qwen3", num_attention_heads=c["nh"],
        num_hidden_layers=c["L"], num_key_value_heads=c["nkv"], rms_norm_eps=EPS,
        rope_scaling=None, rope_theta=int(THETA), sliding_window=None, tie_word_embeddings=True,
        torch_dtype="float16", transformers_version="4.56.0", use_cache=True,
        use_sliding_window=False, vocab_size=d["vocab"]))
    write("generation_config.json", dict(
        bos_token_id=pad, do_sample=True, eos_token_id=[end, pad], pad_token_id=pad,
        temperature=0.6, top_k=20, top_p=0.95, transformers_version="4.56.0"))
    write("tokenizer_config.json", dict(
        add_bos_token=False, add_prefix_space=False,
        added_tokens_decoder={str(tok.added[t]): dict(
            content=t, lstrip=False, normalized=False, rstrip=False, single_word=False,
            special=special) for t, special in ADDED},
        additional_special_tokens=["<|im_start|>", "<|im_end|>"], bos_token=None,
        chat_template=gen.TEMPLATE, clean_up_tokenization_spaces=False, eos_token="<|im_end|>",
        errors="replace", model_max_length=MAX_POSITIONS, pad_token="<|endoftext|>",
        split_special_tokens=False, tokenizer_class="Qwen2Tokenizer", unk_token=None))
    for source, name in ((tokenizer, "tokenizer.json"), (gen.TEMPLATE_PATH, "chat_template.jinja")):
        if os.path.abspath(source) != os.path.abspath(os.path.join(out, name)):
            shutil.copyfile(source, os.path.join(out, name))
    tensors = tensors_of(net)
    path = os.path.join(out, "model.safetensors")
    write_safetensors(tensors, path)
    print(f"{sum(t.size for t in tensors.values())} parameters, {len(tensors)} tensors, "
          f"{os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
