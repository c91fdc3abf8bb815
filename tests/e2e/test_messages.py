"""Anthropic Messages with the official client (API A1-A9, E4, G6, R5, G20)."""
import json

import anthropic
import httpx
import pytest

from conftest import Server, stopped

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def client(server):
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def tools():
    with open("tests/data/demo_golden.json", encoding="utf8") as f:
        f = next(g["tools"] for g in json.load(f) if g["tools"] and g["tools"][0]["function"]["name"] == "get_weather")[0]["function"]
    return [{"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}]


def events(server, **body):
    with httpx.stream("POST", server.url + "/v1/messages", json={"model": "m", "temperature": 0, "stream": True, **body}, timeout=60) as r:
        assert r.status_code == 200, r.read()
        return [json.loads(line[6:]) for line in r.iter_lines() if line.startswith("data: ")]


def ask(client, messages=CAPITAL, **kw):
    kw["extra_body"] = {"temperature": 0, **kw.get("extra_body", {})}  # newer clients have no argument for it
    return client.messages.create(**{"model": "m", "max_tokens": 200, "messages": messages, **kw})


def test_plain_and_count(client):
    r = ask(client)
    assert r.type == "message" and r.role == "assistant" and r.id.startswith("msg_") and r.stop_reason == "end_turn" and r.stop_sequence is None
    (block,) = r.content
    assert block.type == "text" and "Paris" in block.text
    n = client.messages.count_tokens(model="m", messages=CAPITAL).input_tokens
    assert r.usage.input_tokens + r.usage.cache_read_input_tokens == n and r.usage.output_tokens > 0


def test_stream_equals_plain(client):
    plain = ask(client)
    with client.messages.stream(model="m", max_tokens=200, extra_body={"temperature": 0}, messages=CAPITAL) as s:
        kinds = [e.type for e in s]
        final = s.get_final_message()
    assert [b.text for b in final.content] == [b.text for b in plain.content] and final.stop_reason == plain.stop_reason
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


def test_thinking(client):
    r = ask(client, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [b.type for b in r.content] == ["thinking", "text"] and r.content[0].thinking and r.content[0].signature
    assert r.usage.output_tokens_details.thinking_tokens > 0
    assert [b.type for b in ask(client).content] == ["text"]  # absent = off (A5)
    with client.messages.stream(model="m", max_tokens=200, extra_body={"temperature": 0}, messages=CAPITAL, thinking={"type": "enabled", "budget_tokens": 1024}) as s:
        kinds = [e.type for e in s]
        assert s.get_final_message().content[0].thinking == r.content[0].thinking
    assert kinds.count("content_block_start") == 2
    hidden = ask(client, thinking={"type": "enabled", "budget_tokens": 1024}, extra_body={"thinking": {
        "type": "enabled", "budget_tokens": 1024, "display": "omitted"}})
    assert hidden.content[0].type == "thinking" and hidden.content[0].thinking == ""


def test_an_effort_does_not_turn_thinking_on(client, server):
    """A5, R3: agents send output_config.effort with every request; thinking alone decides."""
    kinds = lambda **f: [b.type for b in ask(client, extra_body=f).content]
    for effort in ("low", "max"):
        f = {"output_config": {"effort": effort}}
        assert kinds(**f) == kinds(**f, thinking={"type": "disabled"}) == ["text"]
        assert kinds(**f, thinking={"type": "adaptive"}) == kinds(**f, thinking={"type": "enabled", "budget_tokens": 999}) == ["thinking", "text"]
        assert kinds(**f, enable_thinking=True) == ["thinking", "text"]  # V9
        body = {"model": "m", "messages": CAPITAL, **f}
        n = server.post("/v1/messages/count_tokens", body).json()["input_tokens"]
        assert n == client.messages.count_tokens(model="m", messages=CAPITAL).input_tokens


def test_a_message_starts_with_nothing(server):
    """A8: output_tokens counts up from 0, however much was generated before the first byte; some clients add both counts."""
    for _ in range(5):
        e = events(server, messages=CAPITAL, max_tokens=200, thinking={"type": "adaptive"})
        first, last = e[0]["message"]["usage"], e[-2]["usage"]
        assert first["output_tokens"] == first["output_tokens_details"]["thinking_tokens"] == 0
        assert last["output_tokens"] > last["output_tokens_details"]["thinking_tokens"] > 0


def test_call_result_answer(client, tools):
    r = ask(client, WEATHER, tools=tools)
    assert r.stop_reason == "tool_use" and [b.type for b in r.content] == ["tool_use"]
    call = r.content[0]
    assert call.id.startswith("toolu_") and call.name == "get_weather" and call.input == {"city": "Paris"}
    talk = WEATHER + [{"role": "assistant", "content": r.content}, {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": '{"temperature": 18, "condition": "sunny"}'}]}]}]
    r = ask(client, talk, tools=tools)
    assert r.stop_reason == "end_turn" and "18" in r.content[0].text
    with client.messages.stream(model="m", max_tokens=200, extra_body={"temperature": 0}, messages=WEATHER, tools=tools) as s:
        parts = [e.partial_json for e in s if e.type == "input_json"]
        assert s.get_final_message().content[0].input == {"city": "Paris"} and "".join(parts)


def test_stops_limits_and_prefill(client):
    r = ask(client, stop_sequences=["France"])
    assert r.stop_reason == "stop_sequence" and r.stop_sequence == "France" and "France" not in r.content[0].text
    assert ask(client, max_tokens=2).stop_reason == "max_tokens"
    empty = ask(client, max_tokens=0)
    assert empty.content == [] and empty.stop_reason == "max_tokens" and empty.usage.output_tokens == 0
    r = ask(client, CAPITAL + [{"role": "assistant", "content": "The capital of  "}])
    assert r.content[0].text == " France is Paris."


def test_odd_turns_and_blocks(server):
    """A2, A3, A6: merged roles, late system text, documents, blocks and tools that exist only elsewhere."""
    body = {"model": "m", "max_tokens": 20, "system": [{"type": "text", "text": "x-anthropic-billing-header: a=1"}, {"type": "text", "text": "Be brief."}],
            "messages": [{"role": "user", "content": "Hi"}, {"role": "ctx", "content": [{"type": "document", "source": {"type": "text", "data": "D"}},
                         {"type": "search_result", "content": [{"type": "text", "text": "S"}]}]}, {"role": "system", "content": "late"},
                         {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "redacted_thinking", "data": "x"},
                                                           {"type": "server_tool_use", "id": "1", "name": "web", "input": {}}, {"type": "text", "text": "ok"}]},
                         {"role": "user", "content": "What is the capital of France?"}],
            "tools": [{"type": "web_search_20250305", "name": "web_search"}], "container": "c", "frobnicate": 1}
    r = server.post("/v1/messages?beta=true", body)
    assert r.status_code == 200, r.text
    ignored = r.headers["x-quern-ignored"].split(",")
    assert {"tools[0]", "frobnicate"} <= set(ignored) and any("content[2]" in i for i in ignored)
    assert r.headers["request-id"] == r.headers["x-request-id"]
    a = server.post("/v1/messages/count_tokens", {k: body[k] for k in ("model", "system", "messages")}).json()["input_tokens"]
    other = [{"type": "text", "text": "x-anthropic-billing-header: b=22222222"}, body["system"][1]]
    assert server.post("/v1/messages/count_tokens", {"model": "m", "system": other, "messages": body["messages"]}).json()["input_tokens"] == a


@pytest.mark.parametrize("content,turns", [
    ([{"type": "text", "text": "a"}, {"type": "mid_conv_system", "text": "S"}], [("user", "a"), ("system", "S")]),
    ([{"type": "mid_conv_system", "content": "S"}, {"type": "text", "text": "a"}], [("system", "S"), ("user", "a")]),
    ([{"type": "text", "text": "a"}, {"type": "mid_conv_system", "content": [{"type": "text", "text": "S"}]}, {"type": "text", "text": "b"}], [("user", "a"), ("system", "S"), ("user", "b")]),
])
def test_system_text_inside_a_turn(server, content, turns):
    """A2: it stands where it was sent, and leaves no empty turn beside it."""
    before = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    got = server.post("/v1/messages/count_tokens", {"model": "m", "messages": [*before, {"role": "user", "content": content}]}).json()
    want = server.post("/v1/chat/completions/input_tokens", {"model": "m", "enable_thinking": False, "messages": [*before, *({"role": r, "content": c} for r, c in turns)]}).json()
    assert got["input_tokens"] == want["input_tokens"]


def test_what_has_no_place_is_listed(server):
    """V6, V9: what the reply has no room for, and what only Anthropic's service does."""
    fields = {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}, "return_token_ids": True, "return_tokens_as_token_ids": True,
              "metadata": {"user_id": "u"}, "container": "c", "service_tier": "auto"}
    r = server.post("/v1/messages", {"model": "m", "max_tokens": 1, "messages": CAPITAL, **fields})
    assert set(r.headers["x-quern-ignored"].split(",")) == {"context_management", "return_token_ids", "return_tokens_as_token_ids"}
    r = server.post("/v1/responses", {"model": "m", "input": "hi", "max_output_tokens": 1, "return_token_ids": True})
    assert r.headers["x-quern-ignored"] == "return_token_ids"


def test_the_dialects_own_name_wins(server):
    """V9: where a field comes under its own name and under chat's."""
    def ask(**f):
        return server.post("/v1/messages", {"model": "m", "max_tokens": 9, "messages": CAPITAL, "temperature": 0, "ignore_eos": True, **f}).json()
    for other in ("max_completion_tokens", "n_predict"):
        assert ask(**{other: 3})["usage"]["output_tokens"] == 9
    assert ask(stop_sequences=["France"], stop=["capital"])["stop_sequence"] == "France" and ask(stop=["capital"])["stop_sequence"] == "capital"
    assert ask(stop_sequences=None, stop=["capital"])["stop_sequence"] == "capital"
    thought = ask(max_tokens=300, ignore_eos=False, thinking={"type": "adaptive"}, output_config={"effort": "none"}, reasoning_effort="high")["content"]
    assert [b["type"] for b in thought] == ["thinking", "text"]


def test_one_constraint(server):
    """J1: two of them are refused, in whichever names; text is none."""
    own = {"type": "json_schema", "schema": {"const": 7}}
    ask = lambda **f: server.post("/v1/messages", {"model": "m", "max_tokens": 60, "messages": CAPITAL, **f})
    for f in ({"output_config": {"format": own}}, {"output_format": own}):
        assert ask(**f, response_format={"type": "text"}).json()["content"][0]["text"].strip() == "7"
        for more in ({"response_format": {"type": "json_object"}}, {"guided_choice": ["a"]}, {"output_format": own, "output_config": {"format": own}}):
            r = ask(**{**f, **more})
            assert r.status_code == 400 and "both constrain" in r.json()["error"]["message"], r.text
    form = {"type": "json_schema", "name": "a", "schema": {"const": 7}}
    r = server.post("/v1/responses", {"model": "m", "input": "hi", "text": {"format": form}, "response_format": {"type": "text"}, "enable_thinking": False})
    assert r.json()["output"][0]["content"][0]["text"].strip() == "7", r.text


def result(content, **more):
    return [{"role": "user", "content": "go"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": content, **more}]}]


def test_nothing_of_a_turn_is_lost(server):
    """A3, C4, V6: an input that came as text is read as chat reads it; what has no place is listed."""
    def count(messages, path="/v1/messages/count_tokens", **more):
        r = server.post(path, {"model": "m", "messages": messages, **more})
        return r.json()["input_tokens"], r.headers.get("x-quern-ignored")

    talk = result("r")
    for value in ('{"x": 1}', "no JSON", "", {"x": 1}, None):
        talk[1]["content"][0]["input"] = value
        call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": value or "{}"}}
        chat = [talk[0], {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "t", "content": "r"}]
        assert count(talk) == count(chat, "/v1/chat/completions/input_tokens", enable_thinking=False), value
    assert count([{"role": "user", "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "x"}]}])[1] == "messages[0].content[0]"


def test_blocks_of_results(server):
    """A3: texts, documents and search results of a tool's result are its text; what has no place is listed."""
    blocks = [{"type": "text", "text": "a"}, {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "b"}},
              {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "c"}]}, {"type": "tool_reference", "tool_name": "g"}]
    for more, front in (({}, ""), ({"is_error": True}, "Error: ")):
        r = server.post("/v1/messages", {"model": "m", "max_tokens": 1, "messages": result(blocks, **more)})
        assert r.status_code == 200 and r.headers["x-quern-ignored"] == "messages[2].content[0].content[3]", r.text
        want = server.post("/v1/messages", {"model": "m", "max_tokens": 1, "messages": result(front + "a\nb\nc")}).json()["usage"]
        assert r.json()["usage"]["input_tokens"] + r.json()["usage"]["cache_read_input_tokens"] == want["input_tokens"] + want["cache_read_input_tokens"]


@pytest.mark.parametrize("fields,status,word", [
    ({"messages": []}, 400, "messages"), ({"max_tokens": None}, 400, "max_tokens"), ({"max_tokens": -3}, 400, "max_tokens"),
    ({"stop_sequences": [""]}, 400, "stop_sequences[0]"), ({"temperature": 3}, 400, "temperature"), ({"n": 2}, 400, "n"),
    ({"messages": [{"role": "bot", "content": "x"}]}, 400, "messages[0]"), ({"model": "other"}, 404, "other"),
    ({"messages": [{"role": "user", "content": "hi " * 5000}]}, 400, "prompt is too long: "),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}]}]}, 400, "image"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "x"}}]}]}, 400, "document"),
    ({"thinking": {"type": "maybe"}}, 400, "thinking.type"), ({"output_config": {"effort": "huge"}}, 400, "output_config.effort"),
    ({"tool_choice": {"type": "any"}}, 400, "tool_choice"), ({"tools": {}}, 400, "tools"), ({"tools": [5]}, 400, "tools[0]"),
    ({"tools": [{"name": "f", "input_schema": {}}, {"input_schema": {}}]}, 400, "tools[1].name"),
    ({"messages": result([{"type": "text", "text": "x"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}])}, 400,
     "messages[2].content[0].content[1]"),
    ({"messages": result([{"type": "document", "source": {"type": "base64", "data": "x"}}])}, 400, "messages[2].content[0].content[0]"),
    ({"messages": result(5)}, 400, "messages[2].content[0].content"), ({"messages": [{"role": "system", "content": 5}]}, 400, "messages[0].content"),
    ({"messages": [*CAPITAL, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": [1]}]}]}, 400, "messages[1].content[0].input"),
    ({"messages": [*CAPITAL, {"role": "assistant", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}]}]}, 400, "image"),
])
def test_errors_have_their_shape(server, fields, status, word):
    r = server.post("/v1/messages", {**{"model": "m", "max_tokens": 5, "messages": CAPITAL}, **fields})
    e = r.json()
    assert r.status_code == status and e["type"] == "error" and set(e["error"]) == {"type", "message"} and word in e["error"]["message"], r.text
    assert e["request_id"] == r.headers["x-request-id"]


def test_hang_up_frees_the_place(slow):
    client = anthropic.Anthropic(base_url=slow.url, api_key="none", max_retries=0)
    with stopped(slow), client.messages.stream(model="m", max_tokens=1500, messages=CAPITAL, extra_body={"ignore_eos": True}) as s:
        assert next(iter(s)).type == "message_start"
    with stopped(slow):
        s = client.messages.create(model="m", max_tokens=1500, messages=CAPITAL, stream=True, extra_body={"ignore_eos": True})
        next(iter(s))
        s.close()
    assert ask(client, max_tokens=5).content


# ---- thinking budgets (R4, R5) on the chat route --------------------------------------------------

def thought(server, **fields):
    r = server.chat(messages=CAPITAL, temperature=0, max_tokens=300, enable_thinking=True, **fields).json()
    m = r["choices"][0]["message"]
    return m.get("reasoning_content"), m["content"], r["usage"]["completion_tokens_details"]["reasoning_tokens"]


@pytest.mark.parametrize("field", ["thinking_budget", "thinking_token_budget", "thinking_budget_tokens", "reasoning_budget_tokens"])
def test_budget_forces_the_end(server, field):
    free, _, n_free = thought(server)
    cut, answer, n_cut = thought(server, **{field: 4})
    assert n_free > 6 and cut.endswith("directly now.") and free.startswith(cut[:cut.index("\n")]) and answer
    assert thought(server, **{field: -1})[0] == thought(server, **{field: 5000})[0] == free


def test_budget_of_nothing(server):
    text, answer, n = thought(server, thinking_budget=0)
    assert text is None and answer and "</think>" not in answer and n <= 3


def test_budget_in_a_stream_and_in_bits(server):
    plain = thought(server, thinking_budget=5)
    text = ""
    with httpx.stream("POST", server.url + "/v1/chat/completions", json={"model": "m", "messages": CAPITAL, "temperature": 0, "max_tokens": 300,
                      "enable_thinking": True, "thinking_budget": 5, "stream": True}, timeout=30) as r:
        for line in r.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("reasoning_content") or ""
    assert text == plain[0]


def test_budget_text_and_efforts_are_options():
    s = Server("--think-end-text", "Enough.", "--effort-budgets", "3,5,-1")
    try:
        assert thought(s, reasoning_effort="minimal")[0].endswith("Enough.")
        assert len(thought(s, reasoning_effort="low")[0]) > len(thought(s, reasoning_effort="minimal")[0])
        assert not thought(s, reasoning_effort="medium")[0].endswith("Enough.")
        assert thought(s, reasoning_effort="minimal", thinking_budget=-1)[0] == thought(s, reasoning_effort="high")[0]
    finally:
        s.stop()
