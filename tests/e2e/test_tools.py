"""Thoughts and tool calls in generated text (API R1, R2, R7, T7-T9, T11, G20), offline and over HTTP."""
import json
import random
import subprocess

import openai
import pytest

from conftest import BIN

TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
        "x": {"type": "integer"}, "y": {"type": "string"}, "z": {"type": ["string", "null"]}, "o": {"type": "object"},
        "b": {"type": "boolean"}, "n": {"type": "number"}}}}},
    {"type": "function", "function": {"name": "g"}},
    {"type": "function", "function": {"name": "node", "parameters": {"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {
        "v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}}, "required": ["v"], "additionalProperties": False}}}}},
    {"type": "function", "function": {"name": "parts", "parameters": {"allOf": [{"properties": {"a": {"type": "number"}}}, {"$ref": "#/$defs/B"}],
        "anyOf": [{"properties": {"k": {"const": 1}}}, {"properties": {"k": {"const": 2}}}], "$defs": {"B": {"properties": {"b": {"type": "boolean"}}}}}}},
]
# raw text, format, thinking -> reasoning, content, calls
CASES = [
 # text, format, thinking, reasoning, content, calls
    ("ok\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>","hermes","off","","ok",[("f",'{"x": 1}')]),
    ('<tool_call>\n{"name": "f", "arguments": {"x":',"hermes","off","","",[("f",'{"x":')]),
    ('<tool_call>\n{"na',"hermes","off","",'<tool_call>\n{"na',[]),
    ('<tool_call>\n<function=f>\n<parameter=x>\n7\n</parameter>\n<parameter=y>\n7\n</parameter>\n</function>\n</tool_call>',"hermes","off","","",[("f",'{"x": 7, "y": "7"}')]),
    ('a\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',"hermes","prompt_opened","a","",[("f","{}")]),
    ('a\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\nso</think>\n\nhi',"hermes","prompt_opened",'a\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\nso',"hi",[]),
    ("use `<tool_call>` tags","hermes","off","","use `<tool_call>` tags",[]),
    ("<tool_call>hello","hermes","off","","<tool_call>hello",[]),
    ("<tool_call>hello <tool_call>{\"name\":\"g\"}</tool_call>","hermes","off","","<tool_call>hello",[("g","{}")]),
    ('<tool_call>{"name":"g","arguments":null}</tool_call> \n <tool_call>{"arguments":{"a":"</tool_call>"},"name":"g"}</tool_call>\n',"hermes","off","","",[("g","{}"),("g",'{"a":"</tool_call>"}')]),
    ('<tool_call>{"name":"g","arguments":"{\\"a\\": 1}"}</tool_call>tail',"hermes","off","","tail",[("g",'{"a": 1}')]),
    ('<tool_call>{"name":"g","arguments":{"a":1}',"hermes","off","","",[("g",'{"a":1}')]),
    ('<tool_call>{"name":"g","arguments":{"a":1}}',"hermes","off","","",[("g",'{"a":1}')]),
    ('<tool_call>{"name":"g","arguments":{"a":1}}\n</tool',"hermes","off","","",[("g",'{"a":1}')]),
    ('<tool_call>\n<function=f>\n</function>\n<',"qwen3_coder","off","","",[("f","{}")]),
    ('<tool_call>\n<function=f>\n</function>\n<func',"qwen3_coder","off","","<func",[("f","{}")]),
    ('<tool_call>{"nome":"g"}</tool_call> x',"hermes","off","",'<tool_call>{"nome":"g"}</tool_call> x',[]),
    ('<tool_call><tool_call>{"name":"g"}</tool_call>',"hermes","off","",'<tool_call>',[("g","{}")]),
    ('x <tool_call>{"name": 5} <tool_call>{"name":"g"}</tool_call>',"hermes","off","",'x <tool_call>{"name": 5}',[("g","{}")]),
    ('<tool_call>{bad<tool_call>{"name":"g"}</tool_call>',"hermes","off","",'<tool_call>{bad',[("g","{}")]),
    ('<function=f>\n<parameter=y>\na <b> </parameter> c\n</parameter>\n</function>',"qwen3_coder","off","","",[("f",'{"y": "a <b> </parameter> c"}')]),
    ('see <function=f> here',"qwen3_coder","off","","see <function=f> here",[]),
    ('<function=zz>\n',"qwen3_coder","off","","<function=zz>\n",[]),
    ('<function=zz>\n<tool_call>\n<function=f>\n</function>\n</tool_call>',"qwen3_coder","off","","<function=zz>",[("f","{}")]),
    ('<function=f\n<tool_call>\n<function=new>\n</function>\n</tool_call>',"qwen3_coder","off","","<function=f",[("new","{}")]),
    ('<tool_call>\n<function=f>\n<parameter=z>\nnull\n</parameter>\n<parameter=z>\nagain\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n<parameter=n>\n1.5\n</parameter>\n<parameter=o>\n{"k": [1]}\n</parameter>\n<parameter=x>\nseven\n</parameter>\n</function>\n</tool_call>',"qwen3_coder","off","","",[("f",'{"z": null, "b": true, "n": 1.5, "o": {"k": [1]}, "x": "seven"}')]),
    # T8: a schema's members are those of $ref, allOf, anyOf and oneOf around its properties
    ('<tool_call>\n<function=node>\n<parameter=v>\n7\n</parameter>\n<parameter=next>\n{"v": 8}\n</parameter>\n<parameter=w>\n9\n</parameter>\n</function>\n</tool_call>',"qwen3_coder","off","","",[("node",'{"v": 7, "next": {"v": 8}, "w": "9"}')]),
    ('<tool_call>\n<function=parts>\n<parameter=a>\n1.5\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n<parameter=k>\n2\n</parameter>\n</function>\n</tool_call>',"qwen3_coder","off","","",[("parts",'{"a": 1.5, "b": true, "k": 2}')]),
    ('<tool_call>\n<function=f>\n<parameter=y>\nab',"qwen3_coder","off","","",[("f",'{"y": "ab')]),
    ('<tool_call>\n<function=f>\n<parameter=x>\n12',"qwen3_coder","off","","",[("f",'{"x": ')]),
    ('<tool_call>\n<function=f>\n<parameter=y>\nab\n</parameter>\n<para',"qwen3_coder","off","","",[("f",'{"y": "ab"')]),
    ('<tool_call>\n<function=f>\n</function>\n</tool_call>',"qwen3_coder","off","","",[("f",'{}')]),
    ('<tool_call>\n<function=g>\n<parameter=q>\n5 é "x"\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=f>\n</function>\n</tool_call>',"qwen3_coder","off","","",[("g",'{"q": "5 é \\"x\\""}'),("f","{}")]),
    ('<think>\nplan\n</think>\n\nhi\n<tool_call>{"name":"g"}</tool_call>',"hermes","model_opens","plan","hi",[("g","{}")]),
    ('t <tool_call>{"name":"nope"}</tool_call>',"hermes","prompt_opened",'t <tool_call>{"name":"nope"}</tool_call>',"",[]),
    ('t <tool_call> said</think>ok',"hermes","prompt_opened",'t <tool_call> said',"ok",[]),
    ('t <tool_call><tool_call>{"name":"g"}</tool_call>\n',"hermes","prompt_opened",'t <tool_call>',"",[("g","{}")]),
    ("Thought: I look\nAction: f\nAction Input: {\"x\": 1}\nObservation: no","react","off","","I look",[("f",'{"x": 1}')]),
    ("Thought: know\nFinal Answer: 4\nlines","react","off","","know\n4\nlines",[]),
    ("Action: f\nAction Input: none\nx","react","off","","Action: f\nAction Input: none\nx",[]),
    ("✿FUNCTION✿: g\n✿ARGS✿: {\"a\": \"✿\"}\n✿RESULT✿: 5","function","off","","",[("g",'{"a": "✿"}')]),
    ("hi  \n","hermes","off","","hi  \n",[]),
]


# the text a custom tool's arguments hold, however they are written (T10)
CUSTOM = [('<tool_call>{"name":"k","arguments":{"input":"a\\n\\u00e9\\"b"}}</tool_call>', 'a\né"b'), ('<tool_call>{"name":"k","arguments":{}}</tool_call>', "{}"),
          ('<tool_call>{"name":"k","arguments":{"input":"cut \\u00e', "cut "), ('<tool_call>{"name":"k","arguments":{"input":"cut \\', "cut "),
          ('<tool_call>{"name":"k","arguments":{"input":"', ""), ('<tool_call>{"name":"k","arguments":{"inp', '{"inp')]


@pytest.mark.parametrize("text,want", CUSTOM)
def test_custom_tools(server, text, want):
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "custom", "custom": {"name": "k"}}, TOOLS[1]], "enable_thinking": False,
            "structured_outputs": {"choice": [text + '<tool_call>{"name":"g"}</tool_call>' if text.endswith("</tool_call>") else text]}}
    (first, *more) = server.post("/v1/chat/completions", {"model": "m", **body}).json()["choices"][0]["message"]["tool_calls"]
    assert first["type"] == "custom" and first["custom"] == {"name": "k", "input": want} and "function" not in first
    assert [c["function"]["name"] for c in more] == (["g"] if text.endswith("</tool_call>") else [])
    got = {}
    for e in server.events("/v1/chat/completions", {"model": "m", **body})[:-1]:
        for t in e["choices"][0]["delta"].get("tool_calls", []):
            c = got.setdefault(t["index"], {"text": ""})
            c.update({k: t[k] for k in ("type", "id") if k in t})
            c["text"] += t.get("custom", {}).get("input", "") + t.get("function", {}).get("arguments", "")
    assert got[0]["type"] == "custom" and got[0]["text"] == want and len(got) == 1 + len(more)


def test_custom_input_comes_as_it_is_written(slow):
    """G17, T10: deltas of the text, not of its JSON; what is ready at once is one delta, so a slow server is asked."""
    text = "*** Begin Patch\n+ \"é\" \\ \t\n" * 5
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "custom", "custom": {"name": "k"}}], "enable_thinking": False,
            "structured_outputs": {"choice": ['<tool_call>{"name":"k","arguments":' + json.dumps({"input": text}) + "}</tool_call>"]}}
    chunks = [t for e in slow.events("/v1/chat/completions", body)[:-1] for t in e["choices"][0]["delta"].get("tool_calls", [])]
    deltas = [t["custom"]["input"] for t in chunks]
    assert "".join(deltas) == text and len(deltas) > 2 and deltas[0] == "" and all(deltas[1:]) and all(t["index"] == 0 for t in chunks)


def test_logprobs_go_with_text_and_never_with_calls(server):
    """C10: in a chunk they belong to its content delta, else null; together they are the plain reply's."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "enable_thinking": False, "logprobs": True, "temperature": 0,
            "structured_outputs": {"choice": ['well then\n<tool_call>\n{"name": "f", "arguments": {"y": "a b c"}}\n</tool_call>']}}
    plain = server.post("/v1/chat/completions", body).json()["choices"][0]["logprobs"]["content"]
    deltas = [e["choices"][0] for e in server.events("/v1/chat/completions", body)[:-1]]
    assert all(d["logprobs"] is None for d in deltas if "content" not in d["delta"]) and any("tool_calls" in d["delta"] for d in deltas)
    assert plain and [i for d in deltas if d["logprobs"] for i in d["logprobs"]["content"]] == plain


@pytest.mark.parametrize("rest,calls", [("\nso\n</think>\n\nhi", 0), ("", 1)])
def test_calls_in_a_thought_told_in_the_content(server, rest, calls):
    """R6, R7: a thought that stays in the content is a thought all the same."""
    text = '<think>\na\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>' + rest
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "enable_thinking": True, "reasoning_format": "none",
            "structured_outputs": {"choice": [text], "enable_in_reasoning": True}}
    m = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]
    assert len(m.get("tool_calls", [])) == calls and m["content"] == ("<think>\na" if calls else text)
    deltas = [e["choices"][0]["delta"] for e in server.events("/v1/chat/completions", body)[:-1]]
    assert "".join(d.get("content") or "" for d in deltas) == m["content"] and any("tool_calls" in d for d in deltas) == bool(calls)


@pytest.fixture(scope="module")
def tools_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tools") / "tools.json"
    path.write_text(json.dumps(TOOLS))
    return str(path)


def parse(text, fmt, thinking, tools, split):
    out = subprocess.run([BIN, "parse-output", "--format", fmt, "--thinking", thinking, "--tools", tools, "--split", str(split)],
                         input=text if isinstance(text, bytes) else text.encode(), capture_output=True, check=True).stdout
    return json.loads(out)


@pytest.mark.parametrize("case", CASES, ids=lambda c: repr(c[0][:40]))
def test_named_texts(case, tools_file):
    text, fmt, thinking, reasoning, content, calls = case
    for split in (0, 1, 2, 3, 7):
        got = parse(text, fmt, thinking, tools_file, split)
        assert (got["reasoning"], got["content"]) == (reasoning, content), split
        assert [(c["name"], c["arguments"]) for c in got["tool_calls"]] == calls, split


PIECES = ["<tool_call>", "</tool_call>", "<think>", "</think>", "<function=f>", "<function=zz>", "</function>", "<parameter=y>", "<parameter=x>",
          "</parameter>", '{"name": "g"', '"arguments": {', '"a": "<tool_call>"', "}", "}}", ",", "\n", " ", "text", "é", "null", "7", '"', "\\",
          "Action: f\n", "Action Input: {}", "Observation:", "<", "</", "✿FUNCTION✿: g\n", "✿ARGS✿: {}"]


@pytest.mark.parametrize("fmt", ["hermes", "qwen3_coder", "react", "function"])
def test_any_split_gives_the_same(fmt, tools_file):
    rnd = random.Random(fmt)
    for _ in range(40):
        text = "".join(rnd.choice(PIECES) for _ in range(rnd.randrange(1, 30)))
        thinking = rnd.choice(["off", "model_opens", "prompt_opened"])
        whole = parse(text, fmt, thinking, tools_file, 0)
        assert parse(text, fmt, thinking, tools_file, 1) == whole, text
        assert parse(text, fmt, thinking, tools_file, rnd.randrange(2, 9)) == whole, text


WEATHER = [{"type": "function", "function": {"name": "get_weather", "description": "Get the current weather in a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]


@pytest.fixture(scope="module")
def weather():
    with open("tests/data/demo_golden.json") as f:
        golden = json.load(f)
    tools = next(g["tools"] for g in golden if g["tools"] and g["tools"][0]["function"]["name"] == "get_weather")
    return tools[:1]


def ask(server, weather, **fields):
    body = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": weather, "temperature": 0, "max_tokens": 200}
    return server.chat(**{**body, **fields})


@pytest.mark.parametrize("think", [False, True])
def test_call_result_answer(server, weather, think):
    r = ask(server, weather, enable_thinking=think).json()
    m = r["choices"][0]["message"]
    assert r["choices"][0]["finish_reason"] == "tool_calls" and m["content"] is None
    assert bool(m.get("reasoning_content")) == think
    (call,) = m["tool_calls"]
    assert call["type"] == "function" and call["id"].startswith("call_") and len(call["id"]) == 29
    assert call["function"]["name"] == "get_weather" and json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    talk = [{"role": "user", "content": "What is the weather in Paris?"}, m,
            {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"temperature": 18, "condition": "sunny"})}]
    r = ask(server, weather, messages=talk, enable_thinking=think).json()
    assert r["choices"][0]["finish_reason"] == "stop" and "tool_calls" not in r["choices"][0]["message"]
    assert "18" in r["choices"][0]["message"]["content"]


def test_stream_joins_to_the_plain_reply(server, weather):
    plain = ask(server, weather).json()["choices"][0]
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", _strict_response_validation=True, max_retries=0)
    deltas, finish = [], None
    for ev in client.chat.completions.create(model="m", messages=[{"role": "user", "content": "What is the weather in Paris?"}], tools=weather,
                                             temperature=0, max_tokens=200, stream=True):
        for c in ev.choices:
            deltas += c.delta.tool_calls or []
            finish = c.finish_reason or finish
            assert not c.delta.content or not c.delta.content.strip().startswith("<tool_call")
    first = deltas[0]
    assert first.index == 0 and first.id.startswith("call_") and first.type == "function" and first.function.name == "get_weather"
    assert first.function.arguments == "" and all(d.id is None and d.function.name is None for d in deltas[1:])
    assert "".join(d.function.arguments for d in deltas) == plain["message"]["tool_calls"][0]["function"]["arguments"]
    assert finish == plain["finish_reason"] == "tool_calls"


def test_none_bans_calls_and_keeps_the_prompt(server, weather):
    auto, none = ask(server, weather).json(), ask(server, weather, tool_choice="none").json()
    assert auto["usage"]["prompt_tokens"] == none["usage"]["prompt_tokens"]
    assert "tool_calls" not in none["choices"][0]["message"] and "<tool_call>" not in none["choices"][0]["message"]["content"]


def test_parallel_off_ends_after_one(server, weather):
    r = ask(server, weather, parallel_tool_calls=False).json()["choices"][0]
    assert len(r["message"]["tool_calls"]) == 1 and r["finish_reason"] == "tool_calls"


def test_cut_call(server, weather):
    full = ask(server, weather, enable_thinking=False, return_token_ids=True).json()["choices"][0]["token_ids"]
    kinds = set()
    for n in range(1, len(full)):
        c = ask(server, weather, enable_thinking=False, max_tokens=n).json()["choices"][0]
        assert c["finish_reason"] == "length"
        calls = c["message"].get("tool_calls", [])
        text = c["message"]["content"]
        kinds.add("call" if calls else "text")
        assert (text is None) == bool(calls)
        if not calls:
            assert not text or "<tool_call>".startswith(text[:11])
    assert kinds == {"call", "text"}


def test_bad_choices(server, weather):
    for fields, param in (({"tool_choice": "always"}, "tool_choice"), ({"tool_choice": 5}, "tool_choice"), ({"tools": {}}, "tools"),
                          ({"tools": [], "tool_choice": "required"}, "tool_choice")):
        r = ask(server, weather, **fields)
        assert r.status_code == 400 and r.json()["error"]["param"] == param, r.text
