"""Many streams with random hang-ups: no crash, no leak, others undisturbed, /health quick.
QUERN_SOAK_SECONDS (15) and QUERN_SOAK_STREAMS (100) make it longer."""
import json
import os
import random
import socket
import threading
import time

SECONDS = float(os.environ.get("QUERN_SOAK_SECONDS", "15"))
STREAMS = int(os.environ.get("QUERN_SOAK_STREAMS", "100"))


def one(port, rng, stop, errors):
    while not stop.is_set():
        body = json.dumps({"model": "m", "prompt": [rng.randrange(300, 1500) for _ in range(rng.randrange(1, 60))], "max_tokens": rng.randrange(1, 120),
                           "ignore_eos": True, "stream": True, "cache_prompt": rng.random() < 0.5}).encode()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                leave = rng.randrange(1, 6000) if rng.random() < 0.5 else None
                got = b""
                while True:
                    piece = s.recv(4096)
                    got += piece
                    if not piece or (leave and len(got) > leave) or stop.is_set():
                        break
                if not leave and not stop.is_set() and not (b"[DONE]" in got or b" 429 " in got[:20]):
                    errors.append(got[-200:])
        except OSError as e:
            errors.append(repr(e))


def test_soak(start):
    s = start("--max-conn", "2048", "--max-queue", "400", "--kv-cache-memory", "24M")  # a pool that is soon touched whole
    fixed = {"prompt": "The", "temperature": 0, "max_tokens": 16, "ignore_eos": True, "logprobs": 2}
    want = s.complete(**fixed).json()["choices"][0]
    idle = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(300)]
    stop, errors = threading.Event(), []
    threads = [threading.Thread(target=one, args=(s.port, random.Random(i), stop, errors)) for i in range(STREAMS)]
    for t in threads:
        t.start()
    time.sleep(min(5, SECONDS / 3))
    rss, fds = s.metric("process_resident_memory_bytes"), s.metric("process_open_fds")
    slow, end = 0.0, time.time() + SECONDS
    while time.time() < end:
        t0 = time.time()
        assert s.get("/health").status_code == 200
        slow = max(slow, time.time() - t0)
        r = s.complete(**fixed)
        if r.status_code == 200:
            assert r.json()["choices"][0] == want
        time.sleep(0.2)
    stop.set()
    for t in threads:
        t.join()
    for c in idle:
        c.close()
    end = time.time() + 10
    while time.time() < end and (s.metric("vllm:num_requests_running") or s.metric("vllm:num_requests_waiting") or s.metric("quern_connections") > 4):
        time.sleep(0.1)
    assert not errors, errors[:5]
    assert s.metric("quern_kv_blocks", state="used") == 0
    assert s.metric("process_open_fds") <= fds
    grown = s.metric("process_resident_memory_bytes") - rss
    print(f"soak: slowest /health {slow * 1e3:.0f} ms, RSS {grown / 1e6:+.1f} MB")
    assert grown < 40e6
