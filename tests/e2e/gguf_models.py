"""The checkpoints of pooled_models.py as the GGUF files that llama.cpp's converter makes of their kind: its names of
tensors and keys, norms and biases in F32, matrices in F16 or F32, a vector's pooling in *.pooling_type, a reranker's
two rows in cls.output.weight.  Written from the directory by this file alone, so that reading it is tested by
something that is not ours."""
import json
import os
import struct

from gguf_file import gguf
from pooled_models import END, NO, YES, read_tensors

MEAN, CLS, LAST, RANK = 1, 2, 3, 4
F32, F16 = 0, 1
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
GLOBAL = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "score": "cls.output"}


def read_json(directory, name):
    with open(os.path.join(directory, name)) as f:
        return json.load(f)


def name_of(name):
    stem, suffix = name.removeprefix("model.").rsplit(".", 1)
    if not stem.startswith("layers."):
        return f"{GLOBAL[stem]}.{suffix}"
    _, layer, rest = stem.split(".", 2)
    return f"blk.{layer}.{LAYER[rest]}.{suffix}"


def as_f32(dtype, data):
    n = len(data) // (2 if dtype == "F16" else 4)
    return data if dtype == "F32" else struct.pack(f"<{n}f", *struct.unpack(f"<{n}e", data))


def tensors_of(directory, matrices):
    out = []
    for name, (dtype, shape, data) in read_tensors(directory + "/model.safetensors").items():
        half = matrices == F16 and len(shape) == 2 and dtype == "F16"
        out.append((name_of(name), shape[::-1], F16 if half else F32, data if half else as_f32(dtype, data)))
    return out


def hyper_keys(c, arch):
    head = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    return [(f"{arch}.{k}", v) for k, v in {
        "block_count": c["num_hidden_layers"], "context_length": c["max_position_embeddings"],
        "embedding_length": c["hidden_size"], "feed_forward_length": c["intermediate_size"],
        "attention.head_count": c["num_attention_heads"], "attention.head_count_kv": c["num_key_value_heads"],
        "attention.key_length": head, "attention.value_length": head, "rope.freq_base": float(c["rope_theta"]),
        "attention.layer_norm_rms_epsilon": c["rms_norm_eps"]}.items()]


def tokenizer_keys(directory, n, ends):
    """ends: the token behind a text is the end token, as the converter says since it reads the post-processor."""
    t = read_json(directory, "tokenizer.json")
    tokens, kinds = [f"[PAD{i}]" for i in range(n)], [5] * n
    for token, i in t["model"]["vocab"].items():
        tokens[i], kinds[i] = token, 1
    for a in t["added_tokens"]:
        tokens[a["id"]], kinds[a["id"]] = a["content"], 3 if a["special"] else 4
    merges = [m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]]
    end, turn = tokens.index(END), tokens.index("<|im_end|>")
    config = read_json(directory, "tokenizer_config.json")
    return [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "qwen2"), ("tokenizer.ggml.tokens", tokens),
            ("tokenizer.ggml.token_type", kinds), ("tokenizer.ggml.merges", merges),
            ("tokenizer.ggml.eos_token_id", end if ends else turn), ("tokenizer.ggml.eot_token_id", turn),
            ("tokenizer.ggml.padding_token_id", end), ("tokenizer.ggml.bos_token_id", end),
            ("tokenizer.ggml.add_bos_token", False), *([("tokenizer.ggml.add_eos_token", True)] if ends else []),
            ("tokenizer.chat_template", config["chat_template"])]


def convert(directory, path, *more, matrices=F16, ends=False, judge=None, drop=()):
    """more: further pairs, with '*' for the architecture; judge: the rows of the output matrix that cls.output.weight
    holds, in that order; drop: names of tensors to leave out."""
    c = read_json(directory, "config.json")
    arch = c["model_type"]
    tensors = [t for t in tensors_of(directory, matrices) if t[0] not in drop]
    if judge:
        _, dims, kind, data = next(t for t in tensors if t[0] == "token_embd.weight")
        row = len(data) // dims[1]
        rows = b"".join(data[row * i:row * (i + 1)] for i in judge)
        tensors.append(("cls.output.weight", [dims[0], len(judge)], kind, rows))
    pairs = [("general.architecture", arch), ("general.type", "model"), *hyper_keys(c, arch),
             *[(k.replace("*", arch), *v) for k, *v in more], *tokenizer_keys(directory, c["vocab_size"], ends)]
    with open(path, "wb") as f:
        f.write(gguf(pairs, tensors))
    return path


LABELS = "*.classifier.output_labels"
JUDGE = ('<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct '
         'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n'
         '<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n')
USUAL = "Given a web search query, retrieve relevant passages that answer the query"


def prompted(text):
    """The pairs of a file with a prompt for its judge."""
    return [("tokenizer.chat_templates", ["rerank"]), ("tokenizer.chat_template.rerank", text)]


# kind of checkpoint -> what the converter makes of it
KINDS = {
    "embedding": dict(more=[("*.pooling_type", LAST)], ends=True),
    "gte": dict(more=[("*.pooling_type", LAST), ("*.attention.causal", False)], ends=True),
    "mean": dict(more=[("*.pooling_type", MEAN)]),
    "reranker": dict(more=[("*.pooling_type", RANK), (LABELS, ["yes", "no"]), *prompted(JUDGE.replace("{instruction}", USUAL))],
                     judge=[YES, NO]),
    "classifier": dict(more=[("*.pooling_type", RANK)]),
    "words": dict(more=[("*.pooling_type", RANK)]),
}


def make(kind, directory, path, **changes):
    k = {**KINDS[kind], **changes}
    return convert(directory, path, *k.pop("more"), **k)
