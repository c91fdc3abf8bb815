"""The model list in the forms of other clients (API M3, E1)."""
import anthropic

AS = {"anthropic-version": "2023-06-01"}


def test_anthropic_lists_models(start):
    s = start("--served-model-name", "m,org/second,claude-*")
    client = anthropic.Anthropic(base_url=s.url, api_key="x")
    page = client.models.list()
    assert [m.id for m in page.data] == ["m", "org/second"] and page.has_more is False and (page.first_id, page.last_id) == ("m", "org/second")
    one = client.models.retrieve("org/second")
    assert one.type == "model" and one.display_name == "org/second" and one.created_at.year >= 2024
    raw = s.get("/v1/models/m", headers=AS).json()
    assert raw["lifecycle"] == "active" and raw["max_input_tokens"] == raw["max_tokens"] == 2048
    r = s.get("/v1/models/none", headers=AS)
    assert r.status_code == 404 and r.json()["type"] == "error" and r.json()["error"]["type"] == "not_found_error"
    assert r.headers["request-id"] == r.json()["request_id"]
    assert "param" in s.get("/v1/models/none").json()["error"] and "object" in s.get("/v1/models").json()
    assert "type" not in s.get("/health", headers=AS).json()


def test_a_refusal_before_the_route_has_the_shape_too(start):
    s = start("--api-key", "k")
    assert s.get("/v1/models", headers=AS).json()["error"]["type"] == "authentication_error"
    assert s.get("/v1/models").json()["error"]["code"] == "invalid_api_key"


def test_codex_lists_models(server):
    r = server.get("/v1/models?client_version=0.60.0").json()
    assert [m["id"] for m in r["data"]] == [m["slug"] for m in r["models"]] == ["m"]
    m = r["models"][0]
    assert m["context_window"] == 2048 and m["default_reasoning_level"] == "medium" and m["supports_reasoning_summaries"] is True
    assert [e["effort"] for e in m["supported_reasoning_levels"]] == ["low", "medium", "high"] and all(e["description"] for e in m["supported_reasoning_levels"])
    assert m["shell_type"] == "shell_command" and m["truncation_policy"] == {"mode": "bytes", "limit": 10000} and m["experimental_supported_tools"] == []
    assert m["input_modalities"] == ["text"]  # without it Codex sends images too
    assert "models" not in server.get("/v1/models").json() and "models" in server.get("/v1/models?client_version").json()
