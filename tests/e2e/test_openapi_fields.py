"""The bodies of /openapi.json are true (API H23, V6): a field that is described is read, whatever the dialect, and never
listed as ignored; every other name is listed, or refused by name (V7), or without meaning anywhere."""
import contextlib
import json
import re

import httpx
import pytest

import pooled_models
from conftest import Server
from test_docs import text

ASK = [{"role": "user", "content": "Hi"}]
CHAT = {"messages": ASK, "max_completion_tokens": 1}
OLLAMA = {"stream": False, "options": {"num_predict": 1}}
# component: a route that takes it, a body that is answered
BODIES = {
    "ChatRequest": ("/v1/chat/completions", CHAT),
    "CompletionRequest": ("/v1/completions", {"prompt": "Hi", "max_tokens": 1}),
    "ResponsesRequest": ("/v1/responses", {"input": "Hi", "max_output_tokens": 1}),
    "MessagesRequest": ("/v1/messages", {"messages": ASK, "max_tokens": 1}),
    "MessagesCountRequest": ("/v1/messages/count_tokens", {"messages": ASK}),
    "OllamaChatRequest": ("/api/chat", {"messages": ASK, **OLLAMA}),
    "OllamaGenerateRequest": ("/api/generate", {"prompt": "Hi", **OLLAMA}),
    "LmStudioChatRequest": ("/api/v1/chat", {"input": "Hi", "max_output_tokens": 1}),
    "LlamaCompletionRequest": ("/completion", {"prompt": "Hi", "n_predict": 1}),
    "LlamaInfillRequest": ("/infill", {"input_prefix": "a", "input_suffix": "b", "n_predict": 1}),
    "EmbeddingsRequest": ("/v1/embeddings", {"input": "Hi"}),
    "OllamaEmbedRequest": ("/api/embed", {"input": "Hi"}),
    "OllamaEmbeddingsRequest": ("/api/embeddings", {"prompt": "Hi"}),
    "RerankRequest": ("/rerank", {"query": "a", "documents": ["b"]}),
    "ScoreRequest": ("/v1/score", {"text_1": "a", "text_2": "b"}),
}
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOL = [{"type": "function", "function": FUNCTION}]
TOOLS = {"M": [{"name": "f", "input_schema": FUNCTION["parameters"]}], "R": [{"type": "function", **FUNCTION}]}  # by a body's first letter
# What never counts as absent (V6), and what else it needs.
VALUES = {
    "model": "m", "stream": True, "stream_options": {"include_usage": True}, "seed": 7, "stop": ["zz"], "stop_sequences": ["zz"], "stop_token_ids": [5],
    "logit_bias": {"5": 1}, "allowed_token_ids": [5], "bad_words": ["zz"], "cache_salt": "s", "chat_template_kwargs": {"a": 1}, "n": 1,
    "truncation_side": "left", "reasoning_effort": "low", "reasoning": {"enabled": True}, "thinking": {"type": "enabled", "budget_tokens": 5},
    "think": "low", "reasoning_format": "deepseek", "tool_choice": "auto", "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a"}, "guided_json": {"type": "integer"}, "guided_regex": "a", "guided_choice": ["a"],
    "guided_grammar": 'root ::= "a"', "grammar": 'root ::= "a"', "ebnf": 'root ::= "a"', "regex": "a", "json_schema": {"type": "integer"},
    "format": "json", "messages": ASK, "mm_processor_kwargs": {}, "suffix": "b", "prompt": "Hi", "input": "Hi",
    "instructions": "a", "previous_response_id": None, "text": {"verbosity": "low"}, "include": ["reasoning.encrypted_content"],
    "truncation": "auto", "metadata": {"a": "b"}, "encoding_format": "float", "dimensions": 64, "instruction": "a", "query": "a", "items": None,
    "queries": None, "data_1": None, "data_2": None, "text_1": "a", "text_2": "b", "response_fields": ["content"], "input_prefix": "a",
    "truncate_prompt_tokens": 500, "context_length": 100, "documents": ["b"], "max_tokens": 2, "tools": TOOL, "input_suffix": "b", "input_extra": [{"text": "a"}], "system": "a", "output_config": {"effort": "low"},
    "output_format": {"type": "json_schema", "schema": {"type": "integer"}}, "options": {"num_predict": 1}, "context": [5],
    "system_prompt": "a", "integrations": [], "template": "", "images": [], "name": "m",
}
NEEDS = {"stream_options": {"stream": True}, "top_logprobs": {"logprobs": True}, "min_tokens": {"max_tokens": 2, "max_completion_tokens": 2},
         "continue_final_message": {"messages": [*ASK, {"role": "assistant", "content": "a"}]}}
OWN = {("ChatRequest", "documents"): [{"a": "b"}], ("LmStudioChatRequest", "reasoning"): "on", ("MessagesRequest", "tool_choice"): {"type": "auto"},
       ("MessagesCountRequest", "tool_choice"): {"type": "auto"}}
# Refused by name wherever text is generated (V7), and without meaning wherever it is no field (V6).
REFUSED = set("use_beam_search functions function_call modalities audio background conversation chat_template post_sampling_probs structural_tag "
              "mm_processor_kwargs".split())
EXCEPT = {"ResponsesRequest": {"prompt"},  # X2: 400
          "MessagesCountRequest": {"prompt_logprobs", "return_progress", "return_token_ids", "timings_per_token"}}  # of a reply that is not made
INERT = set("user safety_identifier metadata store service_tier prompt_cache_key prompt_cache_retention prompt_cache_options verbosity moderation "
            "cache_control keep_alive ttl draft_model spaces_between_special_tokens request_id session_id".split())


def once(pairs):
    assert len({k for k, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


@pytest.fixture(scope="module")
def schemas(server):
    d = json.loads(server.get("/openapi.json").text, object_pairs_hook=once)
    return {k: v["properties"] for k, v in d["components"]["schemas"].items() if k.endswith("Request") and v.get("properties")}


@pytest.fixture(scope="module")
def servers(fim_server, tmp_path_factory):
    """Connections to a server that has what a body asks for."""
    made = {"text": Server("--allow-priority")}
    for kind in ("embedding", "reranker"):
        made[kind] = Server("--allow-priority", model=getattr(pooled_models, kind)(str(tmp_path_factory.mktemp("fields") / kind)))
    with contextlib.ExitStack() as stack:
        client = {k: stack.enter_context(httpx.Client(base_url=s.url, timeout=60)) for k, s in {**made, "fim": fim_server}.items()}
        yield lambda body: client["fim" if "Infill" in body else "embedding" if "Embed" in body else
                                  "reranker" if body in ("RerankRequest", "ScoreRequest") else "text"]
    for s in made.values():
        assert s.stop() == 0


def value(body, name, schema):
    """A legal value that says something."""
    kinds = schema.get("type", [])
    other = True if "boolean" in kinds else max(1, schema.get("minimum", 1)) if {"integer", "number"} & set(kinds) else "a"
    if name == "tools":
        return TOOLS.get(body[:1], TOOL)
    return OWN.get((body, name), VALUES.get(name, other))


def send(client, path, body):
    r = client.post(path, json=body)
    return r, {x for x in r.headers.get("x-quern-ignored", "").split(",") if x}


@pytest.mark.parametrize("body", BODIES)
def test_described_fields_are_read(servers, schemas, body):
    path, base = BODIES[body]
    wrong = []
    for name, what in schemas[body].items():
        if name == "priority" and "Infill" in body:
            continue  # only with --allow-priority, which that server was not started with
        needs = {"tools": value(body, "tools", {})} if name in ("tool_choice", "parallel_tool_calls") else NEEDS.get(name, {})
        client = servers("Infill" if name == "suffix" else body)
        r, ignored = send(client, path, {**base, **needs, name: value(body, name, what)})
        if r.status_code != 200 or name in ignored:
            wrong.append((name, r.status_code, sorted(ignored), r.text[:200] if r.status_code != 200 else ""))
    if wrong:
        pytest.fail("\n".join(map(str, wrong)), pytrace=False)


@pytest.mark.parametrize("body", BODIES)
def test_other_names_are_listed(servers, schemas, body):
    path, base = BODIES[body]
    kinds = {name: what for b in schemas.values() for name, what in b.items()}
    lists = re.findall(r"known_\w+\[\] = \{(.*?)\};", text("server/params.c"), re.S)
    every = set().union(*schemas.values(), *(re.findall(r'"(\w+)"', x) for x in lists)) | {"typical_p", "nothing_of_ours"}
    others = sorted(every - set(schemas[body]) - REFUSED - EXCEPT.get(body, set()) - INERT)
    sample = {k: value("", k, kinds.get(k, {})) or "x" for k in others}
    missing = []
    for i in range(0, len(others), 12):  # the header is bounded
        some = others[i:i + 12]
        r, ignored = send(servers(body), path, {**base, **{k: sample[k] for k in some}})
        if r.status_code == 200:
            missing += set(some) - ignored
            continue
        for k in some:
            r, ignored = send(servers(body), path, {**base, k: sample[k]})
            if r.status_code != 200 or k not in ignored:
                missing.append((k, r.status_code, r.text[:150]))
    if missing:
        pytest.fail("\n".join(map(str, missing)), pytrace=False)
