"""The rule of bits over HTTP (API G4): a reply depends on its request alone."""
import concurrent.futures as cf
import json

BODY = {"model": "m", "prompt": "Once upon a time there was a small", "max_tokens": 24, "temperature": 0.9, "seed": 11, "logprobs": 5,
        "ignore_eos": True}


def essence(r):
    c = r.json()["choices"][0]
    return json.dumps([c["text"], c["logprobs"], c["finish_reason"]])


def run(s, **fields):
    r = s.post("/v1/completions", {**BODY, **fields})
    assert r.status_code == 200, r.text
    return essence(r)


def streamed(s):
    ev = s.events("/v1/completions", BODY)[:-1]
    text = "".join(e["choices"][0]["text"] for e in ev)
    lp = {k: [] for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}
    for e in ev:
        for k in lp:
            lp[k] += (e["choices"][0]["logprobs"] or {}).get(k, [])
    return json.dumps([text, lp, ev[-1]["choices"][0]["finish_reason"]])


def test_same_bits_whatever_else_runs(server):
    want = run(server, cache_prompt=False)
    assert run(server) == want and run(server) == want  # cold, then warm prefix cache
    assert streamed(server) == want
    with cf.ThreadPoolExecutor(32) as pool:
        other = [pool.submit(run, server, prompt=f"id {i} " * (3 + i % 7), seed=i, max_tokens=20 + i) for i in range(31)]
        mine = pool.submit(run, server, cache_prompt=False)
        assert mine.result() == want
        crowd = [o.result() for o in other]
    for i, got in enumerate(crowd):
        assert run(server, prompt=f"id {i} " * (3 + i % 7), seed=i, max_tokens=20 + i) == got
    n = server.post("/v1/completions", {**BODY, "n": 3}).json()["choices"]
    assert json.dumps([n[0]["text"], n[0]["logprobs"], n[0]["finish_reason"]]) == want
    greedy = server.post("/v1/completions", {**BODY, "n": 4, "temperature": 0}).json()["choices"]
    assert len({json.dumps([c["text"], c["logprobs"]]) for c in greedy}) == 1


def test_same_bits_at_any_chunk_and_thread_count(server, start):
    long = dict(prompt="A long story about a fox and a hen. " * 12)
    want, want_long = run(server, cache_prompt=False), run(server, cache_prompt=False, **long)
    for args in (("--max-num-batched-tokens", "1"), ("--max-num-batched-tokens", "7"), ("--max-num-batched-tokens", "64", "--threads", "1"),
                 ("--no-prefix-caching", "--threads", "2")):
        s = start(*args)
        assert run(s) == want, args
        assert run(s, **long) == want_long, args
        assert s.stop() == 0


def test_cached_prefix(server):
    prompt = [i % 200 + 10 for i in range(450)]
    other = prompt[:300] + [33] * 150
    got = []
    for i in range(4):
        r = server.post("/v1/completions", {**BODY, "prompt": prompt, "temperature": 0})
        got.append(essence(r))
        cached = r.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached < 450 and (i == 0 or cached > 0)
        server.post("/v1/completions", {**BODY, "prompt": other})
    assert len(set(got)) == 1
    r = server.post("/v1/completions", {**BODY, "prompt": prompt, "cache_salt": "tenant-b"})
    assert r.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_preemption_keeps_bits(server, start):
    want = [run(server, prompt=f"seq {i} ", max_tokens=300, seed=i) for i in range(6)]
    s = start("--max-model-len", "512", "--kv-cache-memory", "1200K", "--max-num-seqs", "6")
    with cf.ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda i: run(s, prompt=f"seq {i} ", max_tokens=300, seed=i), range(6)))
    assert got == want
    assert s.metric("vllm:num_preemptions_total") > 0, "the pool was not tight enough to preempt"
