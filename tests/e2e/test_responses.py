"""Responses with the official client and as raw events (API X1-X13, G7, G20, V6, H17, N7)."""
import asyncio
import json
import re

import httpx
import openai
import pydantic
import pytest

from conftest import Server

CAPITAL = "What is the capital of France?"
EVENT = pydantic.TypeAdapter(openai.types.responses.ResponseStreamEvent)
KEYS = {"id", "object", "created_at", "completed_at", "status", "error", "incomplete_details", "instructions", "model", "output", "parallel_tool_calls",
        "previous_response_id", "reasoning", "store", "temperature", "top_p", "text", "tool_choice", "tools", "top_logprobs", "truncation",
        "max_output_tokens", "max_tool_calls", "metadata", "service_tier", "background"}


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", _strict_response_validation=True, max_retries=0)


@pytest.fixture(scope="module")
def tools():
    with open("tests/data/demo_golden.json", encoding="utf8") as f:
        f = next(g["tools"] for g in json.load(f) if g["tools"] and g["tools"][0]["function"]["name"] == "get_weather")[0]["function"]
    return [{"type": "function", "name": f["name"], "description": f["description"], "parameters": f["parameters"]}, {"type": "web_search"}]


def ask(client, text=CAPITAL, **kw):
    return client.responses.create(**{"model": "m", "input": text, "temperature": 0, **kw})


def raw(server, **fields):
    return server.post("/v1/responses", {"model": "m", "input": CAPITAL, "temperature": 0, **fields})


def shape(items):
    """Output items without what is drawn."""
    return [{k: v for k, v in i.items() if k not in ("id", "call_id")} for i in items]


def stream(server, **fields):
    """The events of a streamed reply, checked against X9 and X10 as they come."""
    events, done, named = [], False, None
    with httpx.stream("POST", server.url + "/v1/responses", json={"model": "m", "input": CAPITAL, "temperature": 0, "stream": True, **fields}, timeout=60) as r:
        assert r.status_code == 200, r.read()
        for line in r.iter_lines():
            if line.startswith("event: "):
                named = line[7:]
            elif line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                e = json.loads(line[6:])
                EVENT.validate_python(e)
                assert e["type"] == named and e["sequence_number"] == len(events) and not done
                events.append(e)
    assert done and [e["type"] for e in events[:2]] == ["response.created", "response.in_progress"]
    assert all(e["response"]["status"] == "in_progress" and e["response"]["output"] == [] and "usage" not in e["response"] for e in events[:2])
    final = events[-1]["response"]
    assert events[-1]["type"] == "response." + final["status"] and final["id"] == events[0]["response"]["id"] and set(final) == KEYS | {"usage"}
    open_item, parts, index = None, {}, -1
    for e in events[2:-1]:
        kind = e["type"][9:]
        if kind == "output_item.added":
            assert open_item is None and e["item"]["status"] == "in_progress"
            open_item, parts, index = e["item"], {}, index + 1
        elif kind == "output_item.done":
            assert e["item"]["id"] == open_item["id"] and e["item"] == final["output"][index]
            text = e["item"].get("arguments", e["item"].get("input"))
            if text is None:
                text = "".join(c["text"] for c in e["item"]["content"])
            assert "".join(parts.get("delta", [])) == text
            open_item = None
        else:
            assert e["item_id"] == open_item["id"] and (kind.startswith(("function", "custom")) or e.get("content_index", e.get("summary_index")) == 0)
            if kind.endswith(".delta"):
                parts.setdefault("delta", []).append(e["delta"])
        assert e["output_index"] == index
    assert open_item is None and index + 1 == len(final["output"])
    return events


def test_plain_object(client, server):
    r = raw(server).json()
    assert set(r) == KEYS | {"usage"} and r["status"] == "completed" and re.fullmatch(r"resp_[0-9A-Za-z]{24}", r["id"])
    assert [i["type"] for i in r["output"]] == ["reasoning", "message"]
    assert r["text"] == {"format": {"type": "text"}} and r["tool_choice"] == "auto" and r["temperature"] == 0 and r["truncation"] == "disabled"
    assert r["usage"]["total_tokens"] == r["usage"]["input_tokens"] + r["usage"]["output_tokens"]
    o = ask(client, max_output_tokens=50, instructions="Be brief.", metadata={"a": "b"}, user="u", top_p=0.5, max_tool_calls=3)
    assert "Paris" in o.output_text and (o.instructions, o.metadata, o.user, o.top_p, o.max_output_tokens, o.max_tool_calls) == ("Be brief.", {"a": "b"}, "u", 0.5, 50, 3)
    for f, effort in (({"reasoning": {"effort": "low"}}, "low"), ({"reasoning": {"effort": None}, "reasoning_effort": "low"}, "low"),
                      ({"reasoning": {"effort": "low"}, "reasoning_effort": "none"}, "none"), ({"reasoning": {"effort": "low"}, "reasoning_effort": None}, "low")):
        r = raw(server, max_output_tokens=30, **f).json()  # R3: the one that is used
        assert r["reasoning"]["effort"] == effort and (r["output"][0]["type"] == "reasoning") == (effort == "low"), f
    for path in ("/responses", "/v1/responses"):
        assert server.post(path, {"model": "m", "input": CAPITAL, "temperature": 0}).status_code == 200


@pytest.mark.parametrize("fields", [{}, {"enable_thinking": False}, {"reasoning": {"summary": "auto"}}, {"max_output_tokens": 5}, {"max_output_tokens": 18},
                                    {"include": ["message.output_text.logprobs", "reasoning.encrypted_content"], "top_logprobs": 2},
                                    {"include_reasoning": False}])
def test_stream_equals_plain(server, fields):
    plain, events = raw(server, **fields).json(), stream(server, **fields)
    final = events[-1]["response"]
    assert shape(final["output"]) == shape(plain["output"]) and final["status"] == plain["status"]
    assert final["incomplete_details"] == plain["incomplete_details"]
    assert final["usage"]["output_tokens"] == plain["usage"]["output_tokens"]
    thought = [e["type"][9:] for e in events if "reasoning" in e["type"]]
    if "reasoning" in fields:
        item = final["output"][0]
        assert item["summary"][0]["text"] == item["content"][0]["text"] and thought[0] == "reasoning_summary_part.added" and "reasoning_text.delta" not in thought
    elif thought:
        assert set(thought) == {"reasoning_text.delta", "reasoning_text.done"} and final["output"][0]["summary"] == []


def test_incomplete(server):
    """X11: the limit inside the thought, then inside the answer."""
    thought = raw(server, max_output_tokens=4).json()
    assert thought["status"] == "incomplete" and thought["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [(i["type"], i["status"]) for i in thought["output"]] == [("reasoning", "incomplete")]
    answer = raw(server, max_output_tokens=18).json()
    assert [(i["type"], i["status"]) for i in answer["output"]] == [("reasoning", "completed"), ("message", "incomplete")]


def test_limit_is_the_limit(server):
    """K29: whichever field says it; the dialect's own wins."""
    for fields in ({"max_output_tokens": 3}, {"max_output_tokens": 3, "max_tokens": 9}, {"max_output_tokens": 3, "max_completion_tokens": 9}, {"max_tokens": 3}):
        r = raw(server, ignore_eos=True, **fields).json()
        assert r["usage"]["output_tokens"] == 3 and r["status"] == "incomplete", fields


def test_answer_of_nothing_is_a_message(server):
    r = raw(server, enable_thinking=False, stop=["The"]).json()
    (m,) = r["output"]
    assert r["status"] == "completed" and m["type"] == "message" and m["content"][0]["text"] == ""
    assert stream(server, enable_thinking=False, stop=["The"])[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_logprobs(server):
    r = raw(server, include=["message.output_text.logprobs"], top_logprobs=2, enable_thinking=False).json()
    part = r["output"][0]["content"][0]
    assert "".join(i["token"] for i in part["logprobs"]) == part["text"] and all(len(i["top_logprobs"]) == 2 for i in part["logprobs"])
    events = stream(server, include=["message.output_text.logprobs"], top_logprobs=2)
    items = [i for e in events if e["type"] == "response.output_text.delta" for i in e["logprobs"]]
    done = next(e for e in events if e["type"] == "response.output_text.done")
    assert items == done["logprobs"] and "".join(i["token"] for i in items).strip() == done["text"]


def test_logprobs_stand_with_their_text(server):
    """X6, G4: of the messages before, between and behind calls each has its own, however the tokens came."""
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    fields = dict(tools=[{"type": "function", "name": "f"}], include=["message.output_text.logprobs"], enable_thinking=False,
                  structured_outputs={"choice": [f"Sure.\n\n{call}\n{call}and{call}\nthe rest"]})
    plain, events = raw(server, **fields).json()["output"], stream(server, **fields)
    assert shape(plain) == shape(events[-1]["response"]["output"])
    texts = [i["content"][0] for i in plain if i["type"] == "message"]
    assert [t["text"] for t in texts] == ["Sure.", "and", "the rest"]
    assert all("".join(x["token"] for x in t["logprobs"]).strip() == t["text"] for t in texts)


# ---- tools ------------------------------------------------------------------------------------------

def test_call_result_answer(client, server, tools):
    with client.responses.stream(model="m", input="What is the weather in Paris?", tools=tools, temperature=0) as s:
        kinds = [e.type for e in s]
        r = s.get_final_response()
    call = r.output[-1]
    assert kinds.count("response.function_call_arguments.done") == 1 and call.name == "get_weather" and json.loads(call.arguments) == {"city": "Paris"}
    assert call.call_id.startswith("call_") and call.id.startswith("fc_") and r.tools[0].strict is False and len(r.tools) == 1
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"temperature": 18, "condition": "sunny"}'}
    again = [{"role": "user", "content": "What is the weather in Paris?"}, *[i.to_dict() for i in r.output], result]
    a = ask(client, again, tools=tools, store=False)
    b = ask(client, [result], tools=tools, previous_response_id=r.id)
    assert "18" in a.output_text and a.output_text == b.output_text and a.usage.input_tokens == b.usage.input_tokens
    result["output"] = [{"type": "input_text", "text": result["output"]}]
    assert ask(client, [result], tools=tools, previous_response_id=r.id).output_text == a.output_text
    plain = raw(server, input="What is the weather in Paris?", tools=tools)
    assert plain.headers["x-quern-ignored"] == "tools[1]"
    events = stream(server, input="What is the weather in Paris?", tools=tools)
    assert shape(events[-1]["response"]["output"]) == shape(plain.json()["output"])
    done = next(e for e in events if e["type"].endswith("arguments.done"))
    assert done["name"] == "get_weather" and done["arguments"] == plain.json()["output"][-1]["arguments"]


def test_custom_tool(server, tools):
    """T10: the demo model calls a custom tool of a known name; its input is the string the model wrote."""
    custom = [{"type": "custom", "name": "get_weather", "description": "Get the current weather in a city."}]
    r = raw(server, input="What is the weather in Paris?", tools=custom)
    call = next(i for i in r.json()["output"] if i["type"] == "custom_tool_call")
    assert call["id"].startswith("ctc_") and call["call_id"].startswith("call_") and isinstance(call["input"], str) and "arguments" not in call
    events = stream(server, input="What is the weather in Paris?", tools=custom)
    kinds = [e["type"] for e in events]
    assert kinds.index("response.custom_tool_call_input.delta") < kinds.index("response.custom_tool_call_input.done")
    assert shape(events[-1]["response"]["output"]) == shape(r.json()["output"])
    talk = [{"role": "user", "content": "x"}, call, {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "ok"}]
    assert raw(server, input=talk, tools=custom).status_code == 200


def test_formats_of_custom_tools_are_listed(server):
    """T10, V6: by the place in the client's list; text asks for nothing."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    tools = [{"type": "web_search"}, *({"type": "custom", "name": f"k{i}", "format": f} for i, f in enumerate([grammar, {"type": "text"}, None, {"type": "odd"}]))]
    r = raw(server, tools=tools, max_output_tokens=1)
    assert set(r.headers["x-quern-ignored"].split(",")) == {"tools[0]", "tools[1].format", "tools[4].format"}


@pytest.mark.parametrize("args,want", [({"input": 'a\n"é"\t\\ ' * 12}, 'a\n"é"\t\\ ' * 12), ({"input": ""}, ""), ({"other": 1}, '{"other": 1}')], ids=["text", "empty", "other"])
def test_custom_input_comes_as_it_is_written(server, slow, args, want):
    """X10: deltas of the text, not of its JSON; what is ready at once is one delta, so a slow server is asked."""
    text = f'<tool_call>{{"name": "k", "arguments": {json.dumps(args)}}}</tool_call>'
    fields = dict(tools=[{"type": "custom", "name": "k"}], structured_outputs={"choice": [text]}, enable_thinking=False)
    events = stream(slow, **fields)
    deltas = [e["delta"] for e in events if e["type"] == "response.custom_tool_call_input.delta"]
    (done,) = [e["input"] for e in events if e["type"] == "response.custom_tool_call_input.done"]
    assert "".join(deltas) == done == want and all(deltas) and (len(deltas) > 2) == (len(want) > 50)
    assert raw(server, **fields).json()["output"][0]["input"] == want


def test_no_tool_left_is_no_tools(server):
    """X3, V6: tools of other services are skipped; choosing one of them is refused."""
    count = lambda **f: server.post("/v1/responses/input_tokens", {"model": "m", "input": CAPITAL, **f}).json()["input_tokens"]
    assert count() == count(tools=[{"type": "local_shell"}, {"type": "mcp", "server_label": "s"}])
    for choice in ({"type": "web_search"}, {"type": "function"}, 5):
        r = raw(server, tools=[{"type": "web_search"}], tool_choice=choice)
        assert r.status_code == 400 and r.json()["error"]["param"] == "tool_choice"


@pytest.mark.parametrize("choice,name", [("required", None), ({"type": "function", "name": "g"}, "g"), ({"type": "custom", "name": "k"}, "k"),
                                         ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}, {"type": "web_search"}]}, "g")])
def test_choices_are_obeyed(client, server, choice, name):
    """T3, T4 in Responses' flat forms."""
    tools = [{"type": "web_search"}, {"type": "function", "name": "f", "strict": True, "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}},
             {"type": "function", "name": "g", "parameters": {"type": "object", "properties": {"y": {"enum": ["a", "b"]}}, "required": ["y"], "additionalProperties": False}},
             {"type": "custom", "name": "k"}]
    r = client.responses.create(model="m", input="go", tools=tools, tool_choice=choice, temperature=0, max_output_tokens=200)
    calls = [o for o in r.output if o.type != "reasoning"]
    assert calls and all(o.type in ("function_call", "custom_tool_call") and o.name == (name or o.name) for o in calls)
    for c in calls:
        if c.type == "function_call":
            a = json.loads(c.arguments)
            assert isinstance(a["x"], int) if c.name == "f" else a["y"] in ("a", "b")
    events = stream(server, input="go", tools=tools, tool_choice=choice, max_output_tokens=200)
    assert [o["name"] for o in events[-1]["response"]["output"] if "name" in o] == [c.name for c in calls]


def test_errors_of_tools_name_their_place(server):
    """E3: the index is that of the client's list, whatever was skipped before it."""
    bad = {"type": "function", "name": "f", "parameters": {"type": "objet"}, "strict": True}
    for skipped in (0, 1, 9):
        e = raw(server, tools=[{"type": "web_search"}] * skipped + [bad], tool_choice="required").json()["error"]
        assert e["param"].startswith(f"tools[{skipped}].parameters") and f"'tools[{skipped}].parameters" in e["message"], e
    e = server.post("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "web_search_1", "name": "w"}, {"name": "a b", "input_schema": {}}]}).json()["error"]
    assert "tools[1].name" in e["message"], e


# ---- text.format (J1, J2) ---------------------------------------------------------------------------

def test_structured_output(client, server):
    class City(pydantic.BaseModel):
        name: str
        size: int

    r = client.responses.parse(model="m", input=CAPITAL, text_format=City, temperature=0, max_output_tokens=300)
    assert isinstance(r.output_parsed, City) and r.text.format.name == "City" and r.text.format.type == "json_schema"
    events = stream(server, text={"format": {"type": "json_schema", "name": "c", "schema": {"enum": ["x", "y"]}}})
    assert json.loads(events[-1]["response"]["output"][-1]["content"][0]["text"]) in ("x", "y")
    answer = client.responses.create(model="m", input=CAPITAL, text={"format": {"type": "json_object"}}, temperature=0, max_output_tokens=100)
    assert answer.output_text.startswith("{") and answer.text.format.type == "json_object"


@pytest.mark.parametrize("fields,param,code", [
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.name", "missing_required_parameter"),
    ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"properties": {"a": {"type": "objet"}}}}}}, "text.format.schema#/properties/a", "invalid_schema"),
    ({"text": {"format": {"type": "odd"}}}, "text.format.type", "invalid_value"),
    ({"text": {"format": {"type": "json_object"}}, "response_format": {"type": "json_object"}}, "text.format", "conflicting_constraints"),
])
def test_bad_formats(server, fields, param, code):
    e = raw(server, **fields).json()["error"]
    assert (e["param"], e["code"]) == (param, code) and "response_format.json" not in e["message"], e
    assert "response_format" not in fields or "'text.format' cannot be given beside response_format" == e["message"]


# ---- input ------------------------------------------------------------------------------------------

def prompt_tokens(server, input, **fields):
    r = server.post("/v1/responses/input_tokens", {"model": "m", "input": input, **fields})
    assert r.status_code == 200, r.text
    return r.json()["input_tokens"]


def chat_tokens(server, messages):
    return server.post("/v1/chat/completions/input_tokens", {"model": "m", "messages": messages}).json()["input_tokens"]


def test_items_are_the_messages_they_mean(server):
    """X1, X13: the same count as the chat request, and as usage."""
    for probe in ("", []):
        assert prompt_tokens(server, probe) == chat_tokens(server, [{"role": "user", "content": ""}])
    items = [{"role": "developer", "content": [{"type": "input_text", "text": "d"}]}, {"type": "message", "role": "user", "content": "q"},
             {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
             {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
             {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"x\": 1}"}, {"type": "function_call_output", "call_id": "c", "output": "r"},
             {"type": "web_search_call", "id": "ws_1"}, {"role": "user", "content": [{"type": "input_text", "text": "b"}]}]
    messages = [{"role": "system", "content": "i"}, {"role": "system", "content": "d"}, {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a", "reasoning_content": "t", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]},
                {"role": "tool", "tool_call_id": "c", "content": "r"}, {"role": "user", "content": "b"}]
    assert prompt_tokens(server, items, instructions="i") == chat_tokens(server, messages)
    r = raw(server, input=items, instructions="i", max_output_tokens=1, frobnicate=1)
    assert r.json()["usage"]["input_tokens"] == prompt_tokens(server, items, instructions="i")
    assert set(r.headers["x-quern-ignored"].split(",")) == {"input[6]", "frobnicate"}


def test_late_and_double_system_items(start):
    """K08: a template that raises on a system message behind the first one; agents send two, or one late."""
    s = start("--chat-template", "tests/data/templates/Qwen3.5-4B.jinja")
    d, u = lambda t: {"role": "developer", "content": t}, lambda t: {"role": "user", "content": t}
    a = {"role": "assistant", "content": "b"}
    assert prompt_tokens(s, [d("A"), {"role": "system", "content": "B"}, u("x")]) == chat_tokens(s, [d("A\n\nB"), u("x")])
    assert prompt_tokens(s, [u("x"), a, d("C"), u("y")]) == chat_tokens(s, [u("x"), a, u("C"), u("y")])
    assert raw(s, input=[d("A"), u("x")], instructions="I", max_output_tokens=1).status_code == 200


def test_sealed_thoughts(server):
    """X7: encrypted_content is read back where the content is gone; others' blobs are ignored."""
    r = raw(server, store=False, include=["reasoning.encrypted_content"], tools=[{"type": "function", "name": "f"}]).json()
    thought, answer = r["output"]
    call = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": "r"}]
    talk = lambda t: [{"role": "user", "content": "q"}, t, *call]
    whole = prompt_tokens(server, talk(thought))
    sealed = {k: v for k, v in thought.items() if k != "content"}
    assert sealed["encrypted_content"] and thought["content"][0]["text"] not in sealed["encrypted_content"]
    assert prompt_tokens(server, talk(sealed)) == whole
    foreign = prompt_tokens(server, talk({**sealed, "encrypted_content": "gAAAAABo1234=="}))
    assert foreign == prompt_tokens(server, talk({"type": "reasoning", "summary": []})) < whole
    assert prompt_tokens(server, talk({"type": "reasoning", "summary": [{"type": "summary_text", "text": thought["content"][0]["text"]}]})) == whole
    for blob in ("quern:", "quern:A", "quern:====", "quern:/w==", "quern:AAAA"):
        assert server.post("/v1/responses/input_tokens", {"model": "m", "input": talk({**sealed, "encrypted_content": blob})}).status_code == 200


@pytest.mark.parametrize("fields,param,code", [
    ({"input": None}, "input", "missing_required_parameter"), ({"input": 5}, "input", "invalid_type"), ({"input": [5]}, "input[0]", "invalid_type"),
    ({"input": [{"role": "bot", "content": "x"}]}, "input[0]", "invalid_value"), ({"input": [{"type": "function_call"}]}, "input[0]", "missing_required_parameter"),
    ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:"}]}]}, "input[0].content[1]", "unsupported_modality"),
    ({"input": [{"role": "user", "content": [{"type": "odd"}]}]}, "input[0].content[0]", "invalid_value"), ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
    ({"input": [{"type": "item_reference", "id": "msg_none"}]}, "input[0]", "invalid_value"), ({"input": [{"type": "web_search_call"}]}, "input", "invalid_value"),
    ({"previous_response_id": "resp_none"}, "previous_response_id", "previous_response_not_found"), ({"prompt": {"id": "p"}}, "prompt", "unsupported_value"),
    ({"background": True}, "background", "unsupported_value"), ({"conversation": "c"}, "conversation", "unsupported_value"), ({"n": 2}, "n", "unsupported_value"),
    ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"), ({"temperature": 3}, "temperature", "invalid_value"), ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"truncation": "some"}, "truncation", "invalid_value"), ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
    ({"reasoning": {"summary": "long"}}, "reasoning.summary", "invalid_value"), ({"store": 1}, "store", "invalid_type"), ({"metadata": []}, "metadata", "invalid_type"),
    ({"include": "all"}, "include", "invalid_type"), ({"instructions": []}, "instructions", "invalid_type"), ({"tools": {}}, "tools", "invalid_type"),
    ({"tools": [{}]}, "tools[0]", "invalid_type"), ({"text": []}, "text", "invalid_type"), ({"input": "hi " * 5000}, "input", "context_length_exceeded"),
])
def test_refusals(server, fields, param, code):
    r = raw(server, **fields)
    e = r.json()["error"]
    assert r.status_code == 400 and (e["param"], e["code"]) == (param, code) and set(e) >= {"message", "type", "param", "code"}, r.text


# ---- the store (X4) ---------------------------------------------------------------------------------

def test_conversation(client, server):
    first = ask(client, "My name is Ada.", instructions="Be brief.")
    second = ask(client, CAPITAL, previous_response_id=first.id)
    talk = [{"role": "user", "content": "My name is Ada."}, *[i.to_dict() for i in first.output], {"role": "user", "content": CAPITAL}]
    assert second.usage.input_tokens == prompt_tokens(server, talk) and second.previous_response_id == first.id
    third = ask(client, "And of Japan?", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.input_tokens
    assert client.responses.retrieve(second.id).to_dict() == second.to_dict()
    items = list(client.responses.input_items.list(second.id))
    assert [i.role for i in items] == ["user"] and items[0].content[0].text == CAPITAL and items[0].id.startswith("msg_")
    page = server.get(f"/v1/responses/{second.id}/input_items").json()
    assert page["object"] == "list" and page["first_id"] == page["last_id"] == items[0].id and page["has_more"] is False
    ref = ask(client, [{"type": "item_reference", "id": items[0].id}, *[{"type": "item_reference", "id": i.id} for i in second.output], {"role": "user", "content": "And of Japan?"}])
    assert ref.usage.input_tokens == prompt_tokens(server, [{"role": "user", "content": CAPITAL}, *[i.to_dict() for i in second.output], {"role": "user", "content": "And of Japan?"}])
    assert server.post(f"/v1/responses/{second.id}/cancel", {}).json()["error"]["code"] == "unsupported_value"
    client.responses.delete(second.id)
    for r in (server.get(f"/v1/responses/{second.id}"), server.get(f"/responses/{second.id}/input_items"), server.post(f"/v1/responses/{second.id}/cancel", {}),
              httpx.delete(f"{server.url}/v1/responses/{second.id}")):
        assert r.status_code == 404 and r.json()["error"]["code"] == "response_not_found"
    assert ask(client, "And of Italy?", previous_response_id=third.id).output_text  # its history is its own
    assert server.get("/v1/responses/a/b").json()["error"]["code"] == server.post("/v1/responses/a", {}).json()["error"]["code"] == "route_not_found"
    assert server.post("/v1/responses/compact", {"model": "m"}).status_code == 501
    e = server.get(f"/v1/responses/{third.id}?stream=true")
    assert e.status_code == 501 and e.json()["error"]["param"] == "stream"


def test_store_is_bounded_and_per_key():
    s = Server("--api-key", "one", "--api-key", "two", "--response-store", "3")
    try:
        def post(key, **f):
            return httpx.post(s.url + "/v1/responses", headers={"x-api-key": key}, json={"model": "m", "input": "hi", "max_output_tokens": 3, **f}, timeout=30).json()

        def get(key, id):
            return httpx.get(f"{s.url}/v1/responses/{id}", headers={"x-api-key": key}).status_code

        entries = lambda: float(re.search(r"^quern_response_store_entries (\S+)", httpx.get(s.url + "/metrics", headers={"x-api-key": "one"}).text, re.M)[1])
        assert entries() == 0
        a = post("one")
        assert get("one", a["id"]) == 200 and get("two", a["id"]) == 404 and entries() == 1
        assert post("two", previous_response_id=a["id"])["error"]["code"] == "previous_response_not_found"
        assert post("two", input=[{"type": "item_reference", "id": a["output"][0]["id"]}])["error"]["code"] == "invalid_value"
        assert httpx.delete(f"{s.url}/v1/responses/{a['id']}", headers={"x-api-key": "two"}).status_code == 404
        assert get("one", post("one", store=False)["id"]) == 404 and entries() == 1
        b, c = post("one"), post("two")
        assert get("one", a["id"]) == 200  # used: b is the oldest now
        d = post("two", stream=None)
        assert entries() == 3 and [get("one", a["id"]), get("one", b["id"]), get("two", c["id"]), get("two", d["id"])] == [200, 404, 200, 200]
    finally:
        assert s.stop() == 0


def test_no_store(start):
    s = start("--response-store", "0")
    r = raw(s).json()
    assert r["store"] is False and s.get("/v1/responses/" + r["id"]).status_code == 404 and s.metric("quern_response_store_entries") == 0


def test_what_comes_out_of_the_store_is_bounded(start):
    """C5: neither a chain nor references make a request larger than --max-body."""
    s = start("--max-body", "4096")
    r = raw(s, input="word " * 700, max_output_tokens=2).json()
    message = s.get(f"/v1/responses/{r['id']}/input_items").json()["data"][0]["id"]
    e = raw(s, input=[{"type": "item_reference", "id": message}] * 2).json()["error"]
    assert e["param"] == "input[1]" and "--max-body" in e["message"]
    r = raw(s, previous_response_id=r["id"], max_output_tokens=2, input="word " * 700)
    e = raw(s, previous_response_id=r.json()["id"], max_output_tokens=2).json()["error"]
    assert r.status_code == 200 and e["param"] == "previous_response_id" and "--max-body" in e["message"]


def test_references_are_counted(server):
    r = raw(server, input="x", max_output_tokens=2).json()
    item = server.get(f"/v1/responses/{r['id']}/input_items").json()["data"][0]["id"]
    e = raw(server, input=[{"type": "item_reference", "id": item}] * 1025).json()["error"]
    assert e["param"] == "input[1024]" and "1024" in e["message"]


# ---- truncation (G7) --------------------------------------------------------------------------------

def test_truncation(server):
    turns = [{"role": "system", "content": "Be brief."}]
    for i in range(60):
        turns += [{"role": "user", "content": f"number {i} " + "word " * 60}, {"role": "assistant", "content": "ok"}]
    turns.append({"role": "user", "content": CAPITAL})
    r = raw(server, input=turns)
    assert r.status_code == 400 and r.json()["error"]["code"] == "context_length_exceeded"
    r = raw(server, input=turns, truncation="auto", max_output_tokens=30)
    assert r.status_code == 200 and r.json()["truncation"] == "auto", r.text
    dropped, p = int(r.headers["x-quern-truncated"]), r.json()["usage"]["input_tokens"]
    ctx = server.get("/v1/models").json()["data"][0]["max_model_len"]
    left = turns[:1] + turns[1 + dropped:]
    assert p == prompt_tokens(server, left) <= ctx - 30 and prompt_tokens(server, turns, truncation="auto", max_output_tokens=30) == p
    more = server.post("/v1/responses/input_tokens", {"model": "m", "input": turns[:1] + turns[dropped:]})
    assert more.json()["input_tokens"] > ctx - 30
    assert "x-quern-truncated" not in raw(server, truncation="auto", max_output_tokens=3).headers
    r = raw(server, input="hi " * 5000, truncation="auto")
    assert r.status_code == 400 and r.json()["error"]["code"] == "context_length_exceeded"


# ---- ends -------------------------------------------------------------------------------------------

def test_deadline_in_a_stream(slow):
    """X12: a failure after the start is response.failed with the full object."""
    with httpx.stream("POST", slow.url + "/v1/responses", timeout=30, headers={"x-quern-timeout-ms": "400"},
                      json={"model": "m", "input": CAPITAL, "stream": True, "ignore_eos": True, "max_output_tokens": 100000}) as r:
        lines = [l[6:] for l in r.iter_lines() if l.startswith("data: ")]
    events = [json.loads(x) for x in lines[:-1]]
    last = events[-1]
    opened, closed = ([e["item"] for e in events if e["type"] == f"response.output_item.{x}"] for x in ("added", "done"))
    assert [i["id"] for i in opened] == [i["id"] for i in closed] and last["response"]["output"] == closed  # X9
    assert [i["status"] for i in closed] == ["completed"] * (len(closed) - 1) + ["incomplete"] * (len(closed) > 0) and [e["sequence_number"] for e in events] == list(range(len(events)))
    assert lines[-1] == "[DONE]" and last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error" and last["response"]["error"]["message"] and "usage" not in last["response"]


def test_hang_up(server):
    with httpx.stream("POST", server.url + "/v1/responses", timeout=30, json={"model": "m", "input": CAPITAL, "stream": True, "ignore_eos": True}) as r:
        next(r.iter_lines())
    assert raw(server).status_code == 200


def test_async_client(server):
    async def run():
        c = openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", _strict_response_validation=True, max_retries=0)
        a, b = await asyncio.gather(c.responses.create(model="m", input=CAPITAL, temperature=0), c.responses.create(model="m", input="What is the capital of Japan?", temperature=0))
        text = ""
        async for e in await c.responses.create(model="m", input=CAPITAL, temperature=0, stream=True):
            text += e.delta if e.type == "response.output_text.delta" else ""
        with pytest.raises(openai.BadRequestError) as x:
            await c.responses.create(model="m", input=CAPITAL, temperature=9)
        return a.output_text, b.output_text, text, x.value.code

    a, b, text, code = asyncio.run(run())
    assert "Paris" in a and "Tokyo" in b and text == a and code == "invalid_value"


def test_codex_body(server):
    """Section 19: what Codex CLI sends and reads."""
    body = {"instructions": "You are a coding agent.", "store": False, "include": ["reasoning.encrypted_content"], "parallel_tool_calls": False, "tool_choice": "auto",
            "prompt_cache_key": "k", "reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "low"},
            "tools": [{"type": "function", "name": "shell", "description": "d", "strict": False, "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}}},
                      {"type": "custom", "name": "apply_patch", "description": "d", "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
                      {"type": "web_search", "external_web_access": False}, {"type": "namespace", "name": "x"}, {"type": "local_shell"}],
            "input": [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "p"}]},
                      {"type": "message", "role": "user", "content": [{"type": "input_text", "text": CAPITAL}]}]}
    events = stream(server, **body)
    kinds = [e["type"] for e in events]
    final = events[-1]["response"]
    assert kinds[-1] == "response.completed" and final["usage"]["output_tokens"] > 0 and final["text"]["verbosity"] == "low"
    assert "response.reasoning_summary_text.delta" in kinds and final["output"][0]["encrypted_content"]
    again = {**body, "input": body["input"] + final["output"] + [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And of Japan?"}]}]}
    assert stream(server, **again)[-1]["response"]["status"] == "completed"
