"""Errors name the field (API E1-E3, V1-V8, G1): a table of bad requests and what each must answer."""
import json

import pytest

from conftest import alive

BAD_CHAT = [
    # body fields, code, param
    ({"temperature": 3}, "invalid_value", "temperature"),
    ({"temperature": -0.1}, "invalid_value", "temperature"),
    ({"temperature": "1"}, "invalid_type", "temperature"),
    ({"top_p": 1.5}, "invalid_value", "top_p"),
    ({"top_k": 1.5}, "invalid_type", "top_k"),
    ({"top_k": -2}, "invalid_value", "top_k"),
    ({"min_p": True}, "invalid_type", "min_p"),
    ({"presence_penalty": 2.1}, "invalid_value", "presence_penalty"),
    ({"repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
    ({"seed": 2 ** 64}, "invalid_value", "seed"),
    ({"seed": 2 ** 63}, "invalid_value", "seed"),
    ({"seed": 1.5}, "invalid_type", "seed"),
    ({"seed": "7"}, "invalid_type", "seed"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"max_tokens": -2}, "invalid_value", "max_tokens"),
    ({"max_completion_tokens": "9"}, "invalid_type", "max_completion_tokens"),
    ({"min_tokens": 9, "max_tokens": 3}, "invalid_value", "min_tokens"),
    ({"n": 0}, "invalid_value", "n"),
    ({"n": 129}, "unsupported_value", "n"),
    ({"n": 2 ** 63}, "invalid_value", "n"),
    ({"stop": ""}, "invalid_value", "stop"),
    ({"stop": ["a", 5]}, "invalid_type", "stop[1]"),
    ({"stop": ["x"] * 17}, "invalid_value", "stop"),
    ({"stop": "x" * 1025}, "invalid_value", "stop"),
    ({"stop_token_ids": [99999999]}, "invalid_value", "stop_token_ids[0]"),
    ({"allowed_token_ids": []}, "invalid_value", "allowed_token_ids"),
    ({"logit_bias": {"99999999": 1}}, "invalid_value", "logit_bias.99999999"),
    ({"logit_bias": {"-1": 1}}, "invalid_value", "logit_bias.-1"),
    ({"logit_bias": {"abc": 1}}, "invalid_value", "logit_bias.abc"),
    ({"logit_bias": {"5": 101}}, "invalid_value", "logit_bias.5"),
    ({"logit_bias": [1]}, "invalid_type", "logit_bias"),
    ({"logprobs": 1}, "invalid_type", "logprobs"),
    ({"reasoning": {"exclude": "x"}}, "invalid_type", "reasoning.exclude"),
    ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "invalid_value", "top_logprobs"),
    ({"stream": 1}, "invalid_type", "stream"),
    ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    ({"stream": True, "stream_options": []}, "invalid_type", "stream_options"),
    ({"reasoning_effort": "huge"}, "invalid_value", "reasoning_effort"),
    ({"enable_thinking": "yes"}, "invalid_type", "enable_thinking"),
    ({"chat_template_kwargs": []}, "invalid_type", "chat_template_kwargs"),
    ({"documents": [{}, 1]}, "invalid_type", "documents[1]"),
    ({"use_beam_search": True}, "unsupported_value", "use_beam_search"),
    ({"functions": [{}]}, "unsupported_value", "functions"),
    ({"function_call": "auto"}, "unsupported_value", "function_call"),
    ({"modalities": ["text", "audio"]}, "unsupported_value", "modalities"),
    ({"background": True}, "unsupported_value", "background"),
    ({"conversation": "c"}, "unsupported_value", "conversation"),
    ({"chat_template": "x"}, "unsupported_value", "chat_template"),
    ({"cache_salt": ""}, "invalid_value", "cache_salt"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": "hi"}, "invalid_type", "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, None, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, None, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, None, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "nonsense"}]}]}, "invalid_value", "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
     "unsupported_modality", "messages[0].content[0]"),
    ({"add_generation_prompt": True, "continue_final_message": True}, None, None),
    ({"continue_final_message": True}, None, None),
]


def check(r, status, code=None, param=None):
    assert r.status_code == status, r.text
    e = r.json()["error"]
    assert set(e) >= {"message", "type", "param", "code"}
    assert "\n" not in e["message"] and e["message"]
    if code:
        assert e["code"] == code, e
    if param:
        assert e["param"] == param, e
    return e


@pytest.mark.parametrize("fields,code,param", BAD_CHAT, ids=lambda v: json.dumps(v)[:40] if isinstance(v, dict) else None)
def test_bad_chat_field(server, fields, code, param):
    e = check(server.chat(**fields), 400, code, param)
    assert e["type"] == "invalid_request_error"


@pytest.mark.parametrize("fields", [
    {"tools": []}, {"response_format": {"type": "text"}}, {"tool_choice": "auto"}, {"tool_choice": "none"},
    {"functions": None}, {"stop": None}, {"temperature": None}, {"seed": None}, {"logit_bias": {}}, {"stop": []},
    {"echo": False}, {"thinking_budget": None}, {"thinking_budget": -1}, {"seed": -1}, {"seed": -(2 ** 63)}, {"seed": 5.0}, {"max_tokens": 1e0},
    {"functions": [], "audio": False, "conversation": "", "chat_template": "", "modalities": ["text"]},
    {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
])
def test_neutral_values_are_absent(server, fields):
    r = server.chat(**{"max_tokens": 1, **fields})
    assert r.status_code == 200, r.text
    assert "x-quern-ignored" not in r.headers


def test_unknown_fields_are_listed(server):
    r = server.chat(max_tokens=1, mirostat=2, frobnicate={"a": 1}, typical_p=0.5, user="x")
    assert r.status_code == 200
    assert set(r.headers["x-quern-ignored"].split(",")) == {"mirostat", "frobnicate", "typical_p"}


def test_samplers_that_are_off_are_not_listed(server):
    """V6: listed when not neutral."""
    off = {"typical_p": 1.0, "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "dry_multiplier": 0, "dry_base": 1.75, "xtc_probability": 0.0,
           "xtc_threshold": 0.1, "dynatemp_range": 0, "dynatemp_exponent": 1, "top_n_sigma": -1, "length_penalty": 1.0, "early_stopping": False,
           "n_keep": 0, "n_indent": 0, "t_max_predict_ms": -1, "id_slot": -1, "samplers": [], "lora": []}
    assert "x-quern-ignored" not in server.complete(max_tokens=1, **off).headers
    on = {"typical_p": 0.9, "mirostat": 2, "dry_multiplier": 0.8, "xtc_probability": 0.5, "dynatemp_range": 0.5, "top_n_sigma": 1, "id_slot": 0, "nonsense": 0}
    assert set(server.complete(max_tokens=1, **on).headers["x-quern-ignored"].split(",")) == set(on)


@pytest.mark.parametrize("text,where", [
    (b"", "byte 0"), (b"{", "byte"), (b'{"a":01}', "byte"), (b'{"a":1.}', "byte"), (b'{"a":1e999}', "byte"),
    (b'{"a":"\xff"}', "byte"), (b'{"a":"\x01"}', "byte"), (b"[1]{}", "byte"), (b'{"a":1}x', "byte"),
    (b"{'a':1}", "byte"), (b'{"a":NaN}', "byte"), (b"[" * 200 + b"]" * 200, "byte"),
])
def test_bad_json(server, text, where):
    e = check(server.post("/v1/chat/completions", text), 400, "invalid_json")
    assert where in e["message"]


def test_body_must_be_an_object(server):
    check(server.post("/v1/chat/completions", b"[1]"), 400, "invalid_type")


def test_json_repairs(server):
    body = b'\xef\xbb\xbf{"model":"x","model":"m","messages":[{"role":"user","content":"a\\u0000b\\ud800"}],"max_tokens":1}'
    assert server.post("/v1/chat/completions", body).status_code == 200


def test_model_names(server):
    for name in ("m", "M", "m:latest", "", None):
        r = server.chat(model=name, max_tokens=1)
        assert r.status_code == 200 and r.json()["model"] == "m", (name, r.text)
    e = check(server.chat(model="nope"), 404, "model_not_found", "model")
    assert e["message"] == "The model `nope` does not exist"


def test_wildcard_and_any_model(start):
    s = start("--served-model-name", "m,claude-*")
    assert s.chat(model="claude-x", max_tokens=1).json()["model"] == "claude-x"
    assert [m["id"] for m in s.get("/v1/models").json()["data"]] == ["m"]
    t = start("--any-model")
    assert t.chat(model="zzz", max_tokens=1).json()["model"] == "m"


def test_context_length(server):
    ctx = server.get("/v1/models").json()["data"][0]["max_model_len"]
    r = server.complete(prompt=[5] * (ctx + 3), max_tokens=1)
    e = check(r, 400, "context_length_exceeded", "prompt")
    assert e["message"] == (f"This model's maximum context length is {ctx} tokens. However, your prompt has {ctx + 3} tokens. "
                            "Please shorten the prompt.")
    assert (e["n_prompt_tokens"], e["n_ctx"]) == (ctx + 3, ctx)
    assert check(server.complete(prompt=[[5], [5] * (ctx + 1)]), 400)["param"] == "prompt[1]"


def test_refused_fields_are_refused_wherever_messages_are_read(server):
    m = [{"role": "user", "content": "hi"}]
    for path in ("/v1/chat/completions", "/apply-template", "/tokenize"):
        for field, value in (("chat_template", "mine"), ("functions", [{"name": "f"}]), ("conversation", "c1")):
            check(server.post(path, {"messages": m, field: value}), 400, "unsupported_value", field)


def test_request_template(start):
    s = start("--allow-request-template")
    m = [{"role": "user", "content": "hi"}]
    assert s.post("/apply-template", {"messages": m, "chat_template": "T{{ messages[0].content }}"}).json() == {"prompt": "Thi"}
    plain = s.post("/apply-template", {"messages": m}).json()
    assert s.post("/apply-template", {"messages": m, "chat_template": ""}).json() == plain
    check(s.post("/apply-template", {"messages": m, "chat_template": "{% if %}"}), 400, "template_error", "chat_template")
    check(s.chat(chat_template="{{ raise_exception('no such talk') }}"), 400, "template_error")


def test_limits_of_any_size_are_legal(server):
    for n in (2 ** 63, 10 ** 19, 1e300):
        r = server.complete(prompt="a", max_tokens=n, stop_token_ids=[5], logit_bias={"5": 100})
        assert r.status_code == 200 and r.headers["x-quern-clamped"].startswith("max_tokens="), r.text
    assert server.chat(top_k=2 ** 40, max_tokens=1).status_code == 200


def test_detokenize_lists_unknown_fields(server):
    r = server.post("/detokenize", {"tokens": [5], "frobnicate": 1})
    assert r.status_code == 200 and r.headers["x-quern-ignored"] == "frobnicate"


@pytest.mark.parametrize("prompt,param", [("", "prompt"), ([], "prompt"), ([""], "prompt[0]"), ([[]], "prompt[0]"), (None, "prompt"),
                                          (["a", [1]], "prompt"), ([1, "a"], "prompt"), ([10 ** 9], "prompt[0]"), ({}, "prompt")])
def test_bad_prompts(server, prompt, param):
    check(server.complete(prompt=prompt), 400, None, param)
    alive(server)


def test_suffix_must_be_a_string(server):
    check(server.complete(suffix=True), 400, "invalid_type", "suffix")


def test_routes(server):
    assert check(server.get("/nope"), 404, "route_not_found")["type"] == "not_found_error"
    r = server.get("/v1/chat/completions")
    check(r, 405, "method_not_allowed")
    assert r.headers["allow"] == "POST"
    assert check(server.post("/v1/responses/compact", {}), 501, "not_implemented")["param"] == "/v1/responses/compact"
    for path in ("/ui", "/ui/", "/ui/app.js"):
        assert check(server.get(path), 501, "not_implemented")["param"] == path.removesuffix("/")
    r = server.post("/v1/messages/batches", {})
    assert r.status_code == 404 and r.json()["type"] == "error" and r.json()["request_id"] == r.headers["x-request-id"]
    r = server.post("/api/embed", {})
    assert r.status_code == 400 and isinstance(r.json()["error"], str)
    assert server.get("/%2e%2e/etc/passwd").status_code == 404
    assert server.get("/health/").status_code == 200
    assert server.get("/health?x=1").status_code == 200


def test_request_id(server):
    r = server.get("/health", headers={"x-request-id": "abc-1.2:3_X"})
    assert r.headers["x-request-id"] == "abc-1.2:3_X"
    r = server.get("/health", headers={"x-request-id": "bad id"})
    assert r.headers["x-request-id"] != "bad id"
    assert r.headers["server"].startswith("quern/")


@pytest.mark.parametrize("path,body", [
    ("/api/chat", {"messages": [5]}), ("/api/generate", {"prompt": 5}), ("/api/generate", {"prompt": "x", "raw": True, "system": "y"}), ("/api/v1/chat", {"input": 5}),
    ("/v1/messages", {"messages": [5]}), ("/v1/messages/count_tokens", {"messages": 5}), ("/v1/responses", {"input": 5}), ("/v1/responses/input_tokens", {}),
    ("/v1/chat/completions", {"messages": 5}), ("/v1/completions", {"prompt": 5}), ("/v1/embeddings", {"input": 5}), ("/rerank", {"query": 5}), ("/completion", {"prompt": 5}),
    ("/tokenize", {"content": 5}), ("/tokenize", {"content": "x", "with_pieces": 5}), ("/detokenize", {"tokens": 5}), ("/apply-template", {"messages": 5}),
    ("/api/v0/chat/completions", {"temperature": 9})])
def test_the_model_is_looked_for_before_the_fields(server, path, body):
    """V5 in every dialect."""
    r = server.post(path, {"model": "other", **body})
    assert r.status_code == 404 and "other" in r.text, r.text
    assert server.post(path, {"model": "m", **body}).status_code == 400


@pytest.mark.parametrize("path,body", [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
    ("/v1/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "aa"}}]}]}),
    ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}),
    ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": ["aa"]}]}),
    ("/api/v1/chat", {"input": [{"type": "image", "data_url": "data:,"}]})])
def test_media_are_refused_by_the_models_name(server, path, body):
    """D1, E3: the refusal names the part and the model."""
    r = server.post(path, {"model": "m", **body})
    assert r.status_code == 400 and "model 'm' does not accept image input ('" in r.text, r.text
