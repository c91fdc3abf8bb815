"""The demo model answers as its goldens say: prompt, ids, greedy ids, thought and text, and the way
round a tool (call, result, answer).  tests/data/demo_golden.json was written by the plain numpy
forward pass of models/demo/train/npcheck.py; the chosen token leads by more than 2.6 all along."""
import json
import subprocess

import pytest

from conftest import BIN, DEMO

with open("tests/data/demo_golden.json", encoding="utf8") as f:
    GOLDEN = json.load(f)
END = "<|im_end|>"


def label(g):
    return "%s-%s%s" % (g["messages"][-1]["content"][:24].replace("\n", " "), "think" if g["enable_thinking"] else "plain",
                        "-tools" if g["tools"] else "")


each = pytest.mark.parametrize("g", GOLDEN, ids=label)
each_chat = pytest.mark.parametrize("g", [g for g in GOLDEN if not g["tools"]], ids=label)


def body_of(g):
    body = {"model": "m", "messages": g["messages"], "enable_thinking": g["enable_thinking"]}
    return {**body, "tools": g["tools"]} if g["tools"] else body


def split(output):
    """(thought or None, answer) of a generated text, by the rules of replies."""
    text = output.removesuffix(END)
    if not text.startswith("<think>"):
        return None, text
    thought, answer = text[len("<think>"):].split("</think>", 1)
    return thought.strip(), answer.lstrip()


def generate(server, prompt):
    """Greedy ids and text, special tokens kept, of a raw prompt."""
    r = server.complete(prompt=prompt, temperature=0, max_tokens=200, return_token_ids=True, skip_special_tokens=False)
    assert r.status_code == 200, r.text
    c = r.json()["choices"][0]
    assert c["finish_reason"] == "stop" and c["stop_reason"] is None
    return c


def render(body):
    p = subprocess.run([BIN, "render", DEMO], input=json.dumps(body).encode(), capture_output=True, timeout=60)
    assert p.returncode == 0, p.stderr.decode()
    return p.stdout.decode()


def test_goldens_cover_the_skills():
    assert len(GOLDEN) >= 20
    assert {bool(g["tools"]) for g in GOLDEN} == {g["enable_thinking"] for g in GOLDEN} == {True, False}
    assert any(len(g["messages"]) > 1 for g in GOLDEN) and all(g["smallest_lead"] > 2.6 for g in GOLDEN)


@each
def test_prompt_and_ids(server, g):
    r = server.post("/apply-template", body_of(g))
    assert r.status_code == 200, r.text
    assert r.json()["prompt"].encode() == g["prompt"].encode()
    for body in (body_of(g), {"content": g["prompt"]}):
        d = server.post("/tokenize", body).json()
        assert d["tokens"] == g["prompt_ids"] and d["count"] == len(g["prompt_ids"])
    assert server.post("/detokenize", {"tokens": g["prompt_ids"]}).json()["content"] == g["prompt"]


@each
def test_greedy_ids(server, g):
    c = generate(server, g["prompt_ids"])
    assert c["prompt_token_ids"] == g["prompt_ids"]
    assert c["token_ids"] == g["output_ids"]
    assert server.post("/detokenize", {"tokens": c["token_ids"]}).json()["content"] == g["output"]


@each_chat
def test_chat(server, g):
    thought, answer = split(g["output"])
    body = {**body_of(g), "temperature": 0, "return_token_ids": True}
    r = server.post("/v1/chat/completions", body)
    assert r.status_code == 200, r.text
    d = r.json()
    c, m, u = d["choices"][0], d["choices"][0]["message"], d["usage"]
    assert m["content"] == answer and c["finish_reason"] == "stop"
    assert m.get("reasoning_content") == m.get("reasoning") == thought
    assert d["prompt_token_ids"] == g["prompt_ids"] and c["token_ids"] == g["output_ids"]
    assert (u["prompt_tokens"], u["completion_tokens"]) == (len(g["prompt_ids"]), len(g["output_ids"]))
    assert (u["completion_tokens_details"]["reasoning_tokens"] > 0) == (thought is not None)
    ev = [e["choices"][0]["delta"] for e in server.events("/v1/chat/completions", body) if e != "[DONE]"]
    assert "".join(x.get("content") or "" for x in ev) == answer
    assert "".join(x.get("reasoning_content") or "" for x in ev) == (thought or "")


@pytest.mark.parametrize("first", [g for g in GOLDEN if g["tools"] and len(g["messages"]) == 1], ids=label)
def test_render_of_tools_is_the_golden_prompt(first):
    assert render(body_of(first)).encode() == first["prompt"].encode()


@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize("city,result,said", [
    ("Paris", {"temperature": 18, "condition": "sunny"}, ("18", "sunny", "Paris")),
    ("Oslo", {"temperature": -3, "condition": "snowy"}, ("-3", "snowy", "Oslo")),
])
def test_tool_round_trip(server, city, result, said, think):
    """What a client does by hand: render, read the call, run it, render its result, read the answer."""
    tools = next(g["tools"] for g in GOLDEN if g["tools"] and g["tools"][0]["function"]["name"] == "get_weather")
    talk = {"messages": [{"role": "user", "content": f"What is the weather in {city}?"}], "tools": tools[:1], "enable_thinking": think}
    thought, text = split(generate(server, render(talk))["text"])
    assert (thought is not None) == think
    assert text.startswith("<tool_call>\n") and text.endswith("\n</tool_call>")
    call = json.loads(text[len("<tool_call>"):-len("</tool_call>")])
    assert call == {"name": "get_weather", "arguments": {"city": city}}
    talk["messages"] += [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": {
            "name": call["name"], "arguments": json.dumps(call["arguments"])}}]},
        {"role": "tool", "tool_call_id": "c1", "content": json.dumps(result)}]
    thought, answer = split(generate(server, render(talk))["text"])
    assert (thought is not None) == think
    assert all(word in answer for word in said) and "<tool_call>" not in answer, answer
