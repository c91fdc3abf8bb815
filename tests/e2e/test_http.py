"""The wire below JSON: framing, hosts, origins, keys, limits, hang-ups (API H1-H18)."""
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from conftest import SLOW, alive, refused_as_late, slow_body, wait_for

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()


def status(raw):
    assert raw.startswith(b"HTTP/1.1 "), raw[:200]
    return int(raw.split()[1])


def post(headers, body=BODY, line=b"POST /v1/chat/completions HTTP/1.1", length=True):
    h = line + b"\r\n" + headers
    if length:
        h += b"Content-Length: " + str(len(body)).encode() + b"\r\n"
    return h + b"\r\n" + body


HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize("data,want", [
    (post(HOST + b"Transfer-Encoding: chunked\r\n"), 400),
    (post(HOST + b"Content-Length: 5\r\n"), 400),
    (post(HOST + b"Content-Length: 2x\r\n", length=False), 400),
    (post(HOST + b"Content-Length: -1\r\n", length=False), 400),
    (post(HOST + b"Content-Length: +5\r\n", length=False), 400),
    (post(HOST + b"Transfer-Encoding: gzip, chunked\r\n", length=False), 501),
    (post(HOST + HOST), 400),
    (post(b""), 400),
    (post(HOST, line=b"POST /v1/chat/completions HTTP/1.2"), 505),
    (post(HOST, line=b"BREW / HTTP/1.1"), 501),
    (post(HOST + b"Expect: 200-maybe\r\n"), 417),
    (post(HOST, line=b"POST /v1/\xc3\xa9 HTTP/1.1"), 400),
    (post(HOST, line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414),
    (post(HOST + b"".join(b"X-%d: y\r\n" % i for i in range(120))), 431),
    (post(HOST + b"X: " + b"y" * 40000 + b"\r\n"), 431),
    (post(HOST, length=False, body=b""), 411),
    (post(HOST + b"Connection: close\r\nContent-Encoding: gzip\r\n"), 415),
    (post(HOST + b"Connection: close\r\nContent-Type: text/plain\r\n"), 415),
    (post(HOST + b"Connection: close\r\nContent-Type: application/json; charset=latin1\r\n"), 415),
    (post(HOST + b"Content-Length: 999999999999\r\n", length=False, body=b""), 413),
])
def test_refused_requests(server, data, want):
    got = server.raw(data, timeout=5, shut=True)
    assert status(got) == want, got[:300]


def test_bad_header_name_closes(server):
    got = server.raw(post(HOST + b"Bad Name: x\r\n"), timeout=3, shut=True)
    assert got == b"" or status(got) in (200, 400), got[:200]


@pytest.mark.parametrize("ctype", [b"application/json", b"application/json; charset=utf-8", b"text/json", b"application/vnd.api+json", None])
def test_media_types(server, ctype):
    h = HOST + (b"Content-Type: " + ctype + b"\r\n" if ctype else b"") + b"Connection: close\r\n"
    assert status(server.raw(post(h))) == 200


def test_chunked_body(server):
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    got = server.raw(post(HOST + b"Transfer-Encoding: chunked\r\n", body=body, length=False))
    assert status(got) == 200 and b"connection: close" in got.lower()


@pytest.mark.parametrize("chunk", [b"+5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"zz\r\n"])
def test_bad_chunks_never_answer_200(server, chunk):
    got = server.raw(post(HOST + b"Transfer-Encoding: chunked\r\n", body=chunk, length=False), timeout=3, shut=True)
    assert not got.startswith(b"HTTP/1.1 200")
    alive(server)


def test_pipelining_in_order(server):
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\nx-request-id: r%d\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nx-request-id: r9\r\nConnection: close\r\n\r\n"
    got = server.raw(b"".join(one % i for i in range(3)) + post(HOST + b"x-request-id: r3\r\n") + last)
    ids = [l.split(b": ")[1] for l in got.split(b"\r\n") if l.lower().startswith(b"x-request-id")]
    assert ids == [b"r0", b"r1", b"r2", b"r3", b"r9"]


def chunks_off(raw):
    """Status and body of every reply on a connection, by Content-Length."""
    out = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        n = next((int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length:")), 0)
        out.append((status(head), rest[:n]))
        raw = rest[n:]
    return out


@pytest.mark.parametrize("head,want", [
    (b"GET /nope HTTP/1.1\r\n" + HOST, 404), (b"GET /v1/completions HTTP/1.1\r\n" + HOST, 405), (b"GET /v1/models/nope HTTP/1.1\r\n" + HOST, 404),
    (b"GET /v1/models HTTP/1.1\r\nHost: evil.com\r\n", 403), (b"GET /v1/models HTTP/1.1\r\nOrigin: http://evil.com\r\n" + HOST, 403),
    (b"POST /v1/completions HTTP/1.1\r\nContent-Type: text/csv\r\nContent-Length: 0\r\n" + HOST, 415),
    (b"OPTIONS /v1/models HTTP/1.1\r\n" + HOST, 204), (b"OPTIONS * HTTP/1.1\r\n" + HOST, 204),
    (b"OPTIONS /v1/completions HTTP/1.1\r\nOrigin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n" + HOST, 204)])
def test_refusals_keep_the_connection(server, head, want):
    """H1: what is answered without a body, preflights too, leaves the connection open and loses nothing that was pipelined."""
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    got = server.raw((head + b"\r\n") * 2 + last)
    assert [s for s, _ in chunks_off(got)] == [want, want, 200], got
    assert got.lower().count(b"connection: close") == 1


@pytest.mark.parametrize("data", [b"GET /health HTTP/1.1\r\n\r\n", b"GET /hea lth HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_faults_are_told_once_and_as_json(server, data):
    """H2, E1: no Host, a space in the target: one reply of ours, then the end."""
    (code, body), = chunks_off(server.raw(data))
    assert code == 400 and json.loads(body)["error"]["code"] == "invalid_framing"


def test_absolute_targets(server):
    for target in (b"http://localhost/health", b"https://localhost:1/health?x=1", b"HTTP://localhost/health/"):
        got = server.raw(b"GET " + target + b" HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
        assert status(got) == 200 and got.endswith(b'{"status":"ok"}'), target
    assert b" 200 " in server.raw(b"GET http://localhost?/health HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")


def test_http10(server):
    got = server.raw(b"GET /health HTTP/1.0\r\n\r\n")
    assert b" 200 " in got.split(b"\r\n")[0] and got.endswith(b'{"status":"ok"}')
    stream = json.dumps({"model": "m", "prompt": "Hi", "max_tokens": 3, "stream": True}).encode()
    got = server.raw(post(HOST, body=stream, line=b"POST /v1/completions HTTP/1.0"))
    assert got.endswith(b"data: [DONE]\n\n") and b"chunked" not in got.lower()


def test_expect_continue(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as s:
        s.sendall(post(HOST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n" % len(BODY), body=b"", length=False))
        assert s.recv(100).startswith(b"HTTP/1.1 100")
        s.sendall(BODY)
        got = b""
        while piece := s.recv(65536):
            got += piece
        assert status(got) == 200


def test_head_and_options(server):
    got = server.raw(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status(got) == 200 and got.endswith(b"\r\n\r\n")
    assert server.get("/").text == "Ollama is running"
    r = httpx.request("OPTIONS", server.url + "/v1/models")
    assert r.status_code == 204 and "GET" in r.headers["allow"]


@pytest.mark.parametrize("host,ok", [("localhost", 1), ("127.0.0.1:8080", 1), ("[::1]:8080", 1), ("box", 1), ("a.local", 1), ("x.internal", 1),
                                     ("a.localhost", 1), ("192.168.1.5", 1), ("evil.com", 0), ("localhost.evil.com", 0), ("127.0.0.1.nip.io", 0)])
def test_host_rule(server, host, ok):
    r = server.get("/v1/models", headers={"Host": host})
    assert r.status_code == (200 if ok else 403), host
    if not ok:
        assert r.json()["error"]["code"] == "host_not_allowed"
        assert server.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin,ok", [("http://localhost:3000", 1), ("https://127.0.0.1", 1), ("http://[::1]:9", 1), ("tauri://localhost", 1),
                                       ("app://obsidian.md", 1), ("vscode-webview://abc", 1), ("http://evil.com", 0), ("null", 0),
                                       ("file://", 0), ("http://localhost.evil.com", 0)])
def test_origin_rule(server, origin, ok):
    r = server.get("/v1/models", headers={"Origin": origin})
    assert r.status_code == (200 if ok else 403), origin
    if ok:
        assert r.headers["access-control-allow-origin"] == origin and r.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in r.headers
        assert "x-request-id" in r.headers["access-control-expose-headers"]
    else:
        assert r.json()["error"]["code"] == "origin_not_allowed"


def test_preflight(start):
    s = start("--api-key", "k")
    h = {"Origin": "http://localhost:3000", "Access-Control-Request-Headers": "authorization", "Access-Control-Request-Method": "POST",
         "Access-Control-Request-Private-Network": "true"}
    r = httpx.request("OPTIONS", s.url + "/v1/chat/completions", headers=h)
    assert r.status_code == 204
    assert r.headers["access-control-allow-headers"] == "authorization" and r.headers["access-control-max-age"] == "600"
    assert r.headers["access-control-allow-private-network"] == "true"
    r = s.post("/v1/chat/completions", {}, headers={"Origin": "http://localhost:3000"})
    assert r.status_code == 401 and r.headers["access-control-allow-origin"] == "http://localhost:3000"


def preflight(s, origin, path="/v1/chat/completions", **headers):
    return httpx.request("OPTIONS", s.url + path, headers={"Origin": origin, "Access-Control-Request-Method": "POST", **headers})


def test_same_origin(server):
    """H9: a page this server served itself, by whatever allowed name; any method and route; the port counts."""
    assert server.get("/v1/models", headers={"Host": "box:8080", "Origin": "http://box:8080"}).status_code == 200
    for origin in ("http://box:9", "http://box", "http://other:8080", "https://localhost.evil.com", "http://127.0.0.1.nip.io", "http://localhost@evil.com",
                   "http://evil.com#localhost", "http://[::1].evil.com", "", "HTTP://EVIL.COM"):
        for path, method in (("/v1/models", "GET"), ("/health", "GET"), ("/v1/completions", "POST"), ("/v1/completions", "OPTIONS")):
            r = httpx.request(method, server.url + path, headers={"Host": "box:8080", "Origin": origin}, json={} if method == "POST" else None)
            assert r.status_code == 403 and r.json()["error"]["code"] == "origin_not_allowed" and "--cors-origins" in r.text, (origin, path)
    assert server.get("/v1/models", headers={"Origin": "http://127.200.3.4:5173"}).status_code == 200


def test_cors_list(start):
    """H9, H10: --cors-origins with names replaces the default set."""
    s = start("--cors-origins", "https://app.example.com, http://localhost:3000", "--api-key", "k")
    for origin in ("https://app.example.com", "http://localhost:3000"):
        r = preflight(s, origin, **{"Access-Control-Request-Headers": "authorization,x-" + "a" * 3000})
        assert r.status_code == 204 and r.headers["access-control-allow-origin"] == origin and r.headers["vary"] == "Origin"
        assert r.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS, HEAD"
        assert r.headers["access-control-allow-headers"] == "authorization,x-" + "a" * 3000 and r.headers["access-control-max-age"] == "600"
        assert "access-control-allow-private-network" not in r.headers and "access-control-allow-credentials" not in r.headers
    for origin in ("http://localhost:3001", "https://app.example.com:444", "https://app.example.com.evil.com", "null"):
        assert preflight(s, origin).status_code == 403, origin
    origin, key = {"Origin": "https://app.example.com"}, {"Authorization": "Bearer k"}
    for r, status in ((s.get("/nope", headers={**origin, **key}), 404), (s.get("/v1/completions", headers={**origin, **key}), 405),
                      (s.post("/v1/completions", b"{", headers={**origin, **key}), 400), (s.get("/v1/models", headers=origin), 401),
                      (s.post("/v1/completions", b"{}", headers={**origin, **key, "Content-Type": "text/plain"}), 415)):
        assert r.status_code == status and r.headers["access-control-allow-origin"] == origin["Origin"], status
        assert "x-quern-seed" in r.headers["access-control-expose-headers"]
    with httpx.stream("POST", s.url + "/v1/completions", json={"prompt": "x", "max_tokens": 1, "stream": True}, headers={**origin, **key}) as r:
        assert r.headers["access-control-allow-origin"] == origin["Origin"] and r.read()


@pytest.mark.parametrize("word", ["none", "*"])
def test_cors_none_and_all(start, word):
    s = start("--cors-origins", word)
    for origin in ("http://localhost:3000", "https://evil.com", "null"):
        r = s.get("/v1/models", headers={"Origin": origin})
        p = preflight(s, origin, **{"Access-Control-Request-Private-Network": "true"})
        if word == "none":
            assert r.status_code == 403 and p.status_code == 403
            assert "access-control-allow-origin" not in r.headers and "access-control-allow-private-network" not in p.headers
        else:
            assert r.status_code == 200 and p.status_code == 204
            assert r.headers["access-control-allow-origin"] == "*" and "vary" not in r.headers
            assert p.headers["access-control-allow-private-network"] == "true"
    assert s.get("/v1/models").status_code == 200  # not a browser


def test_allowed_hosts(start):
    """H8: the check is on where --allowed-hosts is given, keys or not; it comes before the key; probes pass."""
    s = start("--api-key", "k", "--allowed-hosts", "api.example.com,Other.Example.com", "--open-metrics")
    key = {"x-api-key": "k"}
    for host in ("api.example.com", "API.example.com:443", "other.example.com", "localhost", "10.0.0.1:80", socket.gethostname()):
        assert s.get("/v1/models", headers={"Host": host, **key}).status_code == 200, host
    for host in ("example.com", "x.api.example.com", "api.example.com.evil.com"):
        for path in ("/v1/models", "/metrics", "/", "/nope"):
            r = s.get(path, headers={"Host": host})
            assert r.status_code == 403 and r.json()["error"]["code"] == "host_not_allowed" and "--allowed-hosts" in r.text, (host, path)
        for path in ("/health", "/ready", "/livez", "/readyz", "/ping", "/healthz", "/v1/health"):
            assert s.get(path, headers={"Host": host}).status_code == 200
    s = start("--api-key", "k")
    assert s.get("/v1/models", headers={"Host": "example.com", **key}).status_code == 200  # a key is guard enough


def test_keys(start, tmp_path):
    f = tmp_path / "keys"
    f.write_text("# team\nalice: secret-a\nsecret-b\n")
    s = start("--api-key", "k1", "--api-key-file", str(f))
    for h in ({"Authorization": "Bearer k1"}, {"x-api-key": "k1"}, {"Authorization": "Bearer secret-a"}, {"Authorization": "bearer secret-b"},
              {"Authorization": "Bearer wrong", "x-api-key": "k1"}):
        assert s.get("/v1/models", headers=h).status_code == 200, h
    for h in ({}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic k1"}, {"x-api-key": ""}, {"Authorization": "Bearer k"}):
        r = s.get("/v1/models", headers=h)
        assert r.status_code == 401 and r.json()["error"]["code"] == "invalid_api_key" and r.headers["www-authenticate"] == "Bearer"
    assert s.get("/health").status_code == 200 and s.get("/ready").status_code == 200
    assert s.get("/metrics").status_code == 401 and s.get("/version").status_code == 401
    assert s.get("/nope").status_code == 401
    f.write_text("secret-c\n")
    s.proc.send_signal(1)
    time.sleep(0.5)
    assert s.get("/v1/models", headers={"x-api-key": "secret-c"}).status_code == 200
    assert s.get("/v1/models", headers={"x-api-key": "secret-b"}).status_code == 401
    assert "k1" not in "".join(s.lines)


def test_body_limits(start):
    s = start("--max-body", "10000", "--open-metrics")
    r = s.post("/v1/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 20000 + b'"}]}')
    assert r.status_code == 413 and r.json()["error"]["code"] == "request_too_large"
    big = b"%x\r\n%s\r\n" % (9000, b"x" * 9000)
    got = s.raw(post(HOST + b"Transfer-Encoding: chunked\r\n", body=big + big + b"0\r\n\r\n", length=False), timeout=3)
    assert status(got) == 413
    alive(s)


def test_slow_bodies(start):
    """H4: a body that is silent for --body-timeout, or slower than 1 KiB/s after twice as long, is 408; others are not disturbed."""
    s = start("--body-timeout", "1", "--log-format", "json")
    with ThreadPoolExecutor() as pool:
        slow = [pool.submit(slow_body, s.connect(), drip) for drip in (False, True)]
        while not all(f.done() for f in slow):
            assert s.complete(max_tokens=1).status_code == 200
            time.sleep(0.1)
    for f in slow:
        reply, took = f.result()
        assert refused_as_late(reply) and took >= 1
    assert wait_for(lambda: sum('"status":408,"code":"request_timeout","end":"timeout"' in line for line in s.lines) == 2)
    assert s.metric("http_requests_total", handler="/v1/completions", status="408") == 2  # N6


def test_late_bodies_are_told_in_the_words_of_the_route(start):
    """H6, E1: the 408 too carries the request id, and the route's error shape."""
    s = start("--body-timeout", "1")
    got = s.raw(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-request-id: late-1\r\nContent-Length: 9\r\n\r\n{")
    (code, body), = chunks_off(got)
    assert code == 408 and b"\r\nx-request-id: late-1\r\nrequest-id: late-1\r\n" in got
    assert json.loads(body) == {"type": "error", "error": {"type": "api_error", "message": "the body came too slowly"}, "request_id": "late-1"}


def test_bodies_in_flight_are_bounded(start):
    s = start("--max-body", "10000", "--max-body-total", "10000")
    held = socket.create_connection(("127.0.0.1", s.port), timeout=10)
    held.sendall(b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Length: 6000\r\n\r\n{")
    time.sleep(0.3)
    chunk = b"%x\r\n%s\r\n" % (6000, b"x" * 6000)
    for extra, body, length in ((b"", b"x" * 6000, True), (b"Transfer-Encoding: chunked\r\n", chunk + b"0\r\n\r\n", False)):
        got = s.raw(post(HOST + extra, body=body, length=length), timeout=3)
        assert status(got) == 503 and b'"code":"out_of_memory"' in got and b"\r\nRetry-After: " in got
    held.close()
    assert wait_for(lambda: s.complete(max_tokens=1).status_code == 200)


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_hang_up_mid_stream(slow, how):
    before = slow.metric("vllm:request_success_total", finished_reason="abort")
    c = slow.open_stream()
    while c.recv(4096).count(b"data:") < 1:
        pass
    if how == "rst":
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    c.close()
    assert wait_for(lambda: slow.metric("vllm:num_requests_running") == 0, 1.5)
    assert slow.metric("vllm:request_success_total", finished_reason="abort") == before + 1


def test_hang_up_of_plain_request(server):
    before = server.metric("vllm:request_success_total", finished_reason="abort")
    body = json.dumps({"model": "m", "prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "temperature": 0, "n": 64}).encode()
    c = socket.create_connection(("127.0.0.1", server.port))
    c.sendall(post(HOST, body=body, line=b"POST /v1/completions HTTP/1.1"))
    assert wait_for(lambda: server.metric("vllm:num_requests_running") > 0)
    c.close()
    assert wait_for(lambda: server.metric("vllm:num_requests_running") == 0, 1.5)
    assert server.metric("vllm:request_success_total", finished_reason="abort") == before + 64


def test_hang_up_while_queued(start):
    s = start(*SLOW, "--max-num-seqs", "1")
    busy = s.open_stream()
    assert wait_for(lambda: s.metric("vllm:num_requests_running") == 1)
    queued = s.open_stream()
    assert wait_for(lambda: s.metric("vllm:num_requests_waiting") == 1)
    queued.close()
    assert wait_for(lambda: s.metric("vllm:num_requests_waiting") == 0, 1.5)
    assert s.metric("quern_cancelled_total", stage="queued") == 1
    busy.close()


def test_queue_full(start):
    s = start(*SLOW, "--max-num-seqs", "1", "--max-queue", "1")
    a = s.open_stream()
    assert wait_for(lambda: s.metric("vllm:num_requests_running") == 1)
    b = s.open_stream()
    assert wait_for(lambda: s.metric("vllm:num_requests_waiting") == 1)
    r = s.complete(max_tokens=1)
    assert r.status_code == 429 and r.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(r.headers["retry-after"]) <= 60
    assert s.complete(max_tokens=1, temperature=9).status_code == 400
    assert s.get("/ready").status_code == 503 and s.get("/ready").json()["status"] == "queue_full"
    assert s.get("/health").status_code == 200
    a.close()
    b.close()


def test_ping_in_queue(start):
    s = start(*SLOW, "--max-num-seqs", "1")
    a = s.open_stream()
    assert wait_for(lambda: s.metric("vllm:num_requests_running") == 1)
    b = s.open_stream(sse_ping_interval=1)
    got = b""
    end = time.time() + 4
    while time.time() < end and b": ping\n\n" not in got:
        got += b.recv(4096)
    assert status(got) == 200 and b": ping\n\n" in got
    a.close()
    b.close()


def test_deadline(slow):
    r = httpx.post(slow.url + "/v1/completions", headers={"x-quern-timeout-ms": "150"}, timeout=20,
                   json={"model": "m", "prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "n": 16})
    assert r.status_code == 504 and r.json()["error"]["code"] == "deadline_exceeded"
    body = json.dumps({"model": "m", "prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": True, "n": 16}).encode()
    got = slow.raw(post(HOST + b"x-quern-timeout-ms: 300\r\nConnection: close\r\n", body=body, line=b"POST /v1/completions HTTP/1.1"))
    assert status(got) == 200 and b'"code":"deadline_exceeded"' in got and b"[DONE]" not in got
    assert got.endswith(b"0\r\n\r\n"), "the chunked body must end properly"


def test_connection_limit(start):
    s = start("--max-conn", "8")
    held = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(8)]
    time.sleep(0.2)
    got = s.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", timeout=3)
    assert status(got) == 503 and b"too_many_connections" in got
    for c in held:
        c.close()
    assert wait_for(lambda: s.get("/health").status_code == 200)


def test_drain(start):
    s = start(*SLOW, "--drain-timeout", "20")
    got = []

    def run():
        got.extend(s.events("/v1/completions", {"model": "m", "prompt": "Once", "max_tokens": 600, "ignore_eos": True}))

    t = threading.Thread(target=run)
    t.start()
    assert wait_for(lambda: s.metric("vllm:num_requests_running") == 1)
    s.proc.send_signal(15)
    assert wait_for(lambda: s.get("/ready").status_code == 503)
    r = s.complete(max_tokens=1)
    assert r.status_code == 503 and r.json()["error"]["code"] == "shutting_down" and r.headers["connection"] == "close"
    t.join(30)
    assert got[-1] == "[DONE]"
    assert s.proc.wait(20) == 0


def test_drain_timeout(start):
    """H18: what has not finished in time ends by H17, a 503, or the dialect's own words; the process leaves with 0."""
    s = start(*SLOW, "--drain-timeout", "0.4", "--max-num-seqs", "3")
    ask = {"model": "m", "prompt": "Once", "max_tokens": 1900, "ignore_eos": True}
    got = {}

    def post(name, path, body):
        r = httpx.post(s.url + path, json=body, timeout=60)
        got[name] = (r.status_code, r.text)

    talk = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1900, "ignore_eos": True}
    jobs = {"stream": ("/v1/completions", {**ask, "stream": True}), "plain": ("/v1/completions", ask), "anthropic": ("/v1/messages", {**talk, "stream": True}),
            "queued": ("/v1/completions", ask)}
    threads = []
    for i, (name, (path, body)) in enumerate(jobs.items()):
        threads.append(threading.Thread(target=post, args=(name, path, body)))
        threads[-1].start()
        assert wait_for(lambda: s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == i + 1)
    s.proc.send_signal(2)
    for t in threads:
        t.join(20)
    status, text = got["stream"]
    assert status == 200 and '"code":"shutting_down"' in text and "[DONE]" not in text
    status, text = got["anthropic"]
    assert status == 200 and "event: error" in text and "message_stop" not in text
    for name in ("plain", "queued"):
        assert got[name][0] == 503 and '"code":"shutting_down"' in got[name][1]
    assert s.proc.wait(10) == 0


def test_signals_within_a_second_are_one(start):
    """H18: idempotent."""
    s = start(*SLOW)
    c = s.open_stream(max_tokens=150)
    assert c.recv(1000)
    for sig in (15, 15, 2, 15):
        s.proc.send_signal(sig)
        time.sleep(0.05)
    got = b""
    while piece := c.recv(65536):
        got += piece
    assert b"data: [DONE]" in got
    assert s.proc.wait(10) == 0


def test_second_signal_ends_streams(start):
    s = start(*SLOW)
    c = s.open_stream(n=8, max_tokens=1900)
    c.recv(1000)
    s.proc.send_signal(15)
    time.sleep(1.3)
    s.proc.send_signal(15)
    got = b""
    while piece := c.recv(65536):
        got += piece
    assert b'"code":"shutting_down"' in got and b"[DONE]" not in got
    assert s.proc.wait(10) == 0


def test_idle_connections_and_health(start):
    s = start("--max-conn", "2048")
    held = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(500)]
    t0 = time.time()
    assert s.get("/health").status_code == 200
    assert time.time() - t0 < 1
    assert s.metric("quern_connections") >= 500
    for c in held:
        c.close()
    assert wait_for(lambda: s.metric("quern_connections") < 10, 5)
