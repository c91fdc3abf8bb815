"""Fields of chat and completions beyond the sampler's: what is sent, what is kept of a prompt, what is counted
(API C6, C8, G7, G12, G14, G16, P2)."""
import pytest

from conftest import SLOW

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
COLD = {"temperature": 0, "max_tokens": 12}
QUIET = {**COLD, "enable_thinking": False}
LONG = "one two three four five six seven eight nine ten " * 30


def ids(server, text):
    return server.post("/tokenize", {"content": text}).json()["tokens"]


def refused(r, param):
    assert r.status_code == 400 and r.json()["error"]["param"] == param, r.text


def test_prompt_logprobs(server):  # G12
    prompt = ids(server, "The capital of France is")
    r = server.complete(prompt=prompt, prompt_logprobs=3, n=2, echo=True, logprobs=1, **COLD).json()
    for c in r["choices"]:
        rows = c["prompt_logprobs"]
        assert rows[0] is None and len(rows) == len(prompt)
        for i, row in enumerate(rows[1:], 1):
            own = row[str(prompt[i])]
            assert list(row)[0] == str(prompt[i]) and len(row) in (3, 4) and own["rank"] >= 1 and own["logprob"] <= 0
            best = sorted((x for x in row.values() if x["rank"] <= 3), key=lambda x: x["rank"])
            assert [x["rank"] for x in best] == [1, 2, 3] and best[0]["logprob"] >= best[1]["logprob"] >= best[2]["logprob"]
        # The prompt's rows of echo are the same numbers, with as many tops as logprobs asked for.
        assert c["logprobs"]["token_logprobs"][1:len(prompt)] == [row[str(prompt[i])]["logprob"] for i, row in enumerate(rows) if i]
        assert all(len(t) <= 2 for t in c["logprobs"]["top_logprobs"])
    r = server.chat(prompt_logprobs=0, **QUIET).json()
    assert len(r["prompt_logprobs"]) == r["usage"]["prompt_tokens"] and all(len(row) == 1 for row in r["prompt_logprobs"][1:])
    assert "prompt_logprobs" not in server.chat(**QUIET).json()


@pytest.mark.parametrize("body,param", [
    ({"prompt_logprobs": 20, "n": 128, "prompt": [5] * 2000}, "prompt_logprobs"), ({"echo": True, "logprobs": 20, "n": 128, "prompt": [5] * 2000}, "logprobs"),
    ({"prompt_logprobs": 21}, "prompt_logprobs"), ({"prompt_logprobs": -1}, "prompt_logprobs"), ({"prompt_logprobs": True}, "prompt_logprobs"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"), ({"best_of": 1, "n": 2}, "best_of"), ({"best_of": 21}, "best_of"),
    ({"best_of": 3, "stream": True}, "best_of"), ({"best_of": 20, "prompt": ["a"] * 7}, "best_of"), ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"), ({"truncation_side": "middle"}, "truncation_side"),
    ({"stream": True, "stream_options": {"continuous_usage_stats": 1}}, "stream_options.continuous_usage_stats"),
    ({"return_progress": "yes"}, "return_progress"),
])
def test_bad_values(server, body, param):
    refused(server.complete(**body), param)


def test_tokens_as_ids(server):  # G16
    r = server.complete(prompt="The capital", logprobs=2, return_tokens_as_token_ids=True, return_token_ids=True, **COLD).json()["choices"][0]
    assert r["logprobs"]["tokens"] == [f"token_id:{i}" for i in r["token_ids"][:len(r["logprobs"]["tokens"])]]
    assert all(k.startswith("token_id:") for t in r["logprobs"]["top_logprobs"] for k in t)
    c = server.chat(logprobs=True, top_logprobs=1, return_tokens_as_token_ids=True, return_token_ids=True, **QUIET).json()["choices"][0]
    items = c["logprobs"]["content"]
    assert items and all(x["token"].startswith("token_id:") and x["top_logprobs"][0]["token"].startswith("token_id:") for x in items)
    assert int(items[0]["token"][9:]) in c["token_ids"]


def test_truncation(server):  # G7
    prompt = ids(server, LONG)
    ctx = server.get("/v1/models").json()["data"][0]["max_model_len"]
    for side, kept in (("left", prompt[-7:]), ("right", prompt[:7])):
        r = server.complete(prompt=prompt, truncate_prompt_tokens=7, truncation_side=side, return_token_ids=True, **COLD)
        assert r.json()["choices"][0]["prompt_token_ids"] == kept and r.headers["x-quern-truncated"] == str(len(prompt) - 7)
        assert r.json()["usage"]["prompt_tokens"] == 7
    short = server.complete(prompt=prompt, truncate_prompt_tokens=len(prompt), **COLD)
    assert "x-quern-truncated" not in short.headers
    huge = [5] * (ctx + 40)
    r = server.complete(prompt=[huge, prompt], truncate_prompt_tokens=-1, max_tokens=2, echo=True, return_token_ids=True)
    assert [len(c["prompt_token_ids"]) for c in r.json()["choices"]] == [ctx - 2, len(prompt)] and r.headers["x-quern-truncated"] == "42"
    r = server.complete(prompt=huge, truncate_prompt_tokens=-1, max_tokens=ctx + 9)
    assert r.json()["usage"]["prompt_tokens"] == 1
    r = server.chat(truncate_prompt_tokens=3, truncation_side="left", **QUIET)
    assert set(r.headers["x-quern-ignored"].split(",")) == {"truncate_prompt_tokens", "truncation_side"}


def test_best_of(server):  # P2
    ask = {"prompt": ["Once", "The"], "temperature": 1.5, "seed": 7, "max_tokens": 6, "logprobs": 0, "return_token_ids": True}
    every = server.complete(**ask, n=5).json()
    best = server.complete(**ask, n=2, best_of=5).json()
    assert [c["index"] for c in best["choices"]] == [0, 1, 2, 3]
    assert best["usage"]["completion_tokens"] == every["usage"]["completion_tokens"] == sum(len(c["token_ids"]) for c in every["choices"])

    def mean(c):  # an end token is drawn and has no row, so only choices without one can be checked from outside
        return sum(c["logprobs"]["token_logprobs"]) / len(c["token_ids"])
    assert all(len(c["logprobs"]["token_logprobs"]) == len(c["token_ids"]) for c in every["choices"])
    for i in range(2):
        want = sorted(every["choices"][5 * i:5 * i + 5], key=mean, reverse=True)[:2]
        assert [c["token_ids"] for c in best["choices"][2 * i:2 * i + 2]] == [c["token_ids"] for c in want]
    assert server.complete(best_of=2, n=2, **COLD).status_code == 200
    hidden = server.complete(best_of=3, **COLD).json()["choices"]
    assert len(hidden) == 1 and hidden[0]["logprobs"] is None


def chunks(server, path, **body):
    got = server.events(path, body)
    assert got[-1] == "[DONE]"
    return got[:-1]


@pytest.mark.parametrize("path,body", [("/v1/chat/completions", {"messages": CAPITAL, **QUIET}), ("/v1/completions", {"prompt": "Hello", **COLD})])
def test_usage_and_timings_of_every_chunk(server, path, body):  # C8, G14
    got = chunks(server, path, **{**body, "max_tokens": 300, "ignore_eos": True}, timings_per_token=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    n = [c["usage"]["completion_tokens"] for c in got]
    assert n == sorted(n) and n[-1] == n[-2] == 300 and len(set(n)) > 1  # under load tokens share a chunk
    assert all(c["usage"]["total_tokens"] == c["usage"]["prompt_tokens"] + c["usage"]["completion_tokens"] for c in got)
    assert [c["timings"]["predicted_n"] for c in got] == n
    got = chunks(server, path, **body, stream_options={"include_usage": False, "continuous_usage_stats": True})
    assert all("usage" not in c for c in got) and sum("timings" in c for c in got) == 1
    r = server.post(path, {**body, "stream": True, "stream_options": {"continuous_usage_stats": True}})
    assert r.headers["x-quern-ignored"] == "stream_options.continuous_usage_stats"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/completion"])
def test_guesses_of_every_chunk(slow, path):  # G14: draft_n and draft_n_accepted grow with the stream
    ask = {"messages": CAPITAL} if "chat" in path else {"prompt": "Hello"}
    form = {"grammar": 'root ::= "' + " ".join(f"step {i} follows" for i in range(10)) + '"'}
    got = [c for c in slow.events(path, {**ask, **form, "enable_thinking": False, "temperature": 0, "max_tokens": 200, "timings_per_token": True})
           if c != "[DONE]"]
    seen = [c["timings"] for c in got if c["timings"]["predicted_n"] > 20]
    assert len(seen) > 1 and all(0 < t["draft_n_accepted"] <= t["draft_n"] for t in seen)
    for name in ("draft_n", "draft_n_accepted"):
        n = [t[name] for t in seen]
        assert n == sorted(n) and n[0] < n[-1], n


def test_progress(start):  # G14
    s = start(*SLOW, "--max-num-batched-tokens", "32")  # steps that last: what two of them tell in one moment is one chunk
    text = LONG[:len(LONG) // 4]
    for path, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **QUIET, "n": 2}),
                       ("/v1/completions", {"prompt": text, **COLD})):
        for again in (False, True):
            got = chunks(s, path, **body, return_progress=True, stream_options={"include_usage": True})
            total = got[-1]["usage"]["prompt_tokens"]
            seen = [c["prompt_progress"] for c in got if "prompt_progress" in c]
            done = [p["processed"] for p in seen]
            assert done[0] == seen[0]["cache"] and done == sorted(done) and done[-1] == total and all(p["total"] == total for p in seen)
            assert (seen[0]["cache"] > 0) == again and (again or len(done) > 2)
            last = max(i for i, c in enumerate(got) if "prompt_progress" in c)
            text_at = [i for i, c in enumerate(got) if c["choices"] and c["choices"][0]["index"] == 0 and
                       (c["choices"][0].get("text") or c["choices"][0].get("delta", {}).get("content"))]
            assert last < text_at[0] and all(p["time_ms"] >= 0 for p in seen)
            assert all(c["choices"][0].get("delta", {}) == {} and not c["choices"][0].get("text") for c in got if "prompt_progress" in c)
    plain = s.chat(return_progress=True, **QUIET)
    assert plain.status_code == 200 and "prompt_progress" not in plain.json()
    r = s.post("/v1/messages", {"model": "m", "messages": CAPITAL, "max_tokens": 2, "stream": True, "return_progress": True, "timings_per_token": True})
    assert {"return_progress", "timings_per_token"} <= set(r.headers["x-quern-ignored"].split(","))


def test_echo_of_a_continued_message(server):  # C6
    messages = CAPITAL + [{"role": "assistant", "content": "The capital of"}]
    body = {"messages": messages, "continue_final_message": True, **QUIET}
    new = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    both = server.post("/v1/chat/completions", {**body, "echo": True, "n": 2}).json()
    assert [c["message"]["content"] for c in both["choices"]] == ["The capital of" + new] * 2 and "Paris" in new
    got = chunks(server, "/v1/chat/completions", **body, echo=True)
    deltas = [c["choices"][0]["delta"] for c in got]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[1] == {"content": "The capital of"}
    assert "".join(d.get("content", "") for d in deltas) == "The capital of" + new
    # A thought that goes on is echoed as a thought.
    body = {"messages": CAPITAL + [{"role": "assistant", "content": "", "reasoning_content": "This is about"}], "continue_final_message": True, **COLD}
    new = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["reasoning_content"]
    m = server.post("/v1/chat/completions", {**body, "echo": True}).json()["choices"][0]["message"]
    assert m["reasoning_content"] == "This is about" + new
    # Without anything to continue there is nothing in front.
    assert server.chat(echo=True, **QUIET).json()["choices"][0]["message"] == server.chat(**QUIET).json()["choices"][0]["message"]
