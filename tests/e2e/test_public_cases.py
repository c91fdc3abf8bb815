"""Faults other servers had, as checks of ours (those not already covered by a test beside them)."""
import concurrent.futures as cf
import json
import shutil

from conftest import DEMO, alive

U = [{"role": "user", "content": "What is the capital of France?"}]


def test_stop_strings_do_not_fire_in_the_thought(server):
    whole = server.chat(messages=U, temperature=0, max_tokens=200).json()["choices"][0]["message"]
    thought, answer = whole["reasoning_content"], whole["content"]
    words = [w for w in thought.split() if len(w) > 2]
    assert words
    for stop in words:
        got = server.chat(messages=U, temperature=0, max_tokens=200, stop=[stop]).json()["choices"][0]
        assert got["message"]["reasoning_content"] == thought
        assert got["message"]["content"] == (answer[:answer.index(stop)] if stop in answer else answer)


def test_every_eos_of_generation_config_stops(start, tmp_path):
    d = tmp_path / "model"
    shutil.copytree(DEMO, d, ignore=shutil.ignore_patterns("train"))
    config = json.loads((d / "config.json").read_text())
    gen = json.loads((d / "generation_config.json").read_text())
    extra = 300  # an ordinary token made an end token
    gen["eos_token_id"] = [config["eos_token_id"], extra, extra]
    (d / "generation_config.json").write_text(json.dumps(gen))
    s = start(model=str(d))
    r = s.complete(logit_bias={str(extra): 100}, max_tokens=20).json()
    assert r["usage"]["completion_tokens"] == 1 and r["choices"][0]["finish_reason"] == "stop"


def test_concurrent_requests_keep_their_own_text(server):
    def run(i):
        r = server.complete(prompt=f"id {i} is", echo=True, seed=i, max_tokens=12, temperature=1)
        return r.json()["choices"][0]["text"]

    with cf.ThreadPoolExecutor(32) as pool:
        got = list(pool.map(run, range(32)))
    for i, text in enumerate(got):
        assert text.startswith(f"id {i} is") and text == run(i)


def test_counters_stay_monotone_after_cache_hits_and_aborts(server):
    prompt = [i % 150 + 40 for i in range(300)]
    names = ["vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:prefix_cache_hits_total", "vllm:prompt_tokens_cached_total"]
    last = {n: server.metric(n) for n in names}
    for i in range(3):
        if i == 1:
            try:
                server.post("/v1/completions", {"model": "m", "prompt": prompt, "max_tokens": 1000, "ignore_eos": True}, headers={})
            except Exception:  # a client that gives up is not the point here
                pass
        r = server.complete(prompt=prompt, max_tokens=4).json()
        assert r["usage"]["prompt_tokens_details"]["cached_tokens"] < 300
        now = {n: server.metric(n) for n in names}
        assert all(now[n] >= last[n] for n in names)
        last = now


def test_logprob_bytes_are_the_tokens_own(server):
    r = server.chat(messages=[{"role": "user", "content": "你好"}], logprobs=True, top_logprobs=3, max_tokens=40, temperature=2, seed=2,
                    ignore_eos=True, enable_thinking=False).json()
    items = r["choices"][0]["logprobs"]["content"]
    ids = server.post("/tokenize", {"content": "é"}).json()["tokens"]
    assert ids
    raw = b"".join(bytes(i["bytes"]) for i in items)
    assert raw.decode("utf-8", "replace").strip() == r["choices"][0]["message"]["content"].strip()
    assert not any(i["bytes"] == [239, 191, 189] and i["token"] != "\ufffd" for i in items)


def test_server_survives_hostile_bodies(server):
    deep = "[" * 5000 + "]" * 5000
    for body in (b"{" * 100000, deep.encode(), b'{"messages":' + b"[" * 127 + b"]" * 127 + b"}", b'"' + b"\\ud800" * 1000 + b'"',
                 json.dumps({"messages": [{"role": "user", "content": "x"}], "temperature": 10 ** 400}).encode()):
        assert server.post("/v1/chat/completions", body).status_code == 400
    big = {"messages": [{"role": "user", "content": "ab " * 400000}]}
    assert server.post("/v1/chat/completions", big).json()["error"]["code"] == "context_length_exceeded"
    many = {"messages": U, **{f"f{i}": i for i in range(20000)}}
    r = server.post("/v1/chat/completions", {**many, "max_tokens": 1})
    assert r.status_code == 200 and len(r.headers["x-quern-ignored"]) <= 520 and r.headers["x-quern-ignored"].endswith("...")
    bomb = {"messages": U, "chat_template_kwargs": {"x": ["a"] * 100000}, "max_tokens": 1}
    assert server.post("/v1/chat/completions", bomb).status_code == 200
    alive(server)
