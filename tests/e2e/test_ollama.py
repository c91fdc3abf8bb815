"""Ollama's routes with its official client (API O1-O10, H16, H17)."""
import json
from datetime import datetime, timedelta, timezone

import httpx
import ollama
import pytest

from conftest import stopped

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
    far = p.expires_at.astimezone(timezone(timedelta(hours=14)))  # O9: also where it is tomorrow already
    assert far - datetime.now(timezone.utc) > timedelta(days=36000)
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


def test_calls_of_generate(server, tools):  # O4: tools as in chat; the calls stand beside the response
    text = 'ok\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    body = {"model": "m", "prompt": "x", "tools": tools, "think": False, "structured_outputs": {"choice": [text]}, "options": COLD}
    plain = server.post("/api/generate", {**body, "stream": False}).json()
    lines = [json.loads(line) for line in server.post("/api/generate", body).text.splitlines()]
    assert all("response" in line and "message" not in line for line in [plain, *lines])
    assert plain["response"] == "ok" == "".join(line["response"] for line in lines)
    for (call,) in (plain["tool_calls"], next(line["tool_calls"] for line in lines if "tool_calls" in line)):
        assert call["function"] == {"index": 0, "name": "get_weather", "arguments": {"city": "Rome"}} and call["id"].startswith("call_")


def test_hang_up(slow):  # H14
    client = ollama.Client(host=slow.url)
    long = {"stream": True, "think": False, "format": {"type": "string", "minLength": 5000}, "options": {"num_predict": 1500}}
    for begin in (lambda: client.chat(model="m", messages=CAPITAL, **long), lambda: client.generate(model="m", prompt="Once", **long)):
        with stopped(slow):
            parts = begin()
            next(parts)
            parts.close()
    assert client.chat(model="m", messages=CAPITAL, think=False, options={"num_predict": 2}).done


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
    ({"options": {"temperature": 9}}, 400, "options.temperature"), ({"options": 5}, 400, "options"), ({"options": {"num_predict": "x"}}, 400, "options.num_predict"), ({"options": {"num_predict": -3}}, 400, "options.num_predict"),
    ({"options": {"num_ctx": 8}}, 400, "maximum context length is 8"), ({"n": 2}, 400, "n"), ({"think": "huge"}, 400, "think"),
    ({"messages": [{"content": "x"}]}, 400, "messages[0]"), ({"messages": [{"role": "user", "content": "x", "images": ["aa"]}]}, 400, "model 'm' does not accept image input ('messages[0].images')"),
    ({"format": "yaml"}, 400, "format"), ({"format": 5}, 400, "format"), ({"format": "json", "response_format": {"type": "json_object"}}, 400, "'response_format' and 'format'"),
    ({"think": 5}, 400, "'think'"), ({"shift": "x"}, 400, "'shift'"), ({"options": {"num_ctx": "4096"}}, 400, "options.num_ctx"), ({"options": {"num_ctx": 5.5}}, 400, "options.num_ctx"),
    ({"messages": [{"role": "user", "content": "x", "images": "aa"}]}, 400, "messages[0].images"), ({"messages": [{"role": "user", "content": "x", "thinking": 5}]}, 400, "messages[0].thinking"),
    ({"messages": CAPITAL + [{"role": "assistant", "content": "", "tool_calls": "x"}]}, 400, "messages[1].tool_calls"), ({"model": "x", "messages": [5]}, 404, "does not exist"),
    ({"messages": [{"role": "user", "content": "hi " * 5000}]}, 400, "maximum context length"),
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


def test_own_names_win(server):  # V9
    """Chat's fields count beside the options of the same meaning, unless those are given too."""
    def ask(path, options, **fields):
        r = server.post("/api/" + path, {"model": "m", "messages": CAPITAL, "prompt": "Once", "think": False, "stream": False, "options": options, **fields})
        assert r.status_code == 200, r.text
        return r.json()["eval_count"]
    for path, more in (("chat", {}), ("generate", {}), ("generate", {"raw": True})):
        for name in ("max_completion_tokens", "max_tokens", "n_predict"):
            more = {**more, "ignore_eos": True, "temperature": 9}
            assert ask(path, COLD, **{**more, name: 2}) == 2 and ask(path, {**COLD, "num_predict": 4}, **{**more, name: 2}) == 4
    assert ask("chat", {**COLD, "num_predict": -1}, max_tokens=2) > 2
    r = server.post("/api/chat", {"model": "m", "messages": CAPITAL, "stream": False, "options": {"repeat_penalty": 99, "repeat_last_n": 0}, "repetition_penalty": 1})
    assert r.status_code == 400 and "options.repeat_penalty" in r.json()["error"]
    r = server.post("/api/chat", {"model": "m", "messages": CAPITAL, "stream": False, "format": "json", "response_format": {"type": "text"}, "think": False, "options": {"num_predict": 2}})
    assert r.json()["message"]["content"].lstrip().startswith("{")
    r = server.post("/api/chat", {"model": "m", "messages": CAPITAL, "stream": False, "options": {"num_ctx": 2048, "num_predict": 1}})
    assert "x-quern-ignored" not in r.headers  # O6: it is the context served


def test_a_limit_beyond_the_own_context_is_cut_and_told(server):  # G5, O6, L4
    own = {"num_ctx": 24, "num_predict": 100}
    for path, body in (("/api/chat", {"messages": CAPITAL, "think": False, "options": own}), ("/api/generate", {"prompt": "Once", "raw": True, "options": own}),
                       ("/api/v1/chat", {"input": "Hi", "context_length": 24, "max_output_tokens": 100})):
        r = server.post(path, {"model": "m", "stream": False, "ignore_eos": True, **body})
        got = r.json().get("stats") or r.json()
        n, p = (got["total_output_tokens"], got["input_tokens"]) if "input_tokens" in got else (got["eval_count"], got["prompt_eval_count"])
        assert n + p == 24 and r.headers["x-quern-clamped"] == f"max_tokens={n}", r.text
    r = server.post("/api/chat", {"model": "m", "stream": False, "messages": CAPITAL, "options": {"num_ctx": 24}})
    assert r.status_code == 200 and "x-quern-clamped" not in r.headers


def test_context_goes_on(client, server):  # O4
    first = client.generate(model="m", prompt="My name is Anna.", think=False, options=COLD)
    second = client.generate(model="m", prompt="What is my name?", context=first.context, think=False, options=COLD)
    assert "Anna" in second.response and "Anna" not in client.generate(model="m", prompt="What is my name?", think=False, options=COLD).response
    assert second.context[:len(first.context)] == first.context and second.prompt_eval_count > len(first.context)
    text = server.post("/detokenize", {"tokens": second.context}).json()["content"]
    assert "<|im_end|>\n<|im_start|>user\nWhat is my name?" in text
    parts = list(client.generate(model="m", prompt="What is my name?", context=first.context, think=False, options=COLD, stream=True))
    assert "".join(p.response for p in parts) == second.response and parts[-1].context == second.context


def generate(server, **body):
    return server.post("/api/generate", {"model": "m", "stream": False, "options": {**COLD, "num_predict": 8}, **body})


def test_context_that_does_not_fit(server):  # G7
    turn = server.post("/tokenize", {"content": "<|im_start|>user\n" + "word " * 290 + "<|im_end|>\n"}).json()["tokens"]
    r = generate(server, prompt="hi", context=turn * 9)
    assert r.status_code == 200, r.text
    gone = int(r.headers["x-quern-truncated"])
    kept = r.json()["context"]
    assert 0 < gone < 9 and kept[:len(turn)] == turn and kept[len(turn) * (9 - gone)] == turn[0] and r.json()["prompt_eval_count"] < 2048
    r = generate(server, prompt="hi", context=turn * 9, truncate=False)
    assert r.status_code == 400 and "maximum context length" in r.json()["error"]
    for context, word in (([10 ** 7], "context[0]"), (["a"], "context[0]"), ("x", "context")):
        r = generate(server, prompt="hi", context=context)
        assert r.status_code == 400 and word in r.json()["error"]


def test_truncate_drops_the_oldest_turns(client, server):  # G7, O3
    old = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "ok " * 200}] * 8
    body = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}] + old + CAPITAL, "think": False, "options": COLD, "stream": False}
    r = server.post("/api/chat", body)
    assert r.status_code == 200 and 0 < int(r.headers["x-quern-truncated"]) < 16 and r.json()["prompt_eval_count"] < 2048
    r = server.post("/api/chat", {**body, "truncate": False})
    assert r.status_code == 400 and "maximum context length" in r.json()["error"]
    r = server.post("/api/chat", {**body, "messages": CAPITAL, "shift": True})
    assert r.headers["x-quern-ignored"] == "shift" and "x-quern-truncated" not in r.headers
    assert server.post("/api/chat", {**body, "truncate": "no"}).status_code == 400


def test_raw(client, server):  # O4, P5
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    r = client.generate(model="m", prompt=prompt, raw=True, options={**COLD, "seed": -1})
    same = server.complete(prompt=prompt, temperature=0, max_tokens=-1)
    assert r.response == same.json()["choices"][0]["text"] and "Paris" in r.response and r.context is None and r.done_reason == "stop"
    assert r.prompt_eval_count == same.json()["usage"]["prompt_tokens"]
    parts = list(client.generate(model="m", prompt=prompt, raw=True, options=COLD, stream=True))
    assert "".join(p.response for p in parts) == r.response and parts[-1].context is None
    # No parser: a thought stays in the response.
    r = generate(server, prompt=prompt.replace("<think>\n\n</think>\n\n", ""), raw=True, think=True, logprobs=True, top_logprobs=2, echo=True, best_of=3,
                 truncate_prompt_tokens=1)
    assert r.json()["response"].startswith("<think>") and set(r.headers["x-quern-ignored"].split(",")) == {"think", "echo", "best_of", "truncate_prompt_tokens"} and "thinking" not in r.json()
    assert len(r.json()["logprobs"]) == 8 and len(r.json()["logprobs"][0]["top_logprobs"]) == 2
    for body, word in (({"system": "x"}, "system"), ({"context": [5]}, "context"), ({"images": ["aa"]}, "images"), ({"raw": 1}, "raw"), ({"suffix": 5}, "suffix"),
                       ({"template": "x"}, "template"), ({"top_logprobs": 21}, "top_logprobs"), ({"top_logprobs": 1}, "top_logprobs"), ({"logprobs": 3}, "logprobs"),
                       ({"options": {"num_ctx": 1}}, "maximum context length is 1"), ({"prompt": "hi " * 5000}, "maximum context length")):
        r = generate(server, **{"prompt": "hi", "raw": True, **body})
        assert r.status_code == 400 and word in r.json()["error"], (body, r.text)


def test_suffix(fim_server, server):  # O4, P6
    r = ollama.Client(host=fim_server.url).generate(model="m", prompt="def f(x):", suffix="return y", options={**COLD, "num_predict": 5})
    same = fim_server.complete(prompt="def f(x):", suffix="return y", temperature=0, max_tokens=5).json()
    assert r.response == same["choices"][0]["text"] and r.prompt_eval_count == same["usage"]["prompt_tokens"]
    assert "insert" in ollama.Client(host=fim_server.url).show("m").capabilities
    r = generate(server, prompt="a", suffix="b")
    assert r.status_code == 400 and "suffix" in r.json()["error"]


def test_format(client, server):  # O3, J1
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 10}}, "required": ["city"], "additionalProperties": False}
    r = client.chat(model="m", messages=CAPITAL, format=schema, think=False, options=COLD)
    assert set(json.loads(r.message.content)) == {"city"}
    r = client.generate(model="m", prompt=CAPITAL[0]["content"], format=schema, think=False, options=COLD)
    assert set(json.loads(r.response)) == {"city"}
    r = generate(server, prompt="x", raw=True, format=schema, options={**COLD, "num_predict": 400})
    assert set(json.loads(r.json()["response"])) == {"city"}
