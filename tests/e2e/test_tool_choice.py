"""Which calls an answer makes, enforced (API T3-T6, J1, J3, E3), over every dialect, with and without a thought."""
import json

import anthropic
import jsonschema
import ollama
import openai
import pydantic
import pytest

ADD = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "s": {"type": "string", "maxLength": 8}},
       "required": ["x", "s"], "additionalProperties": False}
WEATHER = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 10}}, "required": ["city"], "additionalProperties": False}
ODD = {"type": "object", "properties": {"a/b": {"type": "array", "uniqueItems": True, "maxItems": 2, "items": {"type": "integer", "minimum": 0, "maximum": 9}}},
       "additionalProperties": False}


def tool(name, schema, **more):
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


TOOLS = [tool("add", ADD), tool("get_weather", WEATHER)]
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


def named(name):
    return {"type": "function", "function": {"name": name}}


def allowed(mode, *names):
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(n) for n in names]}}


def check_calls(calls, tools):
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
    for c in calls:
        jsonschema.validate(json.loads(c["function"]["arguments"]), schemas[c["function"]["name"]])


@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize("choice,names", [("required", {"add", "get_weather"}), (named("add"), {"add"}), (named("get_weather"), {"get_weather"}),
                                          (allowed("required", "add"), {"add"})], ids=["required", "named", "named_other", "allowed"])
def test_a_call_must_be_made(server, think, choice, names):
    """T4: at least one call (named: exactly one) and nothing else in the answer."""
    for fields in ({"temperature": 0}, {"temperature": 1, "seed": 1}, {"temperature": 1.5, "seed": 2, "messages": [{"role": "user", "content": "hi"}]}):
        body = {"model": "m", "messages": ASK, "tools": TOOLS, "tool_choice": choice, "enable_thinking": think, "max_tokens": 400, "thinking_budget": 60, **fields}
        c = server.post("/v1/chat/completions", body).json()["choices"][0]
        if c["finish_reason"] == "length":
            continue
        calls = c["message"]["tool_calls"]
        assert c["finish_reason"] == "tool_calls" and c["message"]["content"] is None
        assert calls and {k["function"]["name"] for k in calls} <= names
        assert len(calls) == 1 or isinstance(choice, str) or choice["type"] == "allowed_tools"
        check_calls(calls, TOOLS)
        deltas = [d for e in server.events("/v1/chat/completions", body) if e != "[DONE]" for d in e["choices"][0]["delta"].get("tool_calls", [])]
        assert [d["function"]["name"] for d in deltas if "id" in d] == [k["function"]["name"] for k in calls]
        assert "".join(d["function"]["arguments"] for d in deltas) == "".join(k["function"]["arguments"] for k in calls)


def test_parallel_off_is_exactly_one(server):
    for seed in range(4):
        c = server.chat(messages=ASK, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, temperature=1.5, seed=seed, enable_thinking=False,
                        max_tokens=300).json()["choices"][0]
        assert len(c["message"]["tool_calls"]) == 1


@pytest.mark.parametrize("think", [False, True])
def test_allowed_auto_masks_other_names(server, think):
    """T3: the demo model calls get_weather by itself; only add may be called."""
    body = dict(messages=ASK, tools=TOOLS, temperature=0, enable_thinking=think, max_tokens=200)
    assert server.chat(**body).json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
    c = server.chat(**body, tool_choice=allowed("auto", "add")).json()["choices"][0]
    assert all(k["function"]["name"] == "add" for k in c["message"].get("tool_calls", []))
    same = server.chat(**body, tool_choice=allowed("auto", "add", "get_weather")).json()["choices"][0]
    assert same["message"]["tool_calls"][0]["function"]["name"] == "get_weather"


@pytest.mark.parametrize("think", [False, True])
def test_strict_holds_arguments_in_auto(server, think):
    """T5: text is free, arguments of a strict tool are its schema's."""
    only = {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"], "additionalProperties": False}
    body = dict(messages=ASK, temperature=0, enable_thinking=think, max_tokens=200)
    loose = server.chat(**body, tools=[tool("get_weather", only)]).json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    strict = server.chat(**body, tools=[tool("get_weather", only, strict=True)]).json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(loose) == {"city": "Paris"} and json.loads(strict) == {"city": "Rome"}
    c = server.chat(**{**body, "messages": [{"role": "user", "content": "What is the capital of France?"}]}, tools=[tool("get_weather", only, strict=True)])
    assert "Paris" in c.json()["choices"][0]["message"]["content"]


def test_what_a_schema_cannot_hold(server):
    """T6: widened and told for tools that are not strict, 400 for those that are, no matter in auto."""
    tools = [tool("get_weather", WEATHER), tool("odd", ODD)]
    r = server.chat(messages=ASK, tools=tools, tool_choice=named("odd"), max_tokens=300, enable_thinking=False)
    assert r.status_code == 200 and r.headers["x-quern-relaxed"] == "odd#/properties/a~1b"
    assert "x-quern-relaxed" not in server.chat(messages=ASK, tools=tools, max_tokens=2).headers
    tools[1]["function"]["strict"] = True
    for choice in ("auto", "required", named("odd")):
        e = server.chat(messages=ASK, tools=tools, tool_choice=choice).json()["error"]
        assert (e["code"], e["param"]) == ("unsupported_schema", "tools[1].function.parameters#/properties/a~1b")
        assert "uniqueItems" in e["message"] and "tools[1].function.parameters" in e["message"]
    for choice in ("none", named("get_weather"), allowed("auto", "get_weather")):
        assert server.chat(messages=ASK, tools=tools, tool_choice=choice, max_tokens=2).status_code == 200


def test_many_odd_tools_never_fail_in_auto(server):
    """T6, last sentence."""
    schemas = [{"$ref": "https://x/y"}, {"type": "nonsense"}, {"not": {"items": {}}}, {"$ref": "#"}, {"pattern": "(?=a)"}]
    tools = [tool("t%d" % i, {"type": "object", "properties": {"p": schemas[i % len(schemas)]}}) for i in range(300)]
    ask = [{"role": "user", "content": "hi"}]
    few = server.chat(messages=ask, tools=tools[:10], max_tokens=3)
    assert few.status_code == 200, few.text
    r = server.chat(messages=ask, tools=tools[:10], tool_choice="required", max_tokens=3, enable_thinking=False)
    assert r.status_code == 200 and "t0#" in r.headers["x-quern-relaxed"]


@pytest.mark.parametrize("think", [False, True])
def test_tools_beside_a_form(server, think):
    """J3: calls, or the form."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": ADD}}
    body = dict(tools=TOOLS, response_format=form, temperature=0, enable_thinking=think, max_tokens=300)
    c = server.chat(messages=ASK, **body).json()["choices"][0]
    assert c["message"]["tool_calls"][0]["function"]["name"] == "get_weather" and c["message"]["content"] is None
    c = server.chat(messages=[{"role": "user", "content": "hi"}], **body, tool_choice="none").json()["choices"][0]
    jsonschema.validate(json.loads(c["message"]["content"]), ADD)
    talk = ASK + [{"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}}]},
                  {"role": "tool", "tool_call_id": "c1", "content": "{\"temperature\": 18}"}]
    c = server.chat(messages=talk, **body).json()["choices"][0]["message"]
    if c["content"]:
        jsonschema.validate(json.loads(c["content"]), ADD)


@pytest.mark.parametrize("fields,code", [
    ({"tool_choice": named("nobody")}, "invalid_value"), ({"tool_choice": {"type": "function"}}, "invalid_value"), ({"tool_choice": {}}, "invalid_value"),
    ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "invalid_value"), ({"tool_choice": allowed("never", "add")}, "invalid_value"),
    ({"tool_choice": allowed("auto")}, "invalid_value"), ({"tool_choice": {"type": "allowed_tools"}}, "invalid_type"), ({"tool_choice": "always"}, "invalid_value"),
    ({"tool_choice": 5}, "invalid_type"), ({"tool_choice": "required", "tools": []}, "invalid_value"), ({"tool_choice": named("add"), "tools": None}, "invalid_value"),
    ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "conflicting_constraints"),
    ({"tool_choice": named("add"), "structured_outputs": {"regex": "a"}}, "conflicting_constraints"),
    ({"tool_choice": allowed("required", "add"), "guided_json": {}}, "conflicting_constraints")])
def test_bad_choices(server, fields, code):
    e = server.chat(**{"messages": ASK, "tools": TOOLS, **fields}).json()["error"]
    assert e["code"] == code and e["param"].startswith("tool_choice"), e


def test_strict_must_be_a_boolean(server):
    e = server.chat(tools=[tool("f", ADD, strict="yes")]).json()["error"]
    assert (e["code"], e["param"]) == ("invalid_type", "tools[0].function.strict")


# ---- clients -----------------------------------------------------------------------------------

class Weather(pydantic.BaseModel, extra="forbid"):
    city: str = pydantic.Field(max_length=10)
    days: int = pydantic.Field(ge=1, le=9)


def test_openai_tools_by_model(server):
    """What instructor does: a pydantic model as a tool, chosen by name, its arguments parsed."""
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", _strict_response_validation=True, max_retries=0)
    for choice in ("required", named("Weather")):
        r = client.chat.completions.parse(model="m", messages=ASK, tools=[openai.pydantic_function_tool(Weather)], tool_choice=choice, temperature=1, seed=3)
        (call,) = r.choices[0].message.tool_calls[:1]
        assert isinstance(call.function.parsed_arguments, Weather)


@pytest.mark.parametrize("think", [False, True])
def test_anthropic_choices(server, think):
    client = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)
    tools = [{"name": "add", "input_schema": ADD}, {"name": "get_weather", "input_schema": WEATHER}]
    thinking = {"type": "enabled", "budget_tokens": 1024} if think else {"type": "disabled"}
    for choice, names in (({"type": "any"}, {"add", "get_weather"}), ({"type": "tool", "name": "add"}, {"add"}),
                          ({"type": "any", "disable_parallel_tool_use": True}, {"add", "get_weather"})):
        r = client.messages.create(model="m", max_tokens=600, messages=ASK, tools=tools, tool_choice=choice, thinking=thinking, extra_body={"temperature": 0})
        calls = [b for b in r.content if b.type == "tool_use"]
        assert r.stop_reason == "tool_use" and calls and {b.name for b in calls} <= names and not [b for b in r.content if b.type == "text"]
        for b in calls:
            jsonschema.validate(b.input, ADD if b.name == "add" else WEATHER)
        with client.messages.stream(model="m", max_tokens=600, messages=ASK, tools=tools, tool_choice=choice, thinking=thinking, extra_body={"temperature": 0}) as s:
            assert [b.input for b in s.get_final_message().content if b.type == "tool_use"] == [b.input for b in calls]
    bad = [{"name": "odd", "input_schema": ODD, "strict": True}]
    with pytest.raises(anthropic.BadRequestError) as e:
        client.messages.create(model="m", max_tokens=9, messages=ASK, tools=bad)
    assert "tools[0].input_schema" in str(e.value) and "uniqueItems" in str(e.value)


def test_ollama_extension(server):
    """V9: tool_choice is no field of Ollama's and acts all the same."""
    r = server.post("/api/chat", {"model": "m", "messages": ASK, "tools": TOOLS, "tool_choice": named("add"), "stream": False, "think": False})
    (call,) = r.json()["message"]["tool_calls"]
    jsonschema.validate(call["function"]["arguments"], ADD)
    r = ollama.Client(host=server.url).chat(model="m", messages=ASK, tools=TOOLS, think=False, options={"temperature": 0})
    assert r.message.tool_calls[0].function.name == "get_weather"


@pytest.mark.parametrize("think", ["none", "high"])
def test_responses_choices(server, think):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    tools = [{"type": "function", "name": "add", "parameters": ADD, "strict": False}, {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}]
    common = dict(model="m", input="What is the weather in Paris?", tools=tools, temperature=0, reasoning={"effort": think}, max_output_tokens=500)
    for choice, names in (("required", {"add", "get_weather"}), ({"type": "function", "name": "add"}, {"add"})):
        r = client.responses.create(**common, tool_choice=choice)
        calls = [i for i in r.output if i.type == "function_call"]
        assert calls and {c.name for c in calls} <= names and not [i for i in r.output if i.type == "message"]
        for c in calls:
            jsonschema.validate(json.loads(c.arguments), ADD if c.name == "add" else WEATHER)
    r = client.responses.parse(model="m", input="hi", text_format=Weather, reasoning={"effort": think}, temperature=1, extra_body={"seed": 3})
    assert isinstance(r.output_parsed, Weather)
    with pytest.raises(openai.BadRequestError) as e:
        client.responses.create(**{**common, "tools": [{"type": "function", "name": "odd", "parameters": ODD, "strict": True}]})
    assert e.value.param == "tools[0].parameters#/properties/a~1b"
