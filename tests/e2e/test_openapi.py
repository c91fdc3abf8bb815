"""GET /openapi.json (API H23): it lists what the route table has, and schemathesis finds no reply that it does not describe.
That its fields are those that are read is in test_openapi_fields.py."""
import json
import re
import subprocess
import sys

import httpx
import pytest

from test_docs import routes, text

# Paths that share their handler, and thereby all but the name, with one that is driven.
ALIASES = (r"^/(chat/|completions|responses|models|embeddings|reranking|score|healthz|livez|readyz|ping|index)|^/v1/(tokenize|detokenize|health|rerank)"
           r"|^/v2/|^/api/v0/|input_tokens$")
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
          "negative_data_rejection,unsupported_method,allow_header_conformance")


@pytest.fixture(scope="module")
def document(server):
    r = server.get("/openapi.json")
    assert r.status_code == 200 and r.headers["content-type"] == "application/json"
    return r.json()


def test_every_built_route_is_there(document):
    built = {(m, p) for m, p, ok in routes() if ok}
    told = {(m.upper(), path.replace("{id}", "*")) for path, ops in document["paths"].items() for m, op in ops.items() if "200" in op["responses"]}
    fixed = {(m, p) for m, p in built - told if p.startswith("/api/")}  # what Ollama's clients ask and quern never does: 501
    assert told <= built and built - told == fixed and len(fixed) <= 7
    for path, ops in document["paths"].items():
        for m, op in ops.items():
            assert op["tags"] and "summary" in op, path
            assert ("requestBody" in op) == (m == "post" and any(k == (m.upper(), path) for k in body_routes())), (m, path)


def body_routes():
    rows = re.findall(r'\{"([A-Z]+)", "([^"]+)", \w+, ([^}]*)\}', text("server/routes.c"))
    return {(m, p) for m, p, flags in rows if "GEN" in flags or "ROUTE_BODY" in flags}


def test_references_resolve(document):
    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document)):
        assert name in document["components"][kind]
    used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert set(document["components"]["schemas"]) == used


def test_keys_are_told(start):
    s = start("--api-key", "k")
    assert s.get("/openapi.json").status_code == 401
    d = s.get("/openapi.json", headers={"x-api-key": "k"}).json()
    assert d["security"] == [{"bearer": []}, {"header": []}]
    assert d["paths"]["/health"]["get"]["security"] == [] and "security" not in d["paths"]["/v1/models"]["get"]


def test_allow_names_the_methods_of_a_path(server):
    """H10: OPTIONS without Origin."""
    for path, allow in (("/v1/models", "GET, HEAD, OPTIONS"), ("/v1/completions", "POST, OPTIONS"), ("/v1/models/x", "GET, HEAD, OPTIONS"),
                        ("/api/delete", "DELETE, OPTIONS")):
        r = httpx.request("OPTIONS", server.url + path)
        assert r.status_code == 204 and r.headers["allow"] == allow
    assert httpx.request("OPTIONS", server.url + "/nothing").status_code == 404
    r = httpx.request("QUERY", server.url + "/v1/models")
    assert r.status_code == 405 and r.headers["allow"] == "GET, HEAD"


def test_schemathesis(start, tmp_path):
    """Thousands of requests made from the document, legal and not: no 5xx but 501, every reply as described, illegal bodies refused."""
    s = start("--max-model-len", "64")
    document = s.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    for name, body in schemas.items():  # a field that is chat's is driven there, and read by the same code everywhere
        if name.endswith("Request") and name != "ChatRequest":
            body["properties"] = {k: v for k, v in body["properties"].items() if k == "model" or schemas["ChatRequest"]["properties"].get(k) != v}
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    config = tmp_path / "schemathesis.toml"
    config.write_text('[checks]\nnot_a_server_error.expected-statuses = ["2xx", "4xx", 501]\n')
    p = subprocess.run([sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", "openapi.json", "--url", s.url, "--checks", CHECKS,
                        "--phases", "coverage", "--exclude-path-regex", ALIASES, "--seed", "1", "--continue-on-failure",
                        "--suppress-health-check", "all"], capture_output=True, timeout=240, cwd=tmp_path)
    out = p.stdout.decode()
    assert p.returncode == 0, out[-6000:]
    assert int(re.search(r"(\d+) generated", out).group(1)) > 1000, out[-2000:]
    assert s.get("/health").status_code == 200
