"""TLS (API H1, H4, H14): curl and the openai client over it, hang-ups noticed, slow handshakes bounded, certificates renewed, refusals at the
start."""
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from conftest import BIN, DEMO, SLOW, Server, refused_as_late, slow_body, wait_for


def make(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A certificate for localhost that is its own authority, its key, a key that is not its own, and one with a password."""
    d = tmp_path_factory.mktemp("pki")
    ec = ("-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    make(d, "genpkey", *ec, "-out", "key.pem")
    make(d, "genpkey", *ec, "-out", "other.pem")
    make(d, "pkey", "-in", "key.pem", "-aes256", "-passout", "pass:x", "-out", "locked.pem")
    make(d, "req", "-x509", "-key", "key.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-out", "cert.pem")
    (d / "text.pem").write_text("not a certificate")
    (d / "empty.pem").write_text("")
    return d


@pytest.fixture(scope="module")
def renewed(pki):
    """Another pair for localhost, RSA: chain.pem leads over an authority between to root.pem, leaf.pem is its key."""
    make(pki, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root-key.pem", "-days", "2", "-subj", "/CN=root", "-out", "root.pem")
    for name, signer, ext in (("between", "root", "basicConstraints=critical,CA:TRUE"), ("leaf", "between", "subjectAltName=DNS:localhost,IP:127.0.0.1")):
        make(pki, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        (pki / f"{name}.ext").write_text(ext)
        make(pki, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{signer}.pem", "-CAkey", f"{signer}-key.pem", "-CAcreateserial", "-days", "2",
             "-extfile", f"{name}.ext", "-out", f"{name}.pem")
    (pki / "chain.pem").write_text((pki / "leaf.pem").read_text() + (pki / "between.pem").read_text())
    return pki


@pytest.fixture(scope="module")
def secure(pki):
    s = Server("--tls-cert", str(pki / "cert.pem"), "--tls-key", str(pki / "key.pem"), "--api-key", "k", ca=str(pki / "cert.pem"))
    yield s
    assert s.stop() == 0, "".join(s.lines[-40:])


KEY = {"Authorization": "Bearer k"}


def test_curl(secure, pki):
    assert any("https://" in line for line in secure.lines)
    url = f"https://localhost:{secure.port}"
    base = ["curl", "-sS", "--cacert", str(pki / "cert.pem"), "-H", "Authorization: Bearer k"]
    out = subprocess.run([*base, url + "/v1/models"], capture_output=True, check=True, timeout=20).stdout
    assert json.loads(out)["data"][0]["id"] == "m"
    body = json.dumps({"prompt": "Once", "max_tokens": 20, "stream": True, "ignore_eos": True})
    out = subprocess.run([*base, "-N", url + "/v1/completions", "-H", "Content-Type: application/json", "-d", body], capture_output=True, check=True,
                         timeout=20).stdout.decode()
    assert out.count("data: {") >= 2 and out.endswith("data: [DONE]\n\n")
    assert subprocess.run([*base, "--tls-max", "1.1", url + "/health"], capture_output=True, timeout=20).returncode != 0
    assert subprocess.run(["curl", "-sS", url + "/health"], capture_output=True, timeout=20).returncode == 60  # unknown authority
    assert subprocess.run(["curl", "-sS", f"http://localhost:{secure.port}/health"], capture_output=True, timeout=20).returncode != 0


def test_openai_client(secure):
    with openai.OpenAI(base_url=secure.url + "/v1", api_key="k", http_client=httpx.Client(verify=secure.tls), max_retries=0) as c:
        ask = {"model": "m", "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 60}
        plain = c.chat.completions.create(**ask)
        parts = [ev.choices[0].delta.content or "" for ev in c.chat.completions.create(**ask, stream=True) if ev.choices]
        assert plain.choices[0].message.content and "".join(parts) == plain.choices[0].message.content
    with openai.OpenAI(base_url=secure.url + "/v1", api_key="wrong", http_client=httpx.Client(verify=secure.tls), max_retries=0) as c:
        with pytest.raises(openai.AuthenticationError):
            c.models.list()


def test_pipelining_and_large_bodies(secure):
    """H1: requests that came in one record are answered in order; bodies and streams longer than a record arrive whole."""
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\nx-request-id: r%d\r\n%s\r\n"
    got = secure.raw(b"".join(one % (i, b"") for i in range(3)) + one % (3, b"Connection: close\r\n"))
    assert [l.split(b": ")[1] for l in got.split(b"\r\n") if l.lower().startswith(b"x-request-id")] == [b"r0", b"r1", b"r2", b"r3"]
    text = "word " * 60000
    r = secure.post("/tokenize", {"content": text}, headers=KEY)
    assert r.json()["count"] >= 60000
    assert secure.post("/detokenize", {"tokens": r.json()["tokens"]}, headers=KEY).json()["content"] == text


def running(s):
    line = next(l for l in s.get("/metrics", headers=KEY).text.splitlines() if l.startswith("vllm:num_requests_running"))
    return float(line.split()[-1])


@pytest.mark.parametrize("how", ["rst", "fin", "notify"])
def test_hang_up(secure, how):
    """H14: also where the bytes are encrypted, in a stream and in a plain reply."""
    for stream in (True, False):
        c = secure.open_stream(headers=b"x-api-key: k\r\n", stream=stream, max_tokens=1900, n=16)
        assert wait_for(lambda: running(secure) > 0)
        if how == "notify":
            try:
                c.settimeout(0.1)
                c.unwrap()  # close_notify, and the other side's is not waited for
            except (OSError, ValueError):
                pass
        elif how == "rst":
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        c.close()
        assert wait_for(lambda: running(secure) == 0, 1.5), stream


def test_drain(start, pki):
    """H18 over TLS: a stream is finished properly."""
    s = start(*SLOW, "--tls-cert", str(pki / "cert.pem"), "--tls-key", str(pki / "key.pem"), ca=str(pki / "cert.pem"))
    c = s.open_stream(max_tokens=200)
    assert c.recv(100)
    s.proc.send_signal(15)
    got = b""
    try:
        while piece := c.recv(65536):
            got += piece
    except (TimeoutError, OSError):
        pass
    assert b"data: [DONE]" in got
    assert s.proc.wait(20) == 0


def shown(s, ca=None, most=ssl.TLSVersion.TLSv1_3):
    """The certificate that a new connection is shown; with ca it must lead there."""
    context = ssl.create_default_context(cafile=ca)
    context.maximum_version = most
    if not ca:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", s.port), timeout=10) as c, context.wrap_socket(c, server_hostname="localhost") as t:
        assert t.version() == most.name.replace("v1_", "v1.")
        return ssl.DER_cert_to_PEM_cert(t.getpeercert(binary_form=True))


def test_renewed_certificate(start, renewed):
    """SIGHUP takes up a renewed pair; one that is broken changes nothing and is named; open connections and handshakes go on."""
    pki = renewed
    cert, key, first, second = pki / "live.pem", pki / "live-key.pem", (pki / "cert.pem").read_text(), (pki / "leaf.pem").read_text()

    def put(new_cert, new_key):
        cert.write_text((pki / new_cert).read_text())
        key.write_text((pki / new_key).read_text())
        seen = len(s.lines) if s else 0
        if s:
            s.proc.send_signal(signal.SIGHUP)
            assert wait_for(lambda: any("certificate" in line for line in s.lines[seen:])), s.lines
            return "".join(s.lines[seen:])

    s = None
    put("cert.pem", "key.pem")
    s = start("--tls-cert", str(cert), "--tls-key", str(key), ca=str(pki / "cert.pem"))
    assert shown(s, str(pki / "cert.pem")) == first
    with s.connect() as old:
        for broken, words in ((("chain.pem", "key.pem"), "do not match"), (("text.pem", "key.pem"), "PEM"), (("cert.pem", "empty.pem"), "PEM"),
                              (("cert.pem", "locked.pem"), "password")):
            said = put(*broken)
            assert "kept as they are" in said and words in said and "PRIVATE" not in said, said
            assert shown(s) == first
        said = put("chain.pem", "leaf-key.pem")
        assert "valid until 20" in said and "kept" not in said, said
        for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert shown(s, str(pki / "root.pem"), most) == second
        old.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert old.recv(100).startswith(b"HTTP/1.1 200")

    def keep_asking():
        try:
            got.extend(shown(s) for _ in range(10))
        except OSError as e:
            got.append(e)

    got = []
    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for t in threads:
        t.start()
    for i in range(6):
        put(*(("cert.pem", "key.pem"), ("chain.pem", "leaf-key.pem"))[i % 2])
    for t in threads:
        t.join()
    assert len(got) == 30 and set(got) <= {first, second}, got
    assert shown(s) == second


def test_slow_clients_end(start, pki):
    """H4: who has not finished the handshake or the headers --header-timeout after connecting is closed without a reply, silent
    or dripping; others do not notice."""
    plain = start("--header-timeout", "3")
    secure = start("--header-timeout", "3", "--tls-cert", str(pki / "cert.pem"), "--tls-key", str(pki / "key.pem"), ca=str(pki / "cert.pem"))
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the beginning of a ClientHello
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "
    kinds = {"silent tls": (secure, b""), "half a hello": (secure, hello), "dripping hello": (secure, hello), "silent": (plain, b""),
             "half a request": (plain, head), "dripping": (plain, head)}
    t0, left = time.time(), {}
    for name, (s, data) in kinds.items():
        left[name] = socket.create_connection(("127.0.0.1", s.port), timeout=20)
        left[name].sendall(data)
    while left:
        assert time.time() - t0 < 9, left
        assert secure.get("/health").status_code == 200 and plain.get("/health").status_code == 200
        time.sleep(0.1)
        for name, c in list(left.items()):
            try:
                if name.startswith("dripping"):
                    c.sendall(b"a")
                c.setblocking(False)
                assert c.recv(100) == b"", name
            except BlockingIOError:
                continue
            except OSError:
                pass
            assert time.time() - t0 > 3, name
            left.pop(name).close()


def test_slow_bodies(start, pki):
    """H4: the 408 of a late body comes over TLS too, whole, and the connection ends as TLS wants it to."""
    s = start("--body-timeout", "1", "--tls-cert", str(pki / "cert.pem"), "--tls-key", str(pki / "key.pem"), ca=str(pki / "cert.pem"))

    def connect(most):
        context = ssl.create_default_context(cafile=pki / "cert.pem")
        context.maximum_version = most
        c = socket.create_connection(("127.0.0.1", s.port), timeout=10)
        return context.wrap_socket(c, server_hostname="127.0.0.1", suppress_ragged_eofs=False)  # an end without close_notify is an error

    with ThreadPoolExecutor() as pool:
        kinds = [(most, drip) for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3) for drip in (False, True)]
        slow = [pool.submit(slow_body, connect(most), drip) for most, drip in kinds]
        while not all(f.done() for f in slow):
            assert s.complete(max_tokens=1).status_code == 200
            time.sleep(0.1)
    for f in slow:
        reply, took = f.result()
        assert refused_as_late(reply) and took >= 1


@pytest.mark.parametrize("cert,key,words", [
    ("cert.pem", "other.pem", ["do not match"]), ("missing.pem", "key.pem", ["--tls-cert", "missing.pem"]),
    ("cert.pem", "missing.pem", ["--tls-key", "missing.pem"]), ("text.pem", "key.pem", ["--tls-cert", "PEM"]),
    ("cert.pem", "locked.pem", ["--tls-key", "password"]), ("empty.pem", "key.pem", ["--tls-cert", "PEM"]), ("cert.pem", "empty.pem", ["--tls-key", "PEM"]), ("cert.pem", None, ["--tls-key"]), (None, "key.pem", ["--tls-cert"])])
def test_refused_at_the_start(pki, cert, key, words):
    args = (["--tls-cert", str(pki / cert)] if cert else []) + (["--tls-key", str(pki / key)] if key else [])
    p = subprocess.run([BIN, "serve", DEMO, "--port", "0", *args], capture_output=True, timeout=30)
    text = p.stderr.decode()
    assert p.returncode == 2 and all(w in text for w in words), text
    assert "PRIVATE" not in text
