"""The documents name what is there: routes of the server, options of the command line, fields of requests."""
import glob
import json
import os
import re
import subprocess

import httpx

from conftest import BIN


def text(path):
    with open(path, encoding="utf8") as f:
        return f.read()


def routes():
    """(method, pattern, built) of every row of the route table."""
    rows = re.findall(r'\{"([A-Z]+)", "([^"]+)", (\w+), [^}]*\}', text("server/routes.c"))
    assert len(rows) > 50
    return [(m, p, fn != "LATER") for m, p, fn in rows]


def test_api_names_every_route(server):
    doc = text("docs/api.md")
    table = doc[doc.index("## Routes"):doc.index("## Reading a request")]
    named = set(re.findall(r"`(?:GET |POST |DELETE )?(/[^`]*)`", table))
    built = {p for _, p, ok in routes() if ok}
    assert built == named
    for method, path in re.findall(r"^\| `(GET|POST) (/[^`]*)`", table, re.M):
        assert (method, path, True) in routes()
        r = server.get(path.replace("*", "m")) if method == "GET" else server.post(path, {})
        # An empty body names no model to show or pull, and no reply is kept as m; changing models is refused for good.
        want = (404,) if path in ("/api/show", "/api/pull", "/v1/responses/*") else (501,) if path == "/api/create" else (200, 400)
        assert r.status_code in want, (path, r.status_code)


def test_routes_not_built_answer_501(server):
    for method, pattern, ok in routes():
        if not ok:
            path = pattern.replace("*", "x")
            r = httpx.request(method, server.url + path, json={}, timeout=10)
            assert r.status_code == 501, (method, path, r.status_code)


def test_api_names_every_field():
    """The field lists of the reader against the page."""
    doc = text("docs/api.md")
    words = set(re.findall(r"\w+", doc))
    source = text("server/params.c")
    fields = set()
    for name in ("known_all", "known_chat", "known_completions", "known_text", "known_pooled", "known_embed", "known_embed_ollama",
                 "known_rerank", "known_score", "inert"):
        body = re.search(r"\b%s\[\] = \{(.*?)\};" % name, source, re.S).group(1)
        fields |= set(re.findall(r'"(\w+)"', body))
    assert len(fields) > 80
    assert not {f for f in fields if not f.startswith("guided_")} - words
    assert "guided_*" in doc


def test_documents_name_real_options():
    help_text = "".join(subprocess.run([BIN, command, "--help"], capture_output=True, timeout=30, check=True).stdout.decode()
                        for command in ("serve", "inspect", "bench", "parse-output", "grammar-check"))
    real = set(re.findall(r"--[a-z][a-z0-9-]*", help_text)) | {"--" + o for o in later_options()}
    assert len(real) > 30
    for path in ("docs/operations.md", "docs/api.md", "README.md"):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text(path)))
        assert named <= real, (path, named - real)


SWITCHES = """host port served-model-name any-model api-key api-key-file open-metrics allowed-hosts cors-origins max-body max-conn max-num-seqs
max-queue request-timeout drain-timeout sse-ping no-timings max-model-len generation-config reasoning-field effort-budgets think-end-text
anthropic-thinking tool-format allow-request-template allow-priority cache-per-key response-store keep-billing-header kv-cache-memory
kv-cache-dtype no-prefix-caching max-num-batched-tokens override-generation-config default-chat-template-kwargs rope-scaling cpu-isa bf16-repack
log-format log-level config tls-cert tls-key device key-max-concurrent key-rpm key-tpm media-allow media-path embeddings no-slots
ollama-version""".split()


def test_every_switch_of_the_contract(tmp_path):
    """API section 21: each is an option of serve, or named in docs/api.md as one of a later version and refused by that name, on the
    command line, in the environment and in a file."""
    help_text = subprocess.run([BIN, "serve", "--help"], capture_output=True, timeout=30, check=True).stdout.decode()
    missing = {o for o in SWITCHES if not re.search(r"^  --%s\b" % o, help_text, re.M)}
    assert missing == later_options() & set(SWITCHES)
    doc = text("docs/api.md")
    named = set(re.findall(r"`--([a-z-]+)`", doc[doc.index("## Not built yet"):]))
    assert named == later_options()
    for o in missing:
        f = tmp_path / "c.json"
        f.write_text(json.dumps({o: "x"}))
        env = {**os.environ, "QUERN_" + o.upper().replace("-", "_"): "x"}
        for args, e in ((["--" + o, "x"], None), (["--config", str(f)], None), ([], env)):
            p = subprocess.run([BIN, "serve", "--port", "0", *args], capture_output=True, timeout=30, env=e)
            assert p.returncode == 2 and b"not supported yet" in p.stderr, (o, args)


def later_options():
    """What options_table.c refuses as an option of a later version."""
    body = re.search(r"option_laters\[\] = \{(.*?)\n\};", text("config/options_table.c"), re.S).group(1)
    return set(re.findall(r'\{"([a-z-]+)",', body))


def test_documents_link_to_files():
    for path in ["README.md", *glob.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", text(path)):
            assert os.path.exists(os.path.join(os.path.dirname(path), link)), (path, link)
