#!/usr/bin/env python3
"""What transformers computes in fp32 with the checkpoints of tests/e2e/pooled_models.py.

usage: make_pooled_golden.py OUT.json        (tests/data/pooled_golden.json; run in the tree's root)

Needs PyPI torch (CPU is enough) and transformers.
"""
import json
import os
import sys
import tempfile

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../e2e"))
import pooled_models as make

TEXTS = ["Hello world", "The capital of France is Paris.", "Ünïcödé – 你好,世界! 🙂",
         " ".join(f"word {i} of a longer text" for i in range(40))]
DOCUMENTS = ["Paris is the capital of France.", "Cats sleep a lot.", "\nParis!", ""]
PAIRS = [("What is the capital of France?", d) for d in DOCUMENTS]
FRAME = ("<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
         "provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n"
         "<Instruct>: {i}\n<Query>: {q}\n<Document>: {d}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


def rounded(v):
    return [float(f"{x:.7g}") for x in v]


def states(model, ids, full=False):
    n = len(ids)
    mask = torch.zeros(1, 1, n, n) if full else None
    with torch.no_grad():
        out = model.model(torch.tensor([ids]), attention_mask=mask, use_cache=False)
    return out.last_hidden_state[0]


def unit(v):
    return rounded((v / v.norm()).tolist())


def main():
    golden = {"transformers": transformers.__version__, "texts": TEXTS, "documents": DOCUMENTS}
    with tempfile.TemporaryDirectory() as tmp:
        model = AutoModelForCausalLM.from_pretrained(make.DEMO, dtype=torch.float32, attn_implementation="eager").eval()
        plain = AutoTokenizer.from_pretrained(make.DEMO)
        tok = AutoTokenizer.from_pretrained(make.embedding(tmp + "/e"))
        end = [tok(t)["input_ids"] for t in TEXTS]
        assert all(ids[-1] == 2039 for ids in end)
        golden["tokens"] = [len(ids) for ids in end]
        golden["embedding"] = [unit(states(model, ids)[-1]) for ids in end]
        golden["full"] = [unit(states(model, ids, full=True)[-1]) for ids in end]
        golden["mean"] = [unit(states(model, plain(t)["input_ids"]).mean(0)) for t in TEXTS]
        query = tok("Instruct: Find the text\nQuery:" + TEXTS[0])["input_ids"]
        golden["instructed"] = unit(states(model, query)[-1])
        golden["cut"] = unit(states(model, end[1])[-1][:64])
        scores = []
        for q, d in PAIRS:
            text = FRAME.format(i=INSTRUCTION, q=q, d=d)
            with torch.no_grad():
                logits = model(torch.tensor([plain(text)["input_ids"]]), use_cache=False).logits[0, -1]
            scores.append(float(f"{torch.softmax(logits[[make.NO, make.YES]], 0)[1].item():.7g}"))
        golden["scores"] = scores
    with open(sys.argv[1], "w") as f:
        f.write("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in golden.items()) + "\n}\n")


if __name__ == "__main__":
    main()
