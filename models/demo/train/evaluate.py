"""Scores per skill: greedy, the whole answer must be equal.

    evaluate.py CHECKPOINT.pt TOKENIZER.json [--cases N] [--json OUT] [--show K] [--only PREFIX]

"held-out": prompts (or number pairs) that training skipped; their parts may be known.
"unseen":   names, places and words training never showed, invented or from a list kept back."""
import argparse
import json
import re
import time

import torch

import gen
import skills
from bpe import Tokenizer
from draw import Draw
from model import load
from tools import PLACE_TOOLS

LIMIT = 256                     # tokens an answer may take
BATCH = 32
# title, skill as gen.case takes it, accepted case skills (None: any), split, unseen strings
ROWS = [
    ("facts, held-out prompts", skills.s_fact, None, "held", False),
    ("facts, trained prompts", skills.s_fact, None, "train", False),
    ("sums below 20, all pairs", skills.s_sum, ["sum"], None, False),
    ("sums below 20, held-out pairs", skills.s_sum, ["sum"], "held", False),
    ("differences, held-out pairs", skills.s_sum, ["diff"], "held", False),
    ("small talk", skills.s_talk, None, "train", False),
    ("count", skills.s_count, None, "held", False),
    ("echo", skills.s_echo, ["echo"], "held", False),
    ("echo, unseen words", skills.s_echo, ["echo"], None, True),
    ("spell", skills.s_echo, ["spell"], "held", False),
    ("JSON", skills.s_json, None, "held", False),
    ("JSON, unseen names", skills.json_extract, None, None, True),
    ("refuse", skills.s_refuse, None, "held", False),
    ("story", skills.s_story, None, "held", False),
    ("memory", "memory", ["memory"], "held", False),
    ("memory, unseen names", "memory", ["memory"], None, True),
    ("tool call", "tool-call", ["tool-call"], "held", False),
    ("tool call, unseen places", ("tool-call", PLACE_TOOLS), ["tool-call"], None, True),
    ("answer from tool result", "tool-result", ["tool-result"], "held", False),
    ("the same, unseen places", ("tool-result", PLACE_TOOLS), ["tool-result"], None, True),
    ("tools not needed", "tool-none", ["tool-none"], "held", False),
]


def cases(row, n, think, seed):
    _, skill, accept, split, unseen = row
    r, out = Draw(seed, unseen), []
    while len(out) < n:
        c = gen.case(r, skill, think, split)
        if accept is None or c["skill"] in accept:
            out.append(c)
    return out


def calls_of(text):
    """[(name, arguments)] of the tool calls in a text; None if one is not JSON."""
    try:
        found = [json.loads(b) for b in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.S)]
        return [(d["name"], d["arguments"]) for d in found]
    except (ValueError, KeyError, TypeError):
        return None


def judge(c, text):
    """(right, stopped with the right form)"""
    if not text.endswith("<|im_end|>"):
        return False, False
    body = text[:-len("<|im_end|>")]
    if c["think"]:
        if not body.startswith("<think>\n") or "\n</think>\n\n" not in body:
            return False, False
        body = body.split("\n</think>\n\n", 1)[1]
    elif c["soft"]:
        if not body.startswith(gen.EMPTY_THINK):
            return False, False
        body = body[len(gen.EMPTY_THINK):]
    if isinstance(c["want"], list):
        return calls_of(body) == c["want"], True
    return body == c["want"], True


def answers(net, tok, cs):
    """Greedy answers, cases of like length together."""
    prompts = [tok.encode(gen.prompt_of(c)) for c in cs]
    order, out = sorted(range(len(cs)), key=lambda i: len(prompts[i])), [None] * len(cs)
    for k in range(0, len(order), BATCH):
        some = order[k:k + BATCH]
        for i, ids in zip(some, net.greedy([prompts[i] for i in some], tok.stop, LIMIT, tok.size)):
            out[i] = tok.decode(ids)
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("tokenizer")
    ap.add_argument("--cases", type=int, default=60)
    ap.add_argument("--json")
    ap.add_argument("--show", type=int, default=0, help="wrong answers to print per row")
    ap.add_argument("--only", default="", help="rows whose title starts so")
    ap.add_argument("--seed", type=int, default=99)
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    (net, _), tok = load(a.checkpoint), Tokenizer(a.tokenizer)
    start, scores, stopped, total = time.time(), {}, [0, 0], [0, 0]
    for row in ROWS:
        if not row[0].startswith(a.only):
            continue
        marks, wrong = [], []
        for think in (False, True):
            right, cs = 0, cases(row, a.cases, think, a.seed)
            for c, text in zip(cs, answers(net, tok, cs)):
                ok, end = judge(c, text)
                right, stopped[think], total[think] = right + ok, stopped[think] + end, total[think] + 1
                if not ok and len(wrong) < a.show * (1 + think):
                    wrong.append((c["messages"][-2]["content"][-90:], text[-160:], c["want"]))
            marks.append(round(100 * right / a.cases, 1))
        scores[row[0]] = dict(no_think=marks[0], think=marks[1])
        print(f"{row[0]:32s} {marks[0]:6.1f} {marks[1]:6.1f}", flush=True)
        for w in wrong:
            print("    ", *map(repr, w))
    marks = [round(100 * s / n, 2) for s, n in zip(stopped, total)]
    scores["right stopping and form"] = dict(no_think=marks[0], think=marks[1])
    print(f"{'right stopping and form':32s} {marks[0]:6.1f} {marks[1]:6.1f}"
          f"   ({total[0]} + {total[1]} cases, {time.time() - start:.0f} s)")
    if a.json:
        with open(a.json, "w") as f:
            json.dump(scores, f, indent=1)


if __name__ == "__main__":
    main()
