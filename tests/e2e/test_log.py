"""A log that nobody reads (API H20): requests are answered all the same, and what the log lacks is counted and told."""
import fcntl
import json
import re
import threading

from conftest import Server, wait_for

F_SETPIPE_SZ = 1031


class Unread(Server):
    """Its stderr is read up to the line with the port, then no more until read_on is set."""

    def __init__(self, *args):
        self.read_on = threading.Event()
        super().__init__(*args)

    def _read(self):
        for line in self.proc.stderr:
            self.lines.append(line)
            if hit := re.search(r"listening\s+https?://\S+:(\d+)", line):
                self.port = int(hit.group(1))
                break
        fcntl.fcntl(self.proc.stderr, F_SETPIPE_SZ, 4096)
        self._seen.set()
        self.read_on.wait()
        for line in self.proc.stderr:
            self.lines.append(line)


def health(s, ids):
    """Pipelined requests with these ids; all are answered."""
    with s.connect(timeout=30) as c:
        c.sendall(b"".join(b"GET /health HTTP/1.1\r\nHost: localhost\r\nx-request-id: %s\r\n\r\n" % i.encode() for i in ids))
        got = b""
        while got.count(b"HTTP/1.1 200") < len(ids):
            piece = c.recv(1 << 16)
            assert piece, got[-200:]
            got += piece


def test_stderr_that_nobody_reads():
    s = Unread("--log-format", "json")
    ids = [f"mine-{i:0100}" for i in range(6000)]
    try:
        for i in range(0, len(ids), 200):
            health(s, ids[i:i + 200])
        for name in ("mine-health", "mine-metrics"):
            assert s.get("/" + name[5:], headers={"x-request-id": name}).status_code == 200
        r = s.post("/v1/completions", {"prompt": "Hello", "max_tokens": 4}, headers={"x-request-id": "mine-text"})
        assert r.status_code == 200 and r.json()["usage"]["completion_tokens"] > 0
        assert s.metric("quern_log_lines_dropped_total") > 1000
    finally:
        s.read_on.set()
    assert wait_for(lambda: any('"dropped":' in line for line in list(s.lines)), 30)
    s.get("/health", headers={"x-request-id": "later"})
    dropped = s.metric("quern_log_lines_dropped_total")
    assert s.stop() == 0
    assert wait_for(lambda: any("shutting down" in line for line in list(s.lines)))
    log = [json.loads(line) for line in s.lines]  # every line is whole
    told = [d["dropped"] for d in log if "dropped" in d]
    assert sum(told) == dropped
    logged = [d["id"] for d in log if d["msg"] == "request"]
    mine = [i for i in logged if i.startswith("mine-")]
    assert ids[0] in mine and len(set(mine)) == len(mine)
    assert len(ids) - len(mine) <= dropped <= len(ids) - len(mine) + 8
    assert "later" in logged
