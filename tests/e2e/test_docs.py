"""The documents name what is there: routes of the server, options of the command line, fields of requests."""
import glob
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
    words = set(re.findall(r"[A-Za-z_]+", doc))
    source = text("server/params.c")
    fields = set()
    for name in ("known_all", "known_chat", "known_completions", "known_text", "later", "inert"):
        body = re.search(r"\b%s\[\] = \{(.*?)\};" % name, source, re.S).group(1)
        fields |= set(re.findall(r'"(\w+)"', body))
    assert len(fields) > 80
    assert not {f for f in fields if not f.startswith("guided_")} - words
    assert "guided_*" in doc


def test_documents_name_real_options():
    help_text = "".join(subprocess.run([BIN, command, "--help"], capture_output=True, timeout=30, check=True).stdout.decode()
                        for command in ("serve", "inspect", "bench", "parse-output", "grammar-check"))
    real = set(re.findall(r"--[a-z][a-z0-9-]*", help_text))
    assert len(real) > 30
    for path in ("docs/operations.md", "docs/api.md", "README.md"):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text(path)))
        assert named <= real, (path, named - real)


def test_documents_link_to_files():
    for path in ["README.md", *glob.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", text(path)):
            assert os.path.exists(os.path.join(os.path.dirname(path), link)), (path, link)
