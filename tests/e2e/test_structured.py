"""Answers held to a schema, a pattern or a list of choices (API J1-J6, G3, G9-G12, E3), over every dialect that generates text."""
import json
import re
import threading

import anthropic
import httpx
import jsonschema
import ollama
import openai
import pydantic
import pytest

PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
          "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}}, "required": ["name", "age"], "additionalProperties": False}
ASK = [{"role": "user", "content": "Tell me about a person."}]


def schema_format(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


def text_of(reply):
    (choice,) = reply.json()["choices"]
    return choice["message"]["content"]


# ---- what is accepted (J1, J2) -----------------------------------------------------------------

FORMS = [
    ({"response_format": schema_format(PERSON)}, PERSON),
    ({"response_format": schema_format(PERSON, strict=False, description="d")}, PERSON),
    ({"response_format": {"type": "json_object", "schema": PERSON}}, PERSON),
    ({"structured_outputs": {"json": PERSON}}, PERSON),
    ({"structured_outputs": {"json": json.dumps(PERSON)}}, PERSON),
    ({"guided_json": PERSON}, PERSON), ({"json_schema": PERSON}, PERSON), ({"format": PERSON}, PERSON),
    ({"response_format": schema_format(True)}, True),
    ({"structured_outputs": {"regex": "[0-9]{3}-[a-f]{2}"}}, re.compile("[0-9]{3}-[a-f]{2}")),
    ({"guided_regex": "(yes|no), (really|maybe)"}, re.compile("(yes|no), (really|maybe)")), ({"regex": "x{2,5}y"}, re.compile("x{2,5}y")),
    ({"grammar": 'root ::= "(" root ")" | [a-c]{2}'}, re.compile(r"\(*[abc]{2}\)*")),
    ({"structured_outputs": {"grammar": 'root ::= root "+" n | n\nn ::= [0-9]{1,3} # short\n'}}, re.compile(r"[0-9]{1,3}(\+[0-9]{1,3})*")),
    ({"guided_grammar": 'root ::= "\\u00e9" .? "\\n"'}, re.compile("é.?\n", re.S)), ({"ebnf": 'root ::= <tool_call> "x"'}, ("<tool_call>x",)),
    ({"structured_outputs": {"choice": ["red", "green", "blue"]}}, ("red", "green", "blue")),
    ({"grammar": 'root ::= "sum" (" " num){2,4}\nnum ::= [1-9] [0-9]{0,2}'}, re.compile("sum( [1-9][0-9]{0,2}){2,4}")),
    ({"ebnf": 'root ::= ("ab" | "cd"){1,5} "!" # rest'}, re.compile("(ab|cd){1,5}!")),
    ({"guided_grammar": 'root ::= "(" expr ")" | "()"\nexpr ::= [0-9] ("+" [0-9]){0,6}'}, re.compile(r"\(([0-9](\+[0-9]){0,6})?\)")),
    ({"structured_outputs": {"grammar": 'root ::= "(" [xyz]{3} ")"'}}, re.compile("[(][xyz]{3}[)]")),
    ({"guided_choice": ["<tool_call>", "</think> b"]}, ("<tool_call>", "</think> b")),
    ({"structured_outputs": {"choice": ["über\n\u3000x", "\U0001f600"], "regex": None}}, ("über\n\u3000x", "\U0001f600")),
]


def holds(text, want):
    if isinstance(want, re.Pattern):
        return want.fullmatch(text)
    if isinstance(want, tuple):
        return text in want
    jsonschema.validate(json.loads(text), want)
    return True


@pytest.mark.parametrize("form,want", FORMS, ids=lambda v: json.dumps(v)[:40] if isinstance(v, dict) else "")
def test_every_form_holds_with_and_without_a_thought(server, form, want):
    for fields in ({"temperature": 0}, {"temperature": 2, "seed": 5}, {"temperature": 1.2, "seed": 6, "enable_thinking": False},
                   {"temperature": 2, "seed": 7, "enable_thinking": True, "thinking_budget": 8}):
        r = server.chat(messages=ASK, max_tokens=600, **form, **fields)
        assert r.status_code == 200, r.text
        c = r.json()["choices"][0]
        if c["finish_reason"] == "length":
            continue
        assert c["finish_reason"] == "stop" and c["stop_reason"] is None
        assert holds(c["message"]["content"], want), c
        if fields.get("enable_thinking") is False:
            assert "reasoning_content" not in c["message"]


@pytest.mark.parametrize("form", [{"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}, {"format": "json"}])
def test_json_object(server, form):
    for seed in range(4):
        c = server.chat(messages=ASK, max_tokens=300, temperature=1, seed=seed, logit_bias={}, **form).json()["choices"][0]
        text = c["message"]["content"]
        assert c["finish_reason"] == "length" or isinstance(json.loads(text), dict)
        assert not text or text.lstrip()[:1] in ("", "{")


@pytest.mark.parametrize("form,want", [f for f in FORMS if isinstance(f[1], (re.Pattern, tuple))], ids=lambda v: json.dumps(v)[:30] if isinstance(v, dict) else "")
def test_raw_route_is_held_from_the_first_token(server, form, want):
    for seed in range(3):
        r = server.complete(prompt="<think>", max_tokens=60, temperature=2, seed=seed, **form).json()["choices"][0]
        assert r["finish_reason"] == "stop" and holds(r["text"], want), r


def test_prompts_and_choices_are_each_held(server):
    r = server.complete(prompt=["a", "b"], n=3, max_tokens=20, temperature=2, seed=1, regex="[0-9]{8}").json()
    texts = [c["text"] for c in r["choices"]]
    assert len(texts) == 6 and all(re.fullmatch("[0-9]{8}", t) for t in texts) and len(set(texts)) > 3


# ---- what is refused (J1, J2, J4, E3) ----------------------------------------------------------

BAD = [
    ({"response_format": 5}, "invalid_type", "response_format"), ({"response_format": {"type": 5}}, "invalid_type", "response_format.type"),
    ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
    ({"response_format": {"type": "structural_tag"}}, "unsupported_value", "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": []}}, "invalid_type", "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "missing_required_parameter", "response_format.json_schema.name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}, "invalid_value", "response_format.json_schema.name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a" * 65, "schema": {}}}}, "invalid_value", "response_format.json_schema.name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "missing_required_parameter", "response_format.json_schema.schema"),
    ({"response_format": schema_format("text")}, "invalid_type", "response_format.json_schema.schema"),
    ({"response_format": schema_format({}, strict=1)}, "invalid_type", "response_format.json_schema.strict"),
    ({"response_format": schema_format({"type": "strin"})}, "invalid_schema", "response_format.json_schema.schema"),
    ({"response_format": schema_format({"properties": {"a/b": {"uniqueItems": True, "type": "array"}}})}, "unsupported_schema",
     "response_format.json_schema.schema#/properties/a~1b"),
    ({"response_format": schema_format({"$ref": "https://example.com/s.json"})}, "unsupported_schema", "response_format.json_schema.schema"),
    ({"response_format": schema_format({"enum": [1], "type": "string"})}, "invalid_schema", "response_format.json_schema.schema"),
    ({"response_format": schema_format({"allOf": [{"$ref": "#"}]})}, "invalid_schema", "response_format.json_schema.schema"),
    ({"guided_json": "{"}, "invalid_schema", "guided_json"), ({"guided_json": 5}, "invalid_type", "guided_json"),
    ({"guided_regex": "(?=a)b"}, "invalid_grammar", "guided_regex"), ({"regex": "("}, "invalid_grammar", "regex"), ({"regex": 5}, "invalid_type", "regex"),
    ({"grammar": 'root ::= "a'}, "invalid_grammar", "grammar"), ({"grammar": "root ::= missing"}, "invalid_grammar", "grammar"),
    ({"ebnf": 'start: "a" | /b+/'}, "invalid_grammar", "ebnf"), ({"guided_grammar": ["x"]}, "invalid_type", "guided_grammar"),
    ({"grammar": 'root ::= root "a"'}, "invalid_grammar", "grammar"), ({"grammar": 'root ::= "a"', "regex": "a"}, "conflicting_constraints", "regex"),
    ({"structured_outputs": []}, None, None), ({"structured_outputs": "x"}, "invalid_type", "structured_outputs"),
    ({"structured_outputs": {}}, "missing_required_parameter", "structured_outputs"),
    ({"structured_outputs": {"choice": []}}, "invalid_value", "structured_outputs.choice"),
    ({"structured_outputs": {"choice": ["a", ""]}}, "invalid_value", "structured_outputs.choice[1]"),
    ({"structured_outputs": {"choice": [1]}}, "invalid_type", "structured_outputs.choice[0]"),
    ({"structured_outputs": {"choice": ["a"], "regex": "b"}}, "conflicting_constraints", "structured_outputs.choice"),
    ({"structured_outputs": {"regex": "b", "structural_tag": {"a": 1}}}, "unsupported_value", "structured_outputs.structural_tag"),
    ({"structured_outputs": {"regex": "b", "enable_in_reasoning": 1}}, "invalid_type", "structured_outputs.enable_in_reasoning"),
    ({"structural_tag": {"triggers": []}}, "unsupported_value", "structural_tag"), ({"format": "yaml"}, "invalid_value", "format"),
    ({"response_format": {"type": "json_object"}, "regex": "a"}, "conflicting_constraints", "regex"),
    ({"guided_json": {}, "guided_regex": "a"}, "conflicting_constraints", "guided_regex"),
    ({"format": "json", "structured_outputs": {"regex": "a"}}, "conflicting_constraints", "format"),
    ({"guided_choice": ["a"], "json_schema": {}}, "conflicting_constraints", "json_schema"),
]


@pytest.mark.parametrize("fields,code,param", BAD, ids=lambda v: json.dumps(v)[:50] if isinstance(v, dict) else "")
def test_what_cannot_be_held_is_refused(server, fields, code, param):
    r = server.chat(max_tokens=2, **fields)
    if code is None:
        assert r.status_code == 200
        return
    assert r.status_code == 400, r.text
    e = r.json()["error"]
    assert (e["type"], e["code"], e["param"]) == ("invalid_request_error", code, param), e
    assert server.complete(max_tokens=2, **fields).json()["error"]["code"] == code


def test_a_refusal_names_keyword_and_pointer(server):
    schema = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    e = server.chat(response_format=schema_format(schema)).json()["error"]
    assert "uniqueItems" in e["message"] and "#/properties/x" in e["message"] and e["param"].endswith("#/properties/x")


def test_a_refusal_tells_up_to_eight_faults(server):
    """E3: each with keyword and pointer; param is the place of the first."""
    schema = {"type": "object", "properties": {"a%d" % i: {"type": "strin"} for i in range(12)}}
    for route, param in (({"response_format": schema_format(schema)}, "response_format.json_schema.schema"),
                         ({"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}], "tool_choice": "required"},
                          "tools[0].function.parameters")):
        e = server.chat(**route).json()["error"]
        assert e["param"] == param + "#/properties/a0" and e["code"] == "invalid_schema"
        assert re.findall('keyword "type" at #/properties/(a[0-9]+): ', e["message"]) == ["a%d" % i for i in range(8)], e
    e = server.post("/api/chat", {"model": "m", "messages": ASK, "format": schema}).json()["error"]
    assert e.startswith("'format': ") and e.count('keyword "type"') == 8


def test_numbers_of_a_schema_keep_their_digits(server):
    """J4: in every dialect the schema that is compiled is the one that was sent, to the last digit."""
    schema = '{"type":"array","prefixItems":[{"const":12345678901234567890.123456789},{"minimum":9007199254740993.5,"maximum":9007199254740993.5},{"const":-0}],' \
             '"minItems":3,"maxItems":3}'
    chat = '"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":200'
    named = '{"type":"json_schema","name":"x","schema":%s}' % schema
    tool = '{"name":"f","%s":{"type":"object","properties":{"v":%s},"required":["v"],"additionalProperties":false}%s}'
    call = '"tools":[{"type":"function","function":%s}],"tool_choice":"required"' % (tool % ("parameters", schema, ',"strict":true'))
    cases = [("/v1/chat/completions", chat + ',"response_format":{"type":"json_schema","json_schema":%s}' % named, lambda r: r["choices"][0]["message"]["content"]),
             ("/v1/chat/completions", chat + ',"guided_json":%s' % json.dumps(schema), lambda r: r["choices"][0]["message"]["content"]),
             ("/v1/chat/completions", chat + "," + call, lambda r: r["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]),
             ("/v1/responses", '"model":"m","input":"x","text":{"format":%s}' % named, lambda r: r["output"][-1]["content"][0]["text"]),
             ("/v1/messages", chat + ',"output_config":{"format":%s}' % named, lambda r: r["content"][-1]["text"]),
             ("/api/chat", '"model":"m","messages":[{"role":"user","content":"x"}],"stream":false,"format":%s' % schema, lambda r: r["message"]["content"])]
    for path, body, answer in cases:
        r = httpx.post(server.url + path, content="{%s,\"temperature\":0}" % body, headers={"content-type": "application/json"}, timeout=30)
        assert r.status_code == 200, (path, r.text)
        values = json.loads(answer(r.json()), parse_float=str, parse_int=str)
        a, b, zero = values["v"] if isinstance(values, dict) else values
        assert a == "12345678901234567890.123456789" and re.fullmatch("9007199254740993[.]50*", b) and zero in ("0", "-0"), (path, values)


def test_limits_of_a_schema(server):
    deep = {}
    for _ in range(70):
        deep = {"items": deep}
    for schema in (deep, {"enum": ["x%d" % i for i in range(60000)]}, {"description": "x" * (1 << 20)}):
        e = server.chat(guided_json=schema).json()["error"]
        assert e["code"] == "grammar_too_complex" and e["param"].startswith("guided_json"), e


def test_refusals_are_counted(server):
    before = server.metric("quern_grammar_rejected_total", code="invalid_grammar")
    n = server.metric("quern_grammar_compile_seconds_count")
    for _ in range(2):  # the second time the refusal is known
        server.chat(regex="(never seen")
    assert server.metric("quern_grammar_rejected_total", code="invalid_grammar") == before + 2
    assert server.metric("quern_grammar_compile_seconds_count") == n + 1
    before = server.metric("quern_grammar_rejected_total", code="conflicting_constraints")
    server.chat(regex="a", format="json")
    assert server.metric("quern_grammar_rejected_total", code="conflicting_constraints") == before + 1


# ---- how it goes with everything else ----------------------------------------------------------

@pytest.mark.parametrize("think", [False, True])
def test_stream_joins_to_the_plain_reply(server, think):
    body = {"model": "m", "messages": ASK, "max_tokens": 400, "temperature": 1.5, "seed": 3, "enable_thinking": think,
            "response_format": schema_format(PERSON), "logprobs": True, "return_token_ids": True, "thinking_budget": 20}
    plain = server.post("/v1/chat/completions", body).json()["choices"][0]
    events = [e for e in server.events("/v1/chat/completions", body) if e != "[DONE]"]
    deltas = [e["choices"][0] for e in events if e["choices"]]
    for key in ("content", "reasoning_content"):
        assert "".join(d["delta"].get(key) or "" for d in deltas) == (plain["message"].get(key) or "")
    assert sum((d.get("token_ids") or [] for d in deltas), []) == plain["token_ids"]
    streamed = [i["logprob"] for d in deltas if d["logprobs"] for i in d["logprobs"].get("content") or []]
    assert streamed == [i["logprob"] for i in plain["logprobs"]["content"]]
    assert bool(plain["message"].get("reasoning_content")) == think


def test_logprobs_are_of_the_model_not_of_the_mask(server):
    """G12: before the mask; the drawn token need not be among the best."""
    c = server.chat(messages=ASK, max_tokens=8, temperature=0, enable_thinking=False, logprobs=True, top_logprobs=3, regex="[0-9]{6}").json()["choices"][0]
    first = c["logprobs"]["content"][0]
    assert first["token"] not in [t["token"] for t in first["top_logprobs"]] and first["logprob"] < first["top_logprobs"][-1]["logprob"]


def test_a_grammar_wins_over_bans(server):
    """G10: where bans leave nothing, they are lifted for that step; else they act."""
    ids = {c: server.post("/tokenize", {"content": c}).json()["tokens"][0] for c in "ab"}
    text = lambda **f: server.complete(max_tokens=8, temperature=0, **f).json()["choices"][0]["text"]  # noqa: E731
    assert text(regex="a{3}", logit_bias={str(ids["a"]): -100}) == "aaa"
    assert text(regex="a{3}", allowed_token_ids=[ids["b"]]) == "aaa"
    assert text(regex="[ab]", logit_bias={str(ids["a"]): -100}) == "b"
    assert text(regex="[ab]", allowed_token_ids=[ids["a"]]) == "a"
    assert text(regex="xyz", bad_words=["y"]) == "xyz"


def test_end_of_the_grammar_is_the_end(server):
    """G9: a finished grammar ends generation whatever min_tokens and ignore_eos say."""
    for fields in ({"min_tokens": 40}, {"ignore_eos": True}, {"min_tokens": 40, "ignore_eos": True}):
        r = server.complete(regex="ab", max_tokens=50, **fields).json()["choices"][0]
        assert (r["text"], r["finish_reason"], r["stop_reason"]) == ("ab", "stop", None)
    r = server.complete(regex="a{1,30}", max_tokens=100, min_tokens=10, temperature=0, return_token_ids=True).json()["choices"][0]
    assert r["finish_reason"] == "stop" and len(r["token_ids"]) >= 10 and re.fullmatch("a{1,30}", r["text"])
    r = server.complete(regex="a{1,30}", max_tokens=100, ignore_eos=True).json()["choices"][0]
    assert r["finish_reason"] == "stop" and r["text"] == "a" * 30


def test_stops_and_limits_cut(server):
    r = server.complete(regex="[0-4]{3}stop[0-9]{9}", max_tokens=50, stop="stop").json()["choices"][0]
    assert r["finish_reason"] == "stop" and r["stop_reason"] == "stop" and re.fullmatch("[0-4]{3}", r["text"])
    r = server.complete(regex="[0-9]{40}", max_tokens=5).json()["choices"][0]
    assert r["finish_reason"] == "length" and re.fullmatch("[0-9]+", r["text"])
    r = server.complete(regex="[0-9]{40}", max_tokens=0).json()["choices"][0]
    assert r["finish_reason"] == "length" and r["text"] == ""


def test_penalties_and_seeds_go_on_working(server):
    f = dict(regex="[a-z]{30}", max_tokens=60, temperature=1.3, seed=9, repetition_penalty=1.5, presence_penalty=0.5)
    a, b = (server.complete(**f).json()["choices"][0]["text"] for _ in range(2))
    assert a == b and re.fullmatch("[a-z]{30}", a) and a != server.complete(**{**f, "seed": 10}).json()["choices"][0]["text"]


def test_in_reasoning_it_governs_everything(server):
    c = server.chat(messages=ASK, max_tokens=60, enable_thinking=True,
                    structured_outputs={"choice": ["<think>\nw\n</think>\n\ndone"], "enable_in_reasoning": True}).json()["choices"][0]
    assert c["message"]["content"] == "done" and c["message"]["reasoning_content"] == "w"


def test_budget_then_schema(server):
    """R5: forced tokens pass through the grammar, then the answer's rules hold."""
    for budget in (0, 1, 5):
        r = server.chat(messages=ASK, max_tokens=300, temperature=0, enable_thinking=True, thinking_budget=budget, response_format=schema_format(PERSON))
        c = r.json()["choices"][0]
        jsonschema.validate(json.loads(c["message"]["content"]), PERSON)
        assert r.json()["usage"]["completion_tokens_details"]["reasoning_tokens"] >= budget


def test_a_forced_text_runs_through_the_parsers(server):
    """C2: structured_outputs.choice with tools and tool_choice auto."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}]
    text = 'ok\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
    for think in (False, True):
        body = dict(messages=ASK, tools=tools, structured_outputs={"choice": [text]}, max_tokens=400, enable_thinking=think, temperature=0)
        c = server.chat(**body).json()["choices"][0]
        (call,) = c["message"]["tool_calls"]
        assert c["message"]["content"] == "ok" and c["finish_reason"] == "tool_calls"
        assert (call["function"]["name"], call["function"]["arguments"]) == ("f", '{"x": 1}')
    c = server.chat(**{**body, "structured_outputs": {"choice": ["use `<tool_call>` tags"]}}).json()["choices"][0]
    assert c["message"]["content"] == "use `<tool_call>` tags" and "tool_calls" not in c["message"]


def test_a_grammar_that_nests_too_deep_ends_with_an_error(server):
    """J4: never a text without its constraint; the rest of the server goes on."""
    (bracket,) = server.post("/tokenize", {"content": "["}).json()["tokens"]
    body = {"model": "m", "prompt": "x", "max_tokens": 700, "grammar": 'root ::= "[" root "]" | "x"', "allowed_token_ids": [bracket]}
    r = server.post("/v1/completions", body)
    assert r.status_code == 500 and r.json()["error"]["code"] == "grammar_limit" and r.json()["error"]["type"] == "server_error", r.text
    events = server.events("/v1/completions", body)
    assert events[-1]["error"]["code"] == "grammar_limit" and "".join(e["choices"][0]["text"] for e in events[:-1]).strip("[") == ""
    assert server.complete(**{**body, "max_tokens": 20}).json()["choices"][0]["text"] == "[" * 20


# ---- drafts (G4, G14) --------------------------------------------------------------------------

def test_forced_bytes_are_drafted_and_confirmed(server):
    text = "The quick brown fox jumps over the lazy dog and runs into the forest."
    drafts = server.metric("vllm:spec_decode_num_draft_tokens_total")
    r = server.complete(structured_outputs={"choice": [text]}, max_tokens=100, temperature=0).json()
    t = r["timings"]
    assert r["choices"][0]["text"] == text and t["draft_n"] > 0 and 0 <= t["draft_n_accepted"] <= t["draft_n"]
    assert server.metric("vllm:spec_decode_num_draft_tokens_total") == drafts + t["draft_n"]


# ---- neighbours (J4, G4) -----------------------------------------------------------------------

def test_hostile_grammars_disturb_nobody(server):
    plain = dict(messages=ASK, max_tokens=60, temperature=0, logprobs=True, top_logprobs=2, ignore_eos=True)
    alone = server.chat(**plain).json()["choices"][0]
    hostile = [{"regex": "(a*)*b"}, {"regex": "((a{1000}){1000}){1000}"}, {"regex": "(a?){3000}a{3000}"}, {"regex": "[ab]*a[ab]{200}"},
               {"guided_json": {"anyOf": [{"properties": {"p%d" % i: {"type": "string"}}} for i in range(200)]}}, {"regex": "foo**"},
               {"guided_json": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
               {"guided_json": {"type": "array", "items": {"type": "array", "maxItems": 10 ** 9}, "minItems": 10 ** 9}},
               {"guided_json": {"oneOf": [{"pattern": "a" * i, "type": "string"} for i in range(1, 200)]}}]
    seen = []
    threads = [threading.Thread(target=lambda h=h: seen.append(server.chat(messages=ASK, max_tokens=30, temperature=1, seed=1, enable_thinking=False, **h))) for h in hostile]
    for t in threads:
        t.start()
    near = [server.chat(**plain).json()["choices"][0] for _ in range(3)]
    for t in threads:
        t.join()
    assert all(r.status_code in (200, 400, 500) for r in seen), [r.status_code for r in seen]
    assert all(r.json()["error"]["code"] in ("invalid_grammar", "invalid_schema", "unsupported_schema", "grammar_too_complex", "grammar_limit")
               for r in seen if r.status_code != 200), [r.text for r in seen]
    assert all(n == alone for n in near)
    assert server.get("/health").json()["status"] == "ok"


def test_cancel_under_a_grammar(slow):
    with httpx.stream("POST", slow.url + "/v1/chat/completions", timeout=30, json={"model": "m", "messages": ASK, "stream": True, "max_tokens": 100000,
                      "structured_outputs": {"regex": "[0-9]*"}, "ignore_eos": True}) as r:
        next(r.iter_lines())
    for _ in range(100):
        if slow.metric("vllm:num_requests_running") == 0:
            break
        threading.Event().wait(0.05)
    assert slow.metric("vllm:num_requests_running") == 0


def test_two_ranks_give_the_same(server, start):
    two = start("--tensor-parallel-size", "2")
    for f in ({"response_format": schema_format(PERSON), "temperature": 0}, {"regex": "[a-z ]{20}", "temperature": 0}):
        a, b = (s.chat(messages=ASK, max_tokens=200, **f).json()["choices"][0]["message"] for s in (server, two))
        assert a == b


# ---- clients and dialects ----------------------------------------------------------------------

class Address(pydantic.BaseModel, extra="forbid"):
    street: str = pydantic.Field(max_length=10)
    number: int = pydantic.Field(ge=1, le=999)


class Person(pydantic.BaseModel, extra="forbid"):
    name: str = pydantic.Field(max_length=10)
    age: int = pydantic.Field(ge=0, le=150)
    addresses: list[Address] = pydantic.Field(max_length=2)


@pytest.mark.parametrize("think", [False, True])
def test_openai_parse(server, think):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", _strict_response_validation=True, max_retries=0)
    r = client.chat.completions.parse(model="m", messages=ASK, response_format=Person, temperature=1, seed=4, extra_body={"enable_thinking": think})
    assert isinstance(r.choices[0].message.parsed, Person)
    with client.chat.completions.stream(model="m", messages=ASK, response_format=Person, temperature=1, seed=4, extra_body={"enable_thinking": think}) as s:
        assert s.get_final_completion().choices[0].message.parsed == r.choices[0].message.parsed


@pytest.mark.parametrize("think", [False, True])
def test_ollama_format(server, think):
    client = ollama.Client(host=server.url)
    r = client.chat(model="m", messages=ASK, format=Person.model_json_schema(), think=think, options={"seed": 4})
    Person.model_validate_json(r.message.content)
    assert bool(r.message.thinking) == think
    r = client.generate(model="m", prompt="A person", format=Person.model_json_schema(), think=think, options={"seed": 4})
    Person.model_validate_json(r.response)
    parts = list(client.chat(model="m", messages=ASK, format="json", think=think, options={"seed": 4, "num_predict": 300}, stream=True))
    assert "".join(p.message.content for p in parts).lstrip()[:1] in ("{", "")
    for bad in ("yaml", 5, {"type": "strin"}):
        e = server.post("/api/chat", {"model": "m", "messages": ASK, "format": bad})
        assert e.status_code == 400 and "'format'" in e.json()["error"], e.text


@pytest.mark.parametrize("think", [False, True])
def test_anthropic_output_format(server, think):
    client = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)
    for field in ("output_config", "output_format"):
        form = {"type": "json_schema", "schema": PERSON}
        r = client.messages.create(model="m", max_tokens=500, messages=ASK, thinking={"type": "enabled", "budget_tokens": 1024} if think else
                                   {"type": "disabled"}, extra_body={field: {"format": form} if field == "output_config" else form, "seed": 5, "temperature": 0.5})
        text = [b for b in r.content if b.type == "text"]
        assert len(text) == 1
        jsonschema.validate(json.loads(text[0].text), PERSON)
        assert any(b.type == "thinking" for b in r.content) == think
    for bad, word in (({"format": {"type": "xml"}}, "output_config.format"), ({"format": {"type": "json_schema"}}, "output_config.format.schema"),
                      ({"format": {"type": "json_schema", "schema": {"type": "strin"}}}, "output_config.format.schema")):
        e = server.post("/v1/messages", {"model": "m", "max_tokens": 9, "messages": ASK, "output_config": bad})
        assert e.status_code == 400 and word in e.json()["error"]["message"], e.text
