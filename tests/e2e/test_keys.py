"""API keys and what each may do (API H7, H11, H12, H23, G18), and the log of requests (H6): one JSON line each, no key, no content."""
import json
import subprocess
import threading
import time

import openai
import pytest

from conftest import BIN, SLOW, Server, wait_for


def key(k, **more):
    return {"headers": {"Authorization": f"Bearer {k}", **more}}


TALK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A server with named keys and a JSON log."""
    f = tmp_path_factory.mktemp("keys") / "keys"
    f.write_text("# team\nalice: secret-a\nbob: secret-b\nsecret-c\n")
    s = Server("--api-key", "secret-k", "--open-metrics", "--api-key-file", str(f), "--cache-per-key", "--log-format", "json")
    s.key_file = f
    yield s
    assert s.stop() == 0


def requests_logged(s):
    out = []
    for line in s.lines:
        d = json.loads(line)
        if d["msg"] == "request":
            out.append(d)
    return out


def logged(s, request_id):
    assert wait_for(lambda: any(d["id"] == request_id for d in requests_logged(s)))
    (d,) = [d for d in requests_logged(s) if d["id"] == request_id]
    return d


def test_names_in_the_log(keyed):
    """H7: each key by its name, whatever route and header; never the key."""
    names = {"secret-a": "alice", "secret-b": "bob", "secret-c": "line-4", "secret-k": "key-1"}
    for k, name in names.items():
        keyed.get("/v1/models", **key(k, **{"x-request-id": f"r-{name}"}))
        assert logged(keyed, f"r-{name}")["key"] == name
    keyed.get("/v1/models", headers={"x-api-key": "wrong-key", "x-request-id": "r-none"})
    d = logged(keyed, "r-none")
    assert d["key"] is None and d["status"] == 401 and d["code"] == "invalid_api_key" and d["route"] == "other"
    text = "".join(keyed.lines)
    assert not any(k in text for k in [*names, "wrong-key"])


def test_one_line_a_request(keyed):
    """Tokens and times of a plain reply and of a stream are those of the reply; routes are patterns; no content."""
    ask = {"model": "m", "prompt": "Zanzibar", "max_tokens": 12, "ignore_eos": True, "temperature": 0}
    r = keyed.post("/v1/completions", ask, **key("secret-a", **{"x-request-id": "plain-1"}))
    d, u = logged(keyed, "plain-1"), r.json()["usage"]
    assert d["level"] == "info" and d["time"].endswith("Z")
    assert (d["key"], d["method"], d["route"], d["status"], d["end"], d["stream"]) == ("alice", "POST", "/v1/completions", 200, "done", False)
    assert (d["prompt_tokens"], d["completion_tokens"], d["reasoning_tokens"]) == (u["prompt_tokens"], 12, 0)
    assert 0 <= d["queue_ms"] <= d["first_token_ms"] <= d["ms"]
    keyed.events("/v1/completions", ask, **key("secret-a", **{"x-request-id": "stream-1"}))
    d = logged(keyed, "stream-1")
    assert d["stream"] is True and d["end"] == "done" and d["completion_tokens"] == 12
    keyed.get("/v1/models/some-secret-name?q=1", **key("secret-a", **{"x-request-id": "tail-1"}))
    d = logged(keyed, "tail-1")
    assert d["route"] == "/v1/models/*" and d["status"] == 404 and d["code"] == "model_not_found" and "prompt_tokens" not in d
    keyed.post("/v1/completions", {"prompt": "x", "temperature": 9}, **key("secret-a", **{"x-request-id": "bad-1"}))
    assert (logged(keyed, "bad-1")["status"], logged(keyed, "bad-1")["code"]) == (400, "invalid_value")
    text = "".join(keyed.lines)
    assert "Zanzibar" not in text and "some-secret-name" not in text and "q=1" not in text


def test_who_left_is_logged(keyed):
    """H14: status null when nothing was sent, end left; a stream that was cut keeps its 200."""
    before = len([d for d in requests_logged(keyed) if d["end"] == "left"])
    for stream, status in ((False, None), (True, 200)):
        c = keyed.open_stream(headers=b"x-api-key: secret-b\r\nx-request-id: left-%d\r\n" % stream, stream=stream, n=32, max_tokens=1900)
        if stream:
            assert c.recv(100)
        else:
            time.sleep(0.15)
        c.close()
        d = logged(keyed, f"left-{int(stream)}")
        assert d["status"] == status and d["end"] == "left" and d["key"] == "bob"
    assert len([d for d in requests_logged(keyed) if d["end"] == "left"]) == before + 2


def test_failures_at_the_start_are_json_too():
    p = subprocess.run([BIN, "serve", "/nonexistent", "--log-format", "json"], capture_output=True, timeout=30)
    assert p.returncode == 2
    (line,) = [json.loads(x) for x in p.stderr.decode().splitlines() if "names no option" not in x]
    assert line["level"] == "error" and "/nonexistent" in line["msg"]


def test_cache_per_key(keyed):
    """G18: with --cache-per-key a prompt is found again only under the key that computed it."""
    def cached(k):
        r = keyed.post("/v1/completions", {"prompt": [77] * 100, "max_tokens": 1}, **key(k)).json()
        return r["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached("secret-a") == 0 and cached("secret-a") == 96
    assert cached("secret-b") == 0 and cached("secret-b") == 96


def test_hup_reads_the_file_again(keyed):
    """H7: new keys count at once, old ones no more; a broken file changes nothing and says which line."""
    keyed.key_file.write_text("alice: secret-a\nbob: secret-b\nbad line\n")
    keyed.proc.send_signal(1)
    assert wait_for(lambda: any("line 3" in line for line in keyed.lines))
    assert keyed.get("/v1/models", **key("secret-c")).status_code == 200
    keyed.key_file.write_text("alice: secret-a\nbob: secret-b\ndora: secret-d\n")
    keyed.proc.send_signal(1)
    assert wait_for(lambda: keyed.get("/v1/models", **key("secret-d")).status_code == 200)
    assert keyed.get("/v1/models", **key("secret-c")).status_code == 401
    assert keyed.get("/v1/models", **key("secret-k")).status_code == 200
    assert "bad line" not in "".join(keyed.lines)


def test_requests_at_a_time(start):
    """H23: the third of a key is refused before its body is read; others and open routes are not; a place is free when one ends or leaves."""
    s = start(*SLOW, "--api-key", "k1", "--api-key", "k2", "--key-max-concurrent", "2", "--open-metrics")
    held = [s.open_stream(headers=b"x-api-key: k1\r\n") for _ in range(2)]
    assert wait_for(lambda: s.metric("vllm:num_requests_running") == 2)
    for path, body in (("/v1/completions", {"prompt": "x"}), ("/tokenize", {"content": "x"}), ("/v1/messages", {}), ("/api/chat", {})):
        r = s.post(path, body, **key("k1"))
        assert r.status_code == 429 and r.headers["retry-after"] == "1", path
        assert "--key-max-concurrent" in r.text
    assert s.post("/v1/completions", {"prompt": "x"}, **key("k1")).json()["error"]["code"] == "rate_limit_exceeded"
    assert s.post("/v1/messages", {}, **key("k1")).json()["error"]["type"] == "rate_limit_error"
    assert s.post("/v1/completions", b"x" * 3000000, **key("k1")).status_code == 429
    assert s.get("/v1/models", **key("k1")).status_code == 200
    assert s.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, **key("k2")).status_code == 200
    held[0].close()
    assert wait_for(lambda: s.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, **key("k1")).status_code == 200)
    with openai.OpenAI(base_url=s.url + "/v1", api_key="k1", max_retries=2) as c:
        held[0] = s.open_stream(headers=b"x-api-key: k1\r\n")
        assert wait_for(lambda: s.metric("vllm:num_requests_running") == 2)
        threading.Timer(0.5, held[1].close).start()
        assert c.completions.create(model="m", prompt="x", max_tokens=1).choices  # it waits as it is told and tries again
    held[0].close()


def test_requests_and_tokens_a_minute(start):
    """H23: bad requests count as requests, refused ones do not; tokens are those of usage."""
    s = start("--api-key", "k1", "--api-key", "k2", "--key-rpm", "4", "--key-tpm", "60")
    ok = {"prompt": [9] * 20, "max_tokens": 5, "ignore_eos": True}
    assert s.post("/v1/completions", {"prompt": "x", "temperature": 9}, **key("k1")).status_code == 400
    assert [s.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, **key("k1")).status_code for _ in range(5)] == [200] * 3 + [429] * 2
    r = s.post("/v1/completions", ok, **key("k1"))
    assert "--key-rpm" in r.json()["error"]["message"] and 50 <= int(r.headers["retry-after"]) <= 60
    assert [s.post("/v1/completions", ok, **key("k2")).status_code for _ in range(3)] == [200] * 3
    r = s.post("/v1/completions", ok, **key("k2"))
    assert r.status_code == 429 and "--key-tpm of 60 tokens a minute" in r.json()["error"]["message"] and 50 <= int(r.headers["retry-after"]) <= 60


def test_pooled_tokens_count_too(start):
    """H23 and the log: what embeddings read is paid for like any prompt."""
    s = start("--embeddings", "--api-key", "k1", "--key-tpm", "10", "--log-format", "json")
    ask = {"model": "m", "input": ["one two three four five", "six seven eight nine ten"]}
    r = s.post("/v1/embeddings", ask, **key("k1", **{"x-request-id": "emb-1"}))
    assert r.status_code == 200 and r.json()["usage"]["prompt_tokens"] >= 10
    d = logged(s, "emb-1")
    assert d["prompt_tokens"] == r.json()["usage"]["prompt_tokens"] and d["completion_tokens"] == 0 and d["queue_ms"] >= 0
    assert s.post("/v1/embeddings", ask, **key("k1")).status_code == 429


def test_priority(start):
    """G18, H11: lower first among those that wait, if the server allows it; else listed and without effect."""
    s = start(*SLOW, "--max-num-seqs", "1", "--allow-priority")
    busy = s.open_stream()
    assert wait_for(lambda: s.metric("vllm:num_requests_running") == 1)
    ended, threads = [], []

    def ask(p):
        r = s.complete(max_tokens=30, ignore_eos=True, priority=p)
        assert r.status_code == 200 and "priority" not in r.headers.get("x-quern-ignored", "")
        ended.append(p)

    for i, p in enumerate((5, 3, 4)):
        threads.append(threading.Thread(target=ask, args=(p,)))
        threads[-1].start()
        assert wait_for(lambda: s.metric("vllm:num_requests_waiting") == i + 1)
    busy.close()
    for t in threads:
        t.join()
    assert ended == [3, 4, 5]


def test_priority_is_off_by_default(server):
    r = server.complete(max_tokens=1, priority=-3)
    assert r.status_code == 200 and r.headers["x-quern-ignored"] == "priority"
    assert server.complete(max_tokens=1, priority="high").status_code == 400


def test_request_timeout(start):
    """H12: the request's limit or the server's, whichever is smaller, from arrival, while waiting, plain and streamed."""
    s = start(*SLOW, "--max-num-seqs", "1", "--request-timeout", "600")
    busy = s.open_stream(max_tokens=1900)  # for as long as all of this takes
    assert wait_for(lambda: s.metric("vllm:num_requests_running") == 1)
    for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/completions", {"prompt": "x", "stream": True}),
                       ("/v1/messages", {**TALK, "stream": True}), ("/api/chat", TALK)):
        r = s.post(path, {"max_tokens": 900, **body}, headers={"x-quern-timeout-ms": "100"})  # streams that never began
        assert r.status_code == 504 and "the deadline passed" in r.text, path
    for bad in ("0", "-5", "soon", "1e99", ""):
        r = s.post("/v1/completions", {"prompt": "x"}, headers={"x-quern-timeout-ms": bad})
        assert r.status_code == 400 and r.json()["error"]["param"] == "x-quern-timeout-ms", bad
    busy.close()
    s = start(*SLOW, "--request-timeout", "0.5")
    r = s.post("/v1/completions", {"prompt": "x", "max_tokens": 1900, "ignore_eos": True}, headers={"x-quern-timeout-ms": "600000"})
    assert r.status_code == 504 and r.json()["error"]["code"] == "deadline_exceeded"
