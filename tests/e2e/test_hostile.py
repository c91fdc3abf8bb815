"""Hostile bodies on every dialect (API V1-V4, J4, C7, T1; E3): 4xx in bounded time, and others go on undisturbed."""
import json
import threading
import time

import httpx
import pytest

from conftest import alive

U = [{"role": "user", "content": "hi"}]
ROUTES = {  # route -> a body it accepts, as a function of a text
    "/v1/chat/completions": lambda t: {"model": "m", "messages": [{"role": "user", "content": t}], "max_tokens": 1},
    "/v1/completions": lambda t: {"model": "m", "prompt": t, "max_tokens": 1},
    "/v1/responses": lambda t: {"model": "m", "input": t, "max_output_tokens": 1, "store": False},
    "/v1/messages": lambda t: {"model": "m", "messages": [{"role": "user", "content": t}], "max_tokens": 1},
    "/api/chat": lambda t: {"model": "m", "messages": [{"role": "user", "content": t}], "stream": False, "options": {"num_predict": 1}},
    "/api/generate": lambda t: {"model": "m", "prompt": t, "stream": False, "options": {"num_predict": 1}},
    "/api/v0/chat/completions": lambda t: {"model": "m", "messages": [{"role": "user", "content": t}], "max_tokens": 1},
    "/api/v1/chat": lambda t: {"model": "m", "input": t, "max_output_tokens": 1},
    "/completion": lambda t: {"prompt": t, "n_predict": 1},
    "/infill": lambda t: {"input_prefix": t, "input_suffix": "x", "n_predict": 1},
    "/v1/embeddings": lambda t: {"model": "m", "input": t},
    "/rerank": lambda t: {"model": "m", "query": t, "documents": ["x"]},
    "/v1/score": lambda t: {"model": "m", "text_1": t, "text_2": "x"},
    "/tokenize": lambda t: {"content": t},
}


@pytest.fixture(scope="module")
def neighbour(server):
    """Somebody else asks the same thing all the time and must always get the same answer."""
    stop, bad, seen = threading.Event(), [], []

    def run():
        while not stop.is_set():
            r = server.chat(temperature=0, max_tokens=12, seed=1)
            seen.append(r.json()["choices"][0]["message"] if r.status_code == 200 else r.text)
            if r.status_code != 200 or seen[-1] != seen[0]:
                bad.append(r.text)
            time.sleep(0.05)

    t = threading.Thread(target=run)
    t.start()
    yield
    stop.set()
    t.join()
    assert len(seen) > 3 and not bad, bad[:1]


def send(server, path, body, limit=5.0):
    """The status of a reply that must come in time and be the client's fault or fine."""
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    t = time.time()
    r = CLIENT.post(server.url + path, content=data, headers={"Content-Type": "application/json"})
    took = time.time() - t
    assert r.status_code < 500, (path, r.status_code, r.text[:300])
    assert took < limit, (path, took)
    return r


CLIENT = httpx.Client(timeout=60)
every = pytest.mark.parametrize("path", ROUTES)


@every
def test_broken_json(server, neighbour, path):
    good = json.dumps(ROUTES[path]("x"))
    deep = "[" * 10000 + "]" * 10000
    for text in (good[:-1] + ', "x": ' + deep + "}", good + "{}", good[:-1], '{"a":' * 10000, b"\xff" + good.encode(),
                 good[:-1] + ', "x": 1' + "0" * 400 + "}", good[:-1] + ', "x": NaN}', good[:-1] + ', "x": -Infinity}', good[:-1] + ", 'x': 1}",
                 good.encode()[:-1] + b', "x": "\xed\xa0\x80"}', "\x00" * 1000, "[]", "null", '"x"'):
        assert send(server, path, text).status_code == 400, (path, text[:60])
    assert send(server, path, good[:-1] + ', "x": "\\ud800 \\udc00 \\u0000"}').status_code in (200, 400)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses"])
def test_too_many_values(server, neighbour, path):
    good = json.dumps(ROUTES[path]("x"))
    assert send(server, path, good[:-1] + ', "x": [' + "0," * 2_100_000 + "0]}").status_code == 400


@every
def test_odd_texts(server, neighbour, path):
    for text in ("\\ud800", "\u0000", "<|im_end|>" * 50, "<think>" * 50, "<tool_call>" * 50, "‮﻿" * 50, "{{ x }}{% for i in range(10**9) %}"):
        send(server, path, ROUTES[path](text))


VALUES = [-1, "1e400", 2**63, -2**63 - 1, "5", True, [], {}, [[]], "x" * 10000, 1e308, 0.5]
FIELDS = ("temperature top_p top_k min_p presence_penalty repetition_penalty repeat_last_n seed stop stop_token_ids min_tokens logit_bias n priority "
          "logprobs tools tool_choice response_format chat_template_kwargs options messages prompt input dimensions documents reasoning thinking system "
          "format truncate_prompt_tokens stream_options suffix").split()


@every
def test_parameters_out_of_range(server, neighbour, path):
    """No value of any field does harm; the reply is the client's fault, or the value is legal.  Each route sees every field with a third
    of the values, each value with every field on some route."""
    body = ROUTES[path]("x")
    for i, field in enumerate(FIELDS):
        for j, value in enumerate(VALUES):
            if (i + j + list(ROUTES).index(path)) % 3 == 0:
                text = json.dumps({**body, field: value})
                send(server, path, text.replace('"1e400"', "1e400"))


@pytest.mark.parametrize("name", ["x" * (1 << 20), "", "a b", "a\nb", "a<b", 'a"', "é" * 129, None, 5])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_tool_names(server, neighbour, path, name):  # T1
    flat = {"name": name, "input_schema": {"type": "object"}} if path == "/v1/messages" else {"type": "function", "name": name}
    tool = {"type": "function", "function": {"name": name}} if path == "/v1/chat/completions" else flat
    assert send(server, path, {**ROUTES[path]("x"), "tools": [tool]}).status_code == 400


@pytest.mark.parametrize("regex", ["(a*)*b", "(a|a)*b", "foo**", "(" * 5000, "a{1000000}{1000000}", "(?=x)y", "(a)\\1", "[z-a]", "x{2,1}", "\\", "((a{1000}){1000}){1000}",
                                   "(x+x+)+y", "[ab]*a[ab]{200}", "a?" * 3000 + "a" * 3000, "\\p{Foo}", "a" * 100000], ids=lambda r: r[:12])
def test_regexes(server, neighbour, regex):
    r = send(server, "/v1/chat/completions", {**ROUTES["/v1/chat/completions"]("x"), "structured_outputs": {"regex": regex}, "max_tokens": 8})
    assert r.status_code == 200 or r.json()["error"]["code"] in ("invalid_grammar", "unsupported_schema", "grammar_too_complex", "invalid_value"), r.text


SCHEMAS = {
    "many branches": {"anyOf": [{"type": "object", "properties": {f"k{i}": {"const": i}}, "required": [f"k{i}"]} for i in range(100000)]},
    "one of many": {"oneOf": [{"const": i} for i in range(100000)]},
    "cycle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "cycle in all": {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    "endless": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "products": {"allOf": [{"anyOf": [{"type": "object", "properties": {f"p{i}{j}": {"type": "string"}}} for j in range(30)]} for i in range(30)]},
    "remote": {"$ref": "http://127.0.0.1:1/x.json"},
    "huge counts": {"type": "array", "minItems": 10**9, "maxItems": 10**18},
    "huge string": {"type": "string", "minLength": 10**9},
    "deep": None,
    "patterns": {"type": "object", "patternProperties": {f"^a{i}.*": {"type": "string"} for i in range(200)}},
    "names": {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(20000)}},
    "odd types": {"type": ["string", 5, None], "enum": "x", "properties": []},
    "big text": {"description": "x" * (3 << 20)},
    "powers": {"type": "string", "pattern": "((a?){50}){50}", "maxLength": 500, "minLength": 499},
}
deep = {"type": "string"}
for _ in range(120):
    deep = {"type": "array", "items": deep}
SCHEMAS["deep"] = deep


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas(server, neighbour, name):
    fmt = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMAS[name]}}
    r = send(server, "/v1/chat/completions", {**ROUTES["/v1/chat/completions"]("x"), "response_format": fmt, "max_tokens": 8},
             limit=20)  # half a second of work, on a thread that yields to all others
    assert r.status_code == 200 or r.json()["error"]["code"] in ("invalid_schema", "unsupported_schema", "unsatisfiable_schema", "schema_too_complex", "grammar_too_complex",
                                                                "invalid_json"), r.text[:300]


GRAMMARS = ["root ::= root root", "root ::= a\na ::= root", 'root ::= ("a"', "root ::= " + "(" * 20000, 'root ::= "' + "a" * 500000 + '"', "root ::= (" + '"a"? ' * 5000 + ")",
            "root ::= [z-a]", 'root ::= "a"{1000000000}', "x ::= y", "", "root ::= <[99999999]>", "\n".join(f'r{i} ::= r{i + 1}' for i in range(50000)) + '\nroot ::= r0']


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda g: g[:16])
def test_grammars(server, neighbour, grammar):
    r = send(server, "/v1/chat/completions", {**ROUTES["/v1/chat/completions"]("x"), "grammar": grammar, "max_tokens": 8})
    assert r.status_code == 200 or r.json()["error"]["code"] in ("invalid_grammar", "grammar_too_complex", "invalid_value", "unsupported_schema"), r.text[:300]


def test_bias_and_stops_in_bulk(server, neighbour):
    chat = ROUTES["/v1/chat/completions"]("x")
    for fields in ({"logit_bias": {str(i): 1 for i in range(100000)}}, {"stop": ["x"] * 100000}, {"stop": ["x" * 100000]}, {"bad_words": ["ab"] * 100000},
                   {"allowed_token_ids": list(range(100000))}, {"stop_token_ids": list(range(100000))}, {"n": 10**9},
                   {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(10000)]},
                   {"messages": [{"role": "x" * 100000, "content": "y"}]}, {"messages": [{"role": "user", "content": [{"type": "text", "text": "y"}] * 100000}]}):
        assert send(server, "/v1/chat/completions", {**chat, **fields}).status_code == 400, list(fields)


def test_templates_are_bounded(server, neighbour, start):
    nest = "x"
    for _ in range(100):
        nest = [nest, nest] if _ < 12 else [nest]
    send(server, "/v1/chat/completions", {**ROUTES["/v1/chat/completions"]("x"), "chat_template_kwargs": {"documents": nest, "x": {"a" * 1000: 1}}})
    s = start("--allow-request-template")
    for t in ("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}", "{{ 'x' * 10**9 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
              "{{ range(10**12) | list }}", "{% set x = ['a' * 100000] * 100000 %}{{ x | join }}", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{{ messages[0]['__class__'] }}{{ 1/0 }}"):
        assert send(s, "/v1/chat/completions", {**ROUTES["/v1/chat/completions"]("x"), "chat_template": t}, limit=15).status_code == 400, t[:40]
    alive(s)


def test_still_alive(server):
    alive(server)
