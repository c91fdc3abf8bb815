"""LM Studio's dialects (API L1-L6, L8, E4, G4, H17, X4)."""
import json

import httpx
import pytest

CAPITAL = "What is the capital of France?"
M = [{"role": "user", "content": CAPITAL}]


def chat(server, **fields):
    return server.post("/api/v1/chat", {"model": "m", "input": CAPITAL, "temperature": 0, **fields})


def events(server, headers=None, **fields):
    out, named = [], None
    with httpx.stream("POST", server.url + "/api/v1/chat", headers=headers, timeout=60,
                      json={"model": "m", "input": CAPITAL, "temperature": 0, "stream": True, **fields}) as r:
        assert r.status_code == 200, r.read()
        for line in r.iter_lines():
            if line.startswith("event: "):
                named = line[7:]
            elif line.startswith("data: "):
                e = json.loads(line[6:])
                assert e["type"] == named
                out.append(e)
    return out


def stripped(result):
    stats = {k: v for k, v in result["stats"].items() if "second" not in k}
    return {**{k: v for k, v in result.items() if k != "response_id"}, "stats": stats}


def test_models(server):
    (old,) = server.get("/api/v0/models").json()["data"]
    assert (old["id"], old["object"], old["type"], old["state"], old["compatibility_type"]) == ("m", "model", "llm", "loaded", "safetensors")
    assert old["max_context_length"] >= old["loaded_context_length"] > 0 and old == server.get("/api/v0/models/m").json()
    assert server.get("/api/v0/models/none").status_code == 404
    (new,) = server.get("/api/v1/models").json()["models"]
    assert set(new) == {"type", "publisher", "key", "display_name", "architecture", "quantization", "size_bytes", "params_string", "loaded_instances",
                        "max_context_length", "format", "capabilities", "description"}
    assert new["loaded_instances"][0]["config"]["context_length"] == old["loaded_context_length"]
    assert new["capabilities"]["reasoning"]["default"] == "on" and "off" in new["capabilities"]["reasoning"]["allowed_options"]


def test_publisher_and_default_reasoning(start):
    s = start("--served-model-name", "Qwen/x", "--default-chat-template-kwargs", '{"enable_thinking": false}')
    model = next(m for m in s.get("/api/v1/models").json()["models"] if m["key"] == "Qwen/x")
    assert model["publisher"] == "Qwen" and model["capabilities"]["reasoning"]["default"] == "off"
    assert s.get("/api/v0/models/Qwen/x").json()["publisher"] == "Qwen"


# ---- /api/v0 (L2, L3) -------------------------------------------------------------------------------

EXTRA = {"stats", "model_info", "runtime"}


def test_v0_plain(server):
    body = {"model": "m", "messages": M, "temperature": 0, "max_tokens": -1}
    mine, theirs = server.post("/api/v0/chat/completions", body).json(), server.post("/v1/chat/completions", body).json()
    assert set(mine) - set(theirs) == EXTRA and mine["choices"] == theirs["choices"]
    assert mine["stats"]["stop_reason"] == "eosFound" and mine["stats"]["tokens_per_second"] > 0 and mine["stats"]["time_to_first_token"] > 0
    assert mine["runtime"]["name"] == "quern" and mine["model_info"]["arch"] == "qwen3"
    for fields, why in (({"max_tokens": 3}, "maxPredictedTokensReached"), ({"stop": "capital", "enable_thinking": False}, "stopStringFound"),
                        ({"ignore_eos": True}, "contextLengthReached")):
        r = server.post("/api/v0/chat/completions", {**body, **fields}).json()
        assert r["stats"]["stop_reason"] == why, r
    r = server.post("/api/v0/completions", {"model": "m", "prompt": ["a", "b"], "max_tokens": 3}).json()
    assert EXTRA <= set(r) and len(r["choices"]) == 2


def test_v0_embeddings(start, server):
    s = start("--embeddings")
    body = {"model": "m", "input": ["a", "b"], "encoding_format": "base64"}
    mine, theirs = s.post("/api/v0/embeddings", body).json(), s.post("/v1/embeddings", body).json()
    assert set(mine) - set(theirs) == {"model_info", "runtime"} and mine["data"] == theirs["data"] and mine["usage"] == theirs["usage"]
    assert s.get("/api/v0/models/m").json()["type"] == "llm"
    r = server.post("/api/v0/embeddings", body)
    assert r.status_code == 400 and r.json()["error"]["code"] == "unsupported_value"


def test_v0_tool_calls(server):
    with open("tests/data/demo_golden.json", encoding="utf8") as f:
        tools = next(g["tools"] for g in json.load(f) if g["tools"] and g["tools"][0]["function"]["name"] == "get_weather")
    r = server.post("/api/v0/chat/completions", {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": tools, "temperature": 0}).json()
    assert r["stats"]["stop_reason"] == "toolCalls"


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("path,body", [("chat/completions", {"messages": M}), ("completions", {"prompt": "Hello", "max_tokens": 5})])
def test_v0_stream(server, path, body, usage):
    body = {"model": "m", "temperature": 0, **body, **({"stream_options": {"include_usage": True}} if usage else {})}
    chunks = server.events("/api/v0/" + path, body)
    assert chunks[-1] == "[DONE]" and [i for i, c in enumerate(chunks[:-1]) if EXTRA & set(c)] == [len(chunks) - 2] and EXTRA <= set(chunks[-2])
    assert not any(EXTRA & set(c) for c in server.events("/v1/" + path, body)[:-1])


def test_seed_of_minus_one_is_random(server):
    """G4: on these routes; on OpenAI's it is a seed like another."""
    ask = lambda path, body: server.post(path, {"model": "m", "seed": -1, **body}).headers.get("x-quern-seed")
    assert ask("/api/v0/chat/completions", {"messages": M, "max_tokens": 1}) and ask("/api/v0/completions", {"prompt": "a", "max_tokens": 1})
    assert ask("/api/v1/chat", {"input": "x", "max_output_tokens": 1}) and ask("/v1/chat/completions", {"messages": M, "max_tokens": 1}) is None
    assert ask("/v1/completions", {"prompt": "a", "max_tokens": 1}) is None and ask("/completions", {"prompt": "a", "max_tokens": 1}) is None


# ---- /api/v1/chat (L4, L5) --------------------------------------------------------------------------

@pytest.mark.parametrize("fields", [{}, {"reasoning": "off"}, {"reasoning": "high"}, {"max_output_tokens": 4}, {"include_reasoning": False}, {"store": False}])
def test_stream_equals_plain(server, fields):
    plain, stream = chat(server, **fields).json(), events(server, **fields)
    kinds = [e["type"] for e in stream]
    assert kinds[:2] == ["chat.start", "prompt_processing.start"] and kinds[-1] == "chat.end" and kinds.count("prompt_processing.end") == 1
    steps = [e["progress"] for e in stream if e["type"] == "prompt_processing.progress"]
    assert steps == sorted(steps) and 0 <= steps[0] and steps[-1] == 1 and kinds.index("prompt_processing.end") == 2 + len(steps)
    result = stream[-1]["result"]
    assert stripped(result) == stripped(plain) and ("response_id" in plain) == ("response_id" in result) == fields.get("store", True)
    for part in result["output"]:
        assert "".join(e["content"] for e in stream if e["type"] == part["type"] + ".delta") == part["content"]
        assert kinds.count(part["type"] + ".start") == kinds.count(part["type"] + ".end") == 1
    assert [p["type"] for p in plain["output"]] == {"off": ["message"]}.get(fields.get("reasoning"), ["reasoning"] if "max_output_tokens" in fields else
                                                    ["message"] if "include_reasoning" in fields else ["reasoning", "message"])
    assert plain["stats"]["reasoning_output_tokens"] <= plain["stats"]["total_output_tokens"] and plain["model_instance_id"] == "m"


def test_conversation(server):
    first = chat(server, input=[{"type": "message", "content": "My name is"}, {"type": "text", "content": "Ada."}], system_prompt="Be brief.").json()
    second = chat(server, previous_response_id=first["response_id"]).json()
    answer = "".join(o["content"] for o in first["output"] if o["type"] == "message")
    thought = "".join(o["content"] for o in first["output"] if o["type"] == "reasoning")
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "My name is"}, {"type": "text", "text": "Ada."}]},
            {"role": "assistant", "content": answer, "reasoning_content": thought}, *M]
    n = server.post("/v1/chat/completions/input_tokens", {"model": "m", "messages": talk}).json()["input_tokens"]
    assert second["stats"]["input_tokens"] == n
    kept = server.get("/v1/responses/" + second["response_id"]).json()
    assert kept["previous_response_id"] == first["response_id"] and [o["type"] for o in kept["output"]] == ["reasoning", "message"]
    other = server.post("/v1/responses", {"model": "m", "input": "And of Japan?", "previous_response_id": second["response_id"], "temperature": 0}).json()
    assert other["status"] == "completed" and other["usage"]["input_tokens"] > n
    assert "response_id" not in chat(server, store=False).json()
    r = chat(server, previous_response_id="resp_none")
    assert r.status_code == 400 and r.json()["error"]["code"] == "previous_response_not_found"


def test_own_context(server):
    n = chat(server, max_output_tokens=1).json()["stats"]["input_tokens"]
    r = chat(server, context_length=n + 7, ignore_eos=True).json()
    assert r["stats"]["total_output_tokens"] == 7
    r = chat(server, context_length=n)
    assert r.status_code == 400 and r.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("fields,status,type,word", [
    ({"input": None}, 400, "invalid_request", "input"), ({"input": 5}, 400, "invalid_request", "input"), ({"input": [{"type": "odd"}]}, 400, "invalid_request", "input[0]"),
    ({"input": [{"type": "text"}]}, 400, "invalid_request", "input[0].content"), ({"input": [{"type": "image", "data_url": "data:"}]}, 400, "invalid_request", "image"),
    ({"system_prompt": 1}, 400, "invalid_request", "system_prompt"), ({"reasoning": "huge"}, 400, "invalid_request", "reasoning"), ({"n": 2}, 400, "invalid_request", "'n'"),
    ({"context_length": 10 ** 9}, 400, "invalid_request", "context_length"), ({"max_output_tokens": 0}, 400, "invalid_request", "max_output_tokens"),
    ({"temperature": 3}, 400, "invalid_request", "temperature"), ({"input": "hi " * 5000}, 400, "invalid_request", "maximum context length"),
    ({"integrations": ["mcp/x"]}, 501, "not_implemented", "integrations"), ({"model": "other"}, 404, "model_not_found", "other"),
])
def test_errors_have_their_shape(server, fields, status, type, word):
    r = chat(server, **fields)
    e = r.json()["error"]
    assert r.status_code == status and e["type"] == type and word in e["message"] and set(e) <= {"type", "message", "code", "param"}, r.text


def test_listed_and_not_built(server):
    r = chat(server, tools=[{"type": "function", "function": {"name": "f"}}], messages=M, frobnicate=1, max_output_tokens=1)
    assert set(r.headers["x-quern-ignored"].split(",")) == {"tools", "messages", "frobnicate"}
    for path in ("load", "unload", "download"):
        assert server.post("/api/v1/models/" + path, {}).status_code == 501
    r = server.get("/api/v1/models/download/status/job")
    assert r.status_code == 501 and r.json()["error"]["type"] == "not_implemented"


def test_failure_in_a_stream(slow):
    """H17: error, then chat.end with what there is."""
    got = events(slow, {"x-quern-timeout-ms": "300"}, ignore_eos=True)
    assert [e["type"] for e in got[-2:]] == ["error", "chat.end"] and got[-2]["error"]["message"] and got[-2]["error"]["code"] == "deadline_exceeded"
    said = "".join(e["content"] for e in got if e["type"].endswith(".delta"))
    assert "response_id" not in got[-1]["result"] and "".join(o["content"] for o in got[-1]["result"]["output"]) == said


def test_hang_up(server):
    with httpx.stream("POST", server.url + "/api/v1/chat", timeout=30, json={"input": CAPITAL, "stream": True, "ignore_eos": True}) as r:
        next(r.iter_lines())
    assert chat(server).status_code == 200
