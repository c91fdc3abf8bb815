"""Faults other servers had with tool calls, thoughts, stops and text, shown with forced text (API J3): the public cases K22-K26,
K29, K37, K42, K43, K48, K50, K64, K72, K75 and their kind."""
import concurrent.futures as cf
import json

import pytest

from conftest import alive

U = [{"role": "user", "content": "hi"}]
TWO = ('<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>')
TOOLS = [{"type": "function", "function": {"name": n, "parameters": {"type": "object", "properties": {}}}} for n in ("f", "g", "final_answer")]


def forced(text, **fields):
    """A body whose reply can only be this text."""
    return {"model": "m", "messages": U, "structured_outputs": {"choice": [text]}, "temperature": 0, "max_tokens": 400, "enable_thinking": False,
            **fields}


def plain(server, body):
    r = server.post("/v1/chat/completions", body)
    assert r.status_code == 200, r.text
    return r.json()


def chunks(server, body):
    return [e for e in server.events("/v1/chat/completions", body) if e != "[DONE]"]


def deltas(server, body, key):
    return [e["choices"][0]["delta"][key] for e in chunks(server, body) if e["choices"] and e["choices"][0]["delta"].get(key)]


def check_two_calls(events):
    calls = [c for e in events for c in (e["choices"][0]["delta"].get("tool_calls") or [])]
    first = {}
    for c in calls:
        if c["index"] not in first:
            first[c["index"]] = c
            assert c["id"].startswith("call_") and c["type"] == "function" and c["function"]["name"]
        else:
            assert set(c) == {"index", "function"} and set(c["function"]) == {"arguments"}
    assert sorted(first) == [0, 1] and first[0]["id"] != first[1]["id"]
    return first[0]["id"], first[1]["id"]


def test_call_deltas_have_ids_once_and_indices_from_zero(server):  # K22, T9
    body = forced(TWO, tools=TOOLS)
    ids = [check_two_calls(chunks(server, body)) for _ in range(2)]
    with cf.ThreadPoolExecutor(8) as pool:
        ids += list(pool.map(lambda _: check_two_calls(chunks(server, body)), range(8)))
    assert len({i for pair in ids for i in pair}) == 20


@pytest.mark.parametrize("args", ['{"trigger":true}', '{"a": "x\\"}</tool_call>", "b": [1, {"c": null}]}', "{}"])
def test_no_argument_fragment_is_lost(server, args):  # K23, G17
    body = forced('<tool_call>\n{"name":"final_answer","arguments":%s}\n</tool_call>' % args, tools=TOOLS)
    (call,) = plain(server, body)["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == args and json.loads(args) is not None
    pieces = [c["function"]["arguments"] for d in deltas(server, body, "tool_calls") for c in d]
    assert "".join(pieces) == args


@pytest.mark.parametrize("text,thought,answer", [("<think>\na\n</think>\n\nb", "a", "b"), ("<think>\n\n</think>\n\nb", None, "b"), ("a < b </think", None, "a < b </think")])
def test_thoughts_are_split_or_left_alone(server, text, thought, answer):  # K24, R2, R6
    body = forced(text, enable_thinking=True, structured_outputs={"choice": [text], "enable_in_reasoning": True})
    m = plain(server, body)["choices"][0]["message"]
    assert (m.get("reasoning_content"), m["content"]) == (thought, answer)
    assert "".join(deltas(server, body, "content")) == answer and "".join(deltas(server, body, "reasoning_content")) == (thought or "")
    raw = {**body, "reasoning_format": "none"}
    assert plain(server, raw)["choices"][0]["message"]["content"] == text == "".join(deltas(server, raw, "content"))


@pytest.mark.parametrize("stop,want", [(["own fo"], "The quick br"), (["fox", "brown fox j"], "The quick ")])
def test_stop_strings_over_tokens(server, stop, want):  # K26, G8
    body = forced("The quick brown fox jumps", stop=stop)
    c = plain(server, body)["choices"][0]
    assert c["message"]["content"] == want and c["finish_reason"] == "stop" and c["stop_reason"] in stop
    assert "".join(deltas(server, body, "content")) == want
    raw = {"model": "m", "prompt": "x", "structured_outputs": {"choice": ["The quick brown fox jumps"]}, "stop": stop, "max_tokens": 60}
    assert server.post("/v1/completions", raw).json()["choices"][0]["text"] == want
    assert "".join(e["choices"][0]["text"] for e in server.events("/v1/completions", raw) if e != "[DONE]") == want


def test_stop_strings_do_not_fire_in_calls(server):  # K27's kind, G8
    body = forced('pre\n<tool_call>\n{"name": "f", "arguments": {"x": "STOP"}}\n</tool_call>', tools=TOOLS, stop=["STOP"])
    c = plain(server, body)["choices"][0]
    assert c["finish_reason"] == "tool_calls" and c["message"]["tool_calls"][0]["function"]["arguments"] == '{"x": "STOP"}'


def test_every_route_obeys_its_limit(server):  # K29, G5
    more = {"ignore_eos": True, "temperature": 0}
    for fields in ({"max_completion_tokens": 3}, {"max_completion_tokens": 3, "max_tokens": 9}):
        r = plain(server, {"model": "m", "messages": U, **fields, **more})
        assert r["usage"]["completion_tokens"] == 3 and r["choices"][0]["finish_reason"] == "length"
    r = server.post("/api/chat", {"model": "m", "messages": U, "stream": False, "options": {"num_predict": 3}, **more}).json()
    assert r["eval_count"] == 3 and r["done_reason"] == "length"
    r = server.post("/v1/messages", {"model": "m", "messages": U, "max_tokens": 3, **more}).json()
    assert r["usage"]["output_tokens"] == 3 and r["stop_reason"] == "max_tokens"
    r = server.post("/v1/responses", {"model": "m", "input": "hi", "max_output_tokens": 3, **more}).json()
    assert r["usage"]["output_tokens"] == 3 and (r["status"], r["incomplete_details"]["reason"]) == ("incomplete", "max_output_tokens")
    r = server.post("/api/v1/chat", {"model": "m", "input": "hi", "max_output_tokens": 3, **more}).json()
    assert r["stats"]["total_output_tokens"] == 3
    r = server.post("/completion", {"prompt": "hi", "n_predict": 3, **more}).json()
    assert r["tokens_predicted"] == 3 and r["stop_type"] == "limit"


@pytest.mark.parametrize("bias", [{"99999999": 1}, {"-1": 1}, {"abc": 1}, {"5": 101}])
def test_bias_keys_are_checked(server, bias):  # K37
    r = server.chat(logit_bias=bias)
    assert r.status_code == 400 and r.json()["error"]["param"].startswith("logit_bias") and next(iter(bias)) in r.text
    alive(server)


TEXT = "\U0001f469‍\U0001f680\U0001f3f4‍☠️ 社区非常活跃 é́"


def test_emoji_and_marks_arrive_whole(server):  # K42, K43, G12, G17
    def run(_):
        pieces = deltas(server, forced(TEXT), "content")
        assert "".join(pieces) == TEXT and not any("�" in p for p in pieces)

    with cf.ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(16)))
    c = plain(server, forced("😊 你", logprobs=True, top_logprobs=3))["choices"][0]
    assert b"".join(bytes(t["bytes"]) for t in c["logprobs"]["content"]).decode() == "😊 你"


def test_echoed_logprobs_cover_the_prompt(server):  # K48
    ids = server.post("/tokenize", {"content": "The capital of France is"}).json()["tokens"]
    r = server.complete(prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0).json()
    rows = r["choices"][0]["logprobs"]["token_logprobs"]
    assert len(rows) == len(ids) + 1 and rows[0] is None and all(x <= 0 for x in rows[1:])
    for i in range(1, len(ids)):  # what the plain run on the prefix gives this very token
        c = server.complete(prompt=ids[:i], logprobs=1, max_tokens=1, allowed_token_ids=[ids[i]], skip_special_tokens=False).json()["choices"][0]
        assert c["logprobs"]["token_logprobs"][0] == rows[i]


def usage(server, body):
    whole = plain(server, body)["usage"]
    got = [e["usage"] for e in chunks(server, {**body, "stream_options": {"include_usage": True}}) if e.get("usage")]
    assert len(got) == 1
    for u in (whole, got[0]):
        u["prompt_tokens_details"].pop("cached_tokens")
    assert whole == got[0]
    return whole


def test_usage_of_streams_and_plain_replies(server):  # K50, G13
    think = forced("<think>a b</think>c", enable_thinking=True, structured_outputs={"choice": ["<think>a b</think>c"], "enable_in_reasoning": True})
    u = usage(server, think)  # the answer is one token, and nothing may follow it
    assert u["completion_tokens_details"]["reasoning_tokens"] == u["completion_tokens"] - 1 >= 3
    assert usage(server, forced(TWO, tools=TOOLS))["completion_tokens_details"]["reasoning_tokens"] == 0
    one = usage(server, forced("x y z"))
    three = usage(server, forced("x y z", n=3))
    assert three["completion_tokens"] == 3 * one["completion_tokens"] and three["prompt_tokens"] == one["prompt_tokens"]


@pytest.mark.parametrize("path,body,param", [
    ("/v1/completions", {"prompt": ""}, "prompt"), ("/v1/completions", {"prompt": []}, "prompt"), ("/v1/completions", {"prompt": [""]}, "prompt"),
    ("/v1/completions", {"prompt": [[]]}, "prompt"), ("/v1/chat/completions", {"messages": []}, "messages"),
    ("/v1/embeddings", {"input": ""}, "input"), ("/v1/embeddings", {"input": []}, "input"), ("/rerank", {"query": "q", "documents": []}, "documents")])
def test_empty_prompts(server, path, body, param):  # K64
    r = server.post(path, {"model": "m", **body})
    assert r.status_code == 400 and (path == "/v1/embeddings" or path == "/rerank" or r.json()["error"]["param"].startswith(param)), r.text
    alive(server)


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_odd_tools_never_break_a_request(server, choice):  # K72, T6
    odd = [{"type": "object", "properties": {}}, {"type": "object", "properties": {"a": {"type": "string", "maxLength": 100000}}},
           {"type": "object", "properties": {"a": {"not": {"items": {"type": "string"}}}}}, {}]
    for p in odd:
        tools = [{"type": "function", "function": {"name": "f", "parameters": p}}]
        r = server.post("/v1/chat/completions", {"model": "m", "messages": U, "tools": tools, "tool_choice": choice, "max_tokens": 30})
        assert r.status_code == 200, r.text
    big = [{"type": "function", "function": {"name": f"tool_{i}", "description": "d" * 200, "parameters": odd[1]}} for i in range(40)]
    r = server.post("/v1/chat/completions", {"model": "m", "messages": U, "tools": big, "tool_choice": choice, "max_tokens": 5})
    assert r.status_code == 200 or r.json()["error"]["code"] == "context_length_exceeded", r.text


@pytest.mark.parametrize("fields", [
    {"grammar": 'root ::= "a" ('}, {"grammar": "root ::= missing"}, {"structured_outputs": {"regex": "foo**"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strng"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"minimum": "x"}}}}])
def test_bad_grammars_are_refused(server, fields):  # K75, J4
    with cf.ThreadPoolExecutor(2) as pool:
        other = pool.submit(server.chat, temperature=0, max_tokens=30)
        r = server.chat(**fields)
        e = r.json()["error"]
        assert r.status_code == 400 and e["code"] in ("invalid_grammar", "invalid_schema", "unsupported_schema"), r.text
        assert e["param"] and other.result().status_code == 200
