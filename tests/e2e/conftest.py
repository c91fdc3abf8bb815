"""Shared fixtures: a quern server on a free port, raw sockets, small helpers.

QUERN_BIN names the binary.  Every server is started with --port 0 and asked for its port through the
line it prints; it is stopped with SIGTERM and must then leave with exit code 0.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import httpx
import pytest

BIN = os.environ.get("QUERN_BIN", "build/quern")
DEMO = "models/demo"
SLOW = ("--device", "ref")  # the demo model in plain C: a stream of 1500 tokens lasts seconds on any machine, not tenths


class Server:
    """One running quern; .url ends without a slash.  ca: it speaks TLS, with a certificate of this authority."""
    tls, verify = None, True

    def __init__(self, *args, model=DEMO, env=None, wait=True, ca=None):
        if ca:
            self.tls = self.verify = ssl.create_default_context(cafile=ca)
        cmd = [BIN, "serve", model, "--port", "0", "--served-model-name", "m", *args]
        self.proc = subprocess.Popen(cmd, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        self.lines = []
        self.port = None
        self._seen = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self._seen.wait(60) or self.port is None:
            self.proc.kill()
            raise RuntimeError("server did not start:\n" + "".join(self.lines))
        self.url = f"{'https' if ca else 'http'}://127.0.0.1:{self.port}"
        if wait:
            self.wait_ready()

    def _read(self):
        for line in self.proc.stderr:
            self.lines.append(line)
            hit = re.search(r"listening\s+https?://\S+:(\d+)", line)
            if hit:
                self.port = int(hit.group(1))
                self._seen.set()
        self._seen.set()

    def wait_ready(self, limit=60):
        end = time.time() + limit
        while time.time() < end:
            try:
                if httpx.get(self.url + "/ready", timeout=2, verify=self.verify).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        raise RuntimeError("not ready:\n" + "".join(self.lines))

    def get(self, path, **kw):
        return httpx.get(self.url + path, timeout=30, verify=self.verify, **kw)

    def post(self, path, body, **kw):
        if isinstance(body, (bytes, str)):
            return httpx.post(self.url + path, content=body, timeout=120, verify=self.verify,
                              headers={"Content-Type": "application/json", **kw.pop("headers", {})}, **kw)
        return httpx.post(self.url + path, json=body, timeout=120, verify=self.verify, **kw)

    def chat(self, **body):
        return self.post("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body})

    def complete(self, **body):
        return self.post("/v1/completions", {"model": "m", "prompt": "Hello", **body})

    def events(self, path, body, **kw):
        """All SSE data payloads of a streamed POST: parsed JSON, or the string [DONE]."""
        out = []
        with httpx.stream("POST", self.url + path, json={**body, "stream": True}, timeout=120, verify=self.verify, **kw) as r:
            assert r.status_code == 200, r.read()
            assert r.headers["content-type"] == "text/event-stream; charset=utf-8"
            for line in r.iter_lines():
                if line.startswith("data: "):
                    out.append(line[6:] if line == "data: [DONE]" else json.loads(line[6:]))
                else:
                    assert line == "" or line.startswith(":"), line
        return out

    def metric(self, name, **labels):
        """Sum of the samples of a metric that carry these labels."""
        total, found = 0.0, False
        for line in self.get("/metrics").text.splitlines():
            hit = re.match(r"([^\s{]+)(?:\{(.*)\})? (\S+)$", line)
            if hit and hit.group(1) == name and all(f'{k}="{v}"' in (hit.group(2) or "") for k, v in labels.items()):
                total, found = total + float(hit.group(3)), True
        assert found, name
        return total

    def raw(self, data, timeout=10, shut=False):
        """Sends bytes, returns everything until the peer closes or timeout of silence."""
        with self.connect(timeout) as s:
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
            got = b""
            try:
                while True:
                    piece = s.recv(65536)
                    if not piece:
                        break
                    got += piece
            except (TimeoutError, ConnectionResetError):
                pass
            return got

    def open_stream(self, headers=b"", **fields):
        """A socket on which a long stream of /v1/completions was asked for."""
        body = json.dumps({"model": "m", "prompt": "Once", "max_tokens": 1500, "ignore_eos": True, "stream": True, "temperature": 0, **fields}).encode()
        c = self.connect()
        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return c

    def connect(self, timeout=10):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return self.tls.wrap_socket(s, server_hostname="127.0.0.1") if self.tls else s

    def stop(self, sig=signal.SIGTERM, limit=40):
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        code = self.proc.wait(limit)
        return code


@pytest.fixture(scope="session")
def server():
    s = Server()
    yield s
    assert s.proc.poll() is None, "server died:\n" + "".join(s.lines[-40:])
    assert s.stop() == 0, "".join(s.lines[-40:])


@pytest.fixture(scope="session")
def slow():
    """A server for what must happen while a stream still runs: deadlines, hang-ups."""
    s = Server(*SLOW)
    yield s
    assert s.proc.poll() is None, "server died:\n" + "".join(s.lines[-40:])
    assert s.stop() == 0, "".join(s.lines[-40:])


@pytest.fixture
def start():
    """Starts extra servers with options; stops them at the end."""
    made = []

    def make(*args, **kw):
        s = Server(*args, **kw)
        made.append(s)
        return s

    yield make
    for s in made:
        if s.proc.poll() is None:
            assert s.stop() == 0, "".join(s.lines[-40:])


def wait_for(fn, limit=3.0):
    end = time.time() + limit
    while time.time() < end:
        if fn():
            return True
        time.sleep(0.05)
    return False


def slow_body(c, drip):
    """A request whose body stops after its first byte, or drips, on a connected socket: the reply and how long it took."""
    got, t0 = b"", time.time()
    c.settimeout(0.1)
    c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{")
    while time.time() - t0 < 25:
        try:
            if drip and not got:
                c.sendall(b" ")
        except ConnectionError:
            drip = False
        try:
            piece = c.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:  # something dripped into the closed connection
            break
        if not piece:
            break
        got += piece
    return got, time.time() - t0


def refused_as_late(reply):
    """H4: the whole 408 and nothing else."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 408 Request Timeout" and f"Content-Length: {len(body)}" in lines and "Connection: close" in lines, reply
    error = json.loads(body)["error"]
    assert error["code"] == "request_timeout" and error["type"] == "invalid_request_error" and error["param"] is None
    return True


@contextlib.contextmanager
def stopped(s, n=1):
    """What is hung up on inside takes n sequences of s out of the batch (H14): they count as aborted, and nothing runs on.
    s is the slow server, so that they are still at work whenever that is."""
    def idle():
        return s.metric("vllm:num_requests_running") == 0

    def aborted():
        return s.metric("vllm:request_success_total", finished_reason="abort")
    assert wait_for(idle)
    before = aborted()
    yield
    assert wait_for(lambda: aborted() >= before + n and idle())
    assert aborted() == before + n


FIM = ("fim_prefix", "fim_suffix", "fim_middle", "fim_pad", "repo_name", "file_sep")


@pytest.fixture(scope="session")
def fim_server(tmp_path_factory):
    """The demo model with the tokens that fill in the middle, in the rows its embedding keeps for such; .fim: name to id."""
    path = tmp_path_factory.mktemp("fim") / "demo"
    shutil.copytree(DEMO, path, ignore=shutil.ignore_patterns("train"))
    file = path / "tokenizer.json"
    tok = json.loads(file.read_text(encoding="utf8"))
    first = max(t["id"] for t in tok["added_tokens"]) + 1
    tok["added_tokens"] += [{"id": first + i, "content": f"<|{name}|>", "single_word": False, "lstrip": False, "rstrip": False,
                             "normalized": False, "special": name.startswith("fim")} for i, name in enumerate(FIM)]
    file.write_text(json.dumps(tok), encoding="utf8")
    s = Server(model=str(path))
    s.fim = {name: first + i for i, name in enumerate(FIM)}
    yield s
    assert s.stop() == 0, "".join(s.lines[-40:])


def alive(s):
    assert s.get("/health").status_code == 200
    assert s.chat(max_tokens=1).status_code == 200


sys.setrecursionlimit(20000)
