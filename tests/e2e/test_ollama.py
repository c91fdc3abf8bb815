"""Ollama's routes with its official client (API O1-O10, H16, H17)."""
import json

import httpx
import ollama
import pytest

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
COLD = {"temperature": 0}


@pytest.fixture(scope="module")
def client(server):
    return ollama.Client(host=server.url)


@pytest.fixture(scope="module")
def tools():
    with open("tests/data/demo_golden.json", encoding="utf8") as f:
        return next(g["tools"] for g in json.load(f) if g["tools"] and g["tools"][0]["function"]["name"] == "get_weather")[:1]


def test_views_of_the_model(client, server):
    assert server.get("/").text == "Ollama is running" and server.get("/api/version").json()["version"]
    (m,) = client.list().models
    assert m.model == "m:latest" and len(m.digest) == 64 and m.size > 0 and m.details.format == "safetensors"
    (p,) = client.ps().models
    assert p.model == "m:latest" and p.context_length == 2048
    shown = client.show("m")
    assert "im_start" in shown.template and shown.modelinfo["general.architecture"] == "qwen3" and shown.modelinfo["qwen3.block_count"] > 0
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities)
    with pytest.raises(ollama.ResponseError) as e:
        client.show("other")
    assert e.value.status_code == 404


def test_chat_plain_equals_stream(client):
    for think in (False, True):
        plain = client.chat(model="m:latest", messages=CAPITAL, think=think, options=COLD)
        parts = list(client.chat(model="m", messages=CAPITAL, think=think, options=COLD, stream=True))
        assert "".join(p.message.content or "" for p in parts) == plain.message.content and "Paris" in plain.message.content
        assert ("".join(p.message.thinking or "" for p in parts) or None) == plain.message.thinking and bool(plain.message.thinking) == think
        assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True] and parts[-1].done_reason == plain.done_reason == "stop"
        for end in (plain, parts[-1]):
            assert end.prompt_eval_count > 5 and end.eval_count > 5 and end.total_duration > 0 and end.eval_duration > 0


def test_generate(client):
    plain = client.generate(model="m", prompt=CAPITAL[0]["content"], options={**COLD, "num_predict": 20}, think=False)
    assert "Paris" in plain.response and len(plain.context) == plain.prompt_eval_count + plain.eval_count
    parts = list(client.generate(model="m", prompt=CAPITAL[0]["content"], options=COLD, think=False, stream=True))
    assert "".join(p.response for p in parts) == plain.response and parts[-1].context == plain.context
    cut = client.generate(model="m", prompt=CAPITAL[0]["content"], options={**COLD, "stop": ["Paris", ""]}, think=False)
    assert cut.response == plain.response.split("Paris")[0]


def test_tools(client, tools):
    r = client.chat(model="m", messages=WEATHER, tools=tools, think=False, options=COLD)
    (call,) = r.message.tool_calls
    assert call.function.name == "get_weather" and call.function.arguments == {"city": "Paris"} and r.message.content == ""
    parts = list(client.chat(model="m", messages=WEATHER, tools=tools, think=False, options=COLD, stream=True))
    assert [p.message.tool_calls for p in parts if p.message.tool_calls] == [r.message.tool_calls]
    r = client.chat(model="m", messages=WEATHER + [r.message, {"role": "tool", "tool_name": "get_weather",
                    "content": '{"temperature": 18, "condition": "sunny"}'}], tools=tools, think=False, options=COLD)
    assert "18" in r.message.content and r.done_reason == "stop"


def test_loading_and_fixed_models(client, server):
    assert client.chat(model="m").done_reason == "load" and client.generate(model="m").done_reason == "load"
    assert client.pull("m").status == "success"
    for call, status in ((lambda: client.pull("x"), 404), (lambda: client.copy("a", "b"), 501), (lambda: client.delete("m"), 501),
                         (lambda: client.chat(model="x", messages=CAPITAL), 404)):
        with pytest.raises(ollama.ResponseError) as e:
            call()
        assert e.value.status_code == status
    assert server.get("/api/blobs/sha256:1").status_code == 501


@pytest.mark.parametrize("body,status,word", [
    ({"options": {"temperature": 9}}, 400, "options.temperature"), ({"options": 5}, 400, "options"), ({"options": {"num_predict": "x"}}, 400, "options.num_predict"),
    ({"options": {"num_ctx": 8}}, 400, "maximum context length is 8"), ({"n": 2}, 400, "n"), ({"think": "huge"}, 400, "think"),
    ({"messages": [{"content": "x"}]}, 400, "messages[0]"), ({"messages": [{"role": "user", "content": "x", "images": ["aa"]}]}, 400, "image"),
    ({"format": "yaml"}, 400, "format"), ({"messages": [{"role": "user", "content": "hi " * 5000}]}, 400, "maximum context length"),
])
def test_errors_have_their_shape(server, body, status, word):
    r = server.post("/api/chat", {"model": "m", "messages": CAPITAL, "stream": False, **body})
    assert r.status_code == status and set(r.json()) == {"error"} and word in r.json()["error"], r.text


def test_any_content_type_and_options_listed(server):
    r = httpx.post(server.url + "/api/chat", content=json.dumps({"model": "m", "messages": CAPITAL, "stream": False, "keep_alive": 5,
                   "options": {"mirostat": 1, "num_gpu": 3, "num_ctx": 9999, "seed": -1}}), headers={"content-type": "text/plain"}, timeout=30)
    assert r.status_code == 200 and {"options.mirostat", "options.num_gpu", "options.num_ctx"} == set(r.headers["x-quern-ignored"].split(","))
    assert "x-quern-seed" in r.headers
    with httpx.stream("POST", server.url + "/api/chat", json={"model": "m", "messages": CAPITAL, "logprobs": True, "top_logprobs": 2}, timeout=30) as s:
        assert s.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in s.iter_lines()]
    assert sum(len(line.get("logprobs", [])) for line in lines) > 3
