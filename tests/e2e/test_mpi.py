"""Ranks that are processes: `mpirun -n 2 quern serve`, on one host and across two network namespaces.

The same bits as two threads give; one port; and whatever happens to a rank, requests are answered and
all processes end.
"""
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from conftest import BIN, DEMO, Server

PLUGIN = os.path.join(os.path.dirname(os.path.abspath(BIN)), "comm_mpi.so")
MPIRUN = shutil.which("mpirun")
LAUNCH = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]

needs_mpi = pytest.mark.skipif(not (MPIRUN and os.path.exists(PLUGIN)),
                               reason="no mpirun, or quern was built without an MPI (libopenmpi-dev, openmpi-bin)")

# What is compared: text, ids and every digit of the log-probabilities.
QUESTIONS = [
    {"prompt": "The capital of France", "max_tokens": 24, "temperature": 0, "logprobs": 5},
    {"prompt": "The capital of France is a city. " * 30, "max_tokens": 16, "temperature": 0, "logprobs": 5},
    {"prompt": "Hello", "max_tokens": 40, "temperature": 1, "seed": 7, "logprobs": 5, "ignore_eos": True},
    {"prompt": "Hello", "max_tokens": 20, "temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 11, "n": 2, "logprobs": 0},
]


def runs(pid):
    """Whether a process is there and not merely unburied."""
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Ranks(Server):
    """mpirun with two ranks of quern serve."""

    def __init__(self, *args, launch=(), port="0", model=DEMO):
        self.lines, self.port, self._seen = [], None, threading.Event()
        cmd = [MPIRUN, *LAUNCH, "-n", "2", *launch, BIN, "serve", model, "--port", port, "--served-model-name", "m", *args]
        self.proc = subprocess.Popen(cmd, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        if not self._seen.wait(60) or self.port is None:
            self.proc.kill()
            raise RuntimeError("server did not start:\n" + "".join(self.lines))
        self.url = f"http://127.0.0.1:{self.port}"
        self.wait_ready()
        self.pids = self.find_pids()

    def find_pids(self):
        """Process ids by rank."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                status = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
                env = open(f"/proc/{pid}/environ", "rb").read().split(b"\0")
            except OSError:
                continue
            rank = [v.split(b"=")[1] for v in env if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
            if int(status[1]) == self.proc.pid and rank:
                found[int(rank[0])] = int(pid)
        assert sorted(found) == [0, 1], found
        return found

    def ended(self, limit=15):
        """mpirun's exit code, once it and both ranks are gone."""
        code = self.proc.wait(limit)
        end = time.time() + 5
        while any(map(runs, self.pids.values())):
            assert time.time() < end, f"of {self.pids} somebody is still there: {self.lines[-20:]}"
            time.sleep(0.05)
        return code


@pytest.fixture
def ranks():
    made = []

    def make(*args, **kw):
        made.append(Ranks(*args, **kw))
        return made[-1]

    yield make
    for s in made:
        if s.proc.poll() is None:
            s.proc.kill()


def answers(post):
    out = []
    for q in QUESTIONS:
        r = post("/v1/completions", {"model": "m", **q})
        assert r["choices"], r
        out.append(json.dumps(r["choices"], sort_keys=True))
    return out


def of(server):
    return answers(lambda path, body: server.post(path, body).json())


@needs_mpi
def test_bits_of_threads_and_one_port(ranks, start):
    s = ranks("--port", "0")
    assert sum("listening" in l for l in s.lines) == 1 and any("rank 1 of 2" in l for l in s.lines), s.lines
    assert any("tensor parallel over 2 ranks" in l for l in s.lines), s.lines
    got = of(s)
    assert got == of(s)  # and again, from the cache
    t = start("--tp", "2")
    assert got == of(t)
    assert "Paris" in got[0]
    s.proc.poll()
    os.kill(s.pids[0], signal.SIGTERM)
    assert s.ended() == 0, s.lines[-20:]


def request(s, out):
    """A request that takes as long as the test."""
    try:
        r = s.complete(max_tokens=2000, ignore_eos=True, temperature=0)
        out.append((r.status_code, r.json()["error"]["message"] if r.status_code != 200 else ""))
    except Exception as e:  # the connection may die with rank 0
        out.append((0, str(e)))


def struck(s, blow):
    """Strikes while requests run; their answers, and how long the last took."""
    out, many = [], []
    for _ in range(3):
        many.append(threading.Thread(target=request, args=(s, out)))
        many[-1].start()
    end = time.time() + 10
    while s.metric("vllm:num_requests_running") < 3:
        assert time.time() < end and not out, out
    t0 = time.time()
    blow()
    for t in many:
        t.join(30)
    return out, time.time() - t0


@needs_mpi
def test_killed_rank(ranks):
    s = ranks("--collective-timeout", "20")
    out, took = struck(s, lambda: os.kill(s.pids[1], signal.SIGKILL))
    assert [c for c, _ in out] == [500] * 3 and all(m for _, m in out), out
    assert took < 5, took
    assert s.ended() != 0
    assert any("rank 1" in l and "has ended" in l for l in s.lines), s.lines


@needs_mpi
def test_killed_while_idle(ranks):
    s = ranks("--collective-timeout", "20")
    os.kill(s.pids[1], signal.SIGKILL)
    assert s.ended() != 0
    assert any("the engine failed: rank 1" in l for l in s.lines), s.lines


@needs_mpi
def test_hanging_rank(ranks):
    s = ranks("--collective-timeout", "1")
    out, took = struck(s, lambda: os.kill(s.pids[1], signal.SIGSTOP))
    assert [c for c, _ in out] == [500] * 3, out
    assert took < 6, took
    assert s.ended() == 1  # of rank 0
    assert any("rank 1 did not come to" in l and "within 1 s" in l for l in s.lines), s.lines


@needs_mpi
def test_killed_rank_0(ranks):
    s = ranks("--collective-timeout", "20")
    out, took = struck(s, lambda: os.kill(s.pids[0], signal.SIGKILL))
    assert took < 5 and [c for c, _ in out] == [0] * 3, out
    assert s.ended() != 0


@needs_mpi
def test_refused():
    p = subprocess.run([MPIRUN, *LAUNCH, "-n", "2", BIN, "serve", DEMO, "--port", "0", "--tp", "4"], capture_output=True,
                       text=True, timeout=60)
    assert p.returncode == 2 and "--tensor-parallel-size 4, but 2 processes" in p.stderr, p.stderr


def test_missing_plugin(tmp_path):
    """A launcher, and no plug-in beside the program: the message says where it looked and what to install."""
    alone = tmp_path / "quern"
    shutil.copy(BIN, alone)
    p = subprocess.run([alone, "serve", DEMO, "--port", "0"], capture_output=True, text=True, timeout=60,
                       env={**os.environ, "OMPI_COMM_WORLD_SIZE": "2", "QUERN_PLUGIN_DIR": str(tmp_path / "none")})
    assert p.returncode == 2, p.stderr
    assert "comm_mpi.so" in p.stderr and "none" in p.stderr and "libopenmpi" in p.stderr, p.stderr


# ---- two hosts of our own -----------------------------------------------------------------------


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path):
    """Two network namespaces joined by a pair of interfaces, and how mpirun starts something in the second, where
    processes have numbers of their own, too: nothing but the network tells that one died."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("network namespaces need root, ip (iproute2) and unshare")
    a, b = f"qa{os.getpid()}", f"qb{os.getpid()}"
    try:
        subprocess.run(["unshare", "--fork", "--pid", "--mount-proc", "true"], check=True, capture_output=True)
        ip("netns", "add", a)
    except subprocess.CalledProcessError as e:
        pytest.skip("namespaces cannot be made here: " + e.stderr.decode().strip())
    try:
        ip("netns", "add", b)
        ip("link", "add", a, "netns", a, "type", "veth", "peer", "name", b, "netns", b)
        for ns, addr in ((a, "198.18.0.1/30"), (b, "198.18.0.2/30")):
            ip("-n", ns, "addr", "add", addr, "dev", ns)
            ip("-n", ns, "link", "set", ns, "up")
            ip("-n", ns, "link", "set", "lo", "up")
        agent = tmp_path / "agent"
        agent.write_text(f"#!/bin/sh\nshift\nexec ip netns exec {b} unshare --fork --pid --mount-proc sh -c \"$*\"\n")
        agent.chmod(agent.stat().st_mode | stat.S_IXUSR)
        yield a, ["--host", "198.18.0.1:1,198.18.0.2:1", "--mca", "plm_rsh_agent", str(agent), "--mca", "btl", "tcp,self",
                  "--mca", "btl_tcp_if_include", "198.18.0.0/30", "--mca", "oob_tcp_if_include", "198.18.0.0/30"]
    finally:
        for ns in (a, b):
            subprocess.run(["ip", "netns", "del", ns], capture_output=True)


@needs_mpi
def test_two_hosts(hosts, start):
    ns, launch = hosts
    cmd = ["ip", "netns", "exec", ns, MPIRUN, *LAUNCH, *launch, "-n", "2", os.path.abspath(BIN), "serve", os.path.abspath(DEMO),
           "--port", "18180", "--served-model-name", "m"]
    proc = subprocess.Popen(cmd, stderr=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(proc.stderr), daemon=True)
    reader.start()

    def post(path, body):
        p = subprocess.run(["ip", "netns", "exec", ns, "curl", "-s", "-m", "60", f"http://127.0.0.1:18180{path}",
                            "-H", "Content-Type: application/json", "-d", "@-"], input=json.dumps(body).encode(),
                           capture_output=True, timeout=70)
        return json.loads(p.stdout) if p.stdout else {"choices": []}

    try:
        end = time.time() + 60
        while "choices" not in (r := post("/v1/completions", {"model": "m", "prompt": "Hi", "max_tokens": 1})) or not r["choices"]:
            assert time.time() < end and proc.poll() is None, lines
            time.sleep(0.1)
        assert answers(post) == of(start("--tp", "2"))
        # Both hosts: one process of quern in each namespace.
        for host in (ns, ns.replace("qa", "qb")):
            pids = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True).stdout.split()
            own = [int(p) for p in pids if os.readlink(f"/proc/{p}/exe") == os.path.realpath(BIN)]
            assert len(own) == 1, (host, pids)
        # The other host's rank dies while a request runs.
        long = {"model": "m", "prompt": "Hi", "max_tokens": 2000, "ignore_eos": True, "temperature": 0, "n": 24}
        out = []
        t = threading.Thread(target=lambda: out.append(post("/v1/completions", long)))
        t.start()
        time.sleep(0.3)
        os.kill(own[0], signal.SIGKILL)
        t.join(30)
        assert out and out[0].get("error", {}).get("code") == "internal_error", (out, lines)
        assert proc.wait(20) != 0 and not runs(own[0])
    finally:
        if proc.poll() is None:
            proc.send_signal(signal.SIGTERM)
        proc.wait(30)
        reader.join(5)
    sys.stdout.write("".join(lines))
