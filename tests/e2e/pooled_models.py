"""Checkpoints for embeddings and reranking, made of the demo model's files: the same weights with the
files around them that say what a model is for.  Used by the tests and by the tool that recorded what
transformers computes with them (tests/tools/make_pooled_golden.py)."""
import json
import os
import random
import shutil
import struct

DEMO = "models/demo"
YES, NO = 300, 301  # any two tokens judge as well as any others
END = "<|endoftext|>"


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(value, f)


def change_json(path, change):
    with open(path) as f:
        value = json.load(f)
    change(value)
    write_json(path, value)


def copy_demo(out):
    os.makedirs(out, exist_ok=True)
    for name in os.listdir(DEMO):
        if name.endswith((".json", ".jinja", ".safetensors")):
            shutil.copy(os.path.join(DEMO, name), out)
    return out


def read_tensors(path):
    """name -> (dtype, shape, bytes)"""
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    head.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
            for k, v in head.items()}


def write_tensors(path, tensors):
    head, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            f.write(data)


def pool_files(out, **mode):
    """modules.json and what it names, as sentence-transformers writes them."""
    st = "sentence_transformers.models."
    write_json(out + "/modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": st + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": st + "Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": st + "Normalize"}])
    write_json(out + "/1_Pooling/config.json", {
        "word_embedding_dimension": 192, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False, "pooling_mode_lasttoken": False, "include_prompt": True, **mode})


def append_end(out):
    """tokenizer.json puts the end token behind every text."""
    def change(t):
        t["post_processor"] = {"type": "Sequence", "processors": [t["post_processor"], {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": END, "type_id": 1}}],
            "special_tokens": {END: {"id": END, "ids": [2039], "tokens": [END]}}}]}
    change_json(out + "/tokenizer.json", change)


def embedding(out):
    """As Qwen3-Embedding comes: saved without a head, so tensors lack their prefix."""
    copy_demo(out)
    path = out + "/model.safetensors"
    write_tensors(path, {k.removeprefix("model."): v for k, v in read_tensors(path).items() if k != "lm_head.weight"})
    pool_files(out, pooling_mode_lasttoken=True)
    append_end(out)
    return out


def full(out):
    """As gte-Qwen2 comes: every token sees every other; the tokenizer's config asks for the end."""
    copy_demo(out)
    pool_files(out, pooling_mode_lasttoken=True)
    change_json(out + "/config.json", lambda c: c.update(is_causal=False))
    change_json(out + "/tokenizer_config.json", lambda c: c.update(add_eos_token=True, eos_token=END))
    return out


def gte(out):
    """The same of Qwen2's kind: no norms on heads, biases on q, k and v."""
    full(out)
    path = out + "/model.safetensors"
    tensors = {k: v for k, v in read_tensors(path).items() if not k.endswith(("q_norm.weight", "k_norm.weight"))}
    draw = random.Random(5)
    for name, (dtype, shape, _) in list(tensors.items()):
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            bias = [draw.uniform(-1, 1) for _ in range(shape[0])]
            tensors[name.replace("weight", "bias")] = (dtype, shape[:1], struct.pack(f"<{shape[0]}e", *bias))
    write_tensors(path, tensors)
    change_json(out + "/config.json", lambda c: c.update(architectures=["Qwen2ForCausalLM"], model_type="qwen2"))
    return out


def mean(out):
    """Causal, and the mean of all states: what newer files of sentence-transformers say in a word."""
    copy_demo(out)
    pool_files(out)
    write_json(out + "/1_Pooling/config.json", {"embedding_dimension": 192, "pooling_mode": "mean"})
    return out


def reranker(out):
    """As Qwen3-Reranker comes with sentence-transformers' files."""
    copy_demo(out)
    st = "sentence_transformers."
    write_json(out + "/modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": st + "base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_LogitScore", "type": st + "cross_encoder.modules.logit_score.LogitScore"}])
    write_json(out + "/1_LogitScore/config.json", {"true_token_id": YES, "false_token_id": NO})
    return out


def classifier(out):
    """The same as a Qwen3ForSequenceClassification: one row, the difference of the two."""
    copy_demo(out)
    path = out + "/model.safetensors"
    tensors = read_tensors(path)
    dtype, shape, data = tensors["model.embed_tokens.weight"]
    assert dtype == "F16"
    row = lambda i: struct.unpack(f"<{shape[1]}e", data[2 * shape[1] * i:2 * shape[1] * (i + 1)])
    score = [a - b for a, b in zip(row(YES), row(NO))]
    tensors["score.weight"] = ("F32", [1, shape[1]], struct.pack(f"<{shape[1]}f", *score))
    write_tensors(path, tensors)
    change_json(out + "/config.json", lambda c: c.update(architectures=["Qwen3ForSequenceClassification"],
                                                         id2label={"0": "LABEL_0"}))
    return out


def words(out):
    """As Qwen3-Reranker came first: only the model card says it, and 'yes' and 'no' judge."""
    copy_demo(out)
    def change(t):
        # 'yes' is made a token of its own by its merges; 'no' is one already.
        vocab, merges = t["model"]["vocab"], t["model"]["merges"]
        last = max(vocab, key=vocab.get)
        n = vocab.pop(last)
        pair = merges[-1] if isinstance(merges[-1], list) else merges[-1].split(" ")
        assert "".join(pair) == last, (pair, last)
        merges[-1] = ["y", "es"] if isinstance(merges[-1], list) else "y es"
        vocab["yes"] = n
    change_json(out + "/tokenizer.json", change)
    with open(out + "/README.md", "w") as f:
        f.write("---\nlicense: apache-2.0\npipeline_tag: text-ranking\n---\n# A reranker\n")
    return out
