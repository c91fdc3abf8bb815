"""/metrics (API N1-N8): complete from the start, monotone, exact counts, in both formats."""
import json
import re

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as open_parser

from conftest import SLOW, wait_for

NAMES = """vllm:num_requests_running vllm:num_requests_waiting vllm:kv_cache_usage_perc vllm:cache_config_info
vllm:prompt_tokens_total vllm:generation_tokens_total vllm:num_preemptions_total vllm:request_success_total
vllm:prefix_cache_queries_total vllm:prefix_cache_hits_total vllm:prompt_tokens_cached_total
vllm:time_to_first_token_seconds_bucket vllm:inter_token_latency_seconds_bucket vllm:e2e_request_latency_seconds_bucket
vllm:request_queue_time_seconds_bucket vllm:request_inference_time_seconds_bucket vllm:request_prefill_time_seconds_bucket
vllm:request_decode_time_seconds_bucket vllm:request_prompt_tokens_bucket vllm:request_generation_tokens_bucket
llamacpp:prompt_tokens_total llamacpp:prompt_seconds_total llamacpp:tokens_predicted_total llamacpp:tokens_predicted_seconds_total
llamacpp:n_decode_total llamacpp:n_tokens_max llamacpp:prompt_tokens_seconds llamacpp:predicted_tokens_seconds
llamacpp:requests_processing llamacpp:requests_deferred llamacpp:n_busy_slots_per_decode
process_cpu_seconds_total process_resident_memory_bytes process_open_fds process_start_time_seconds
quern_build_info quern_ready quern_connections quern_kv_blocks quern_model_load_seconds quern_cancelled_total
quern_reasoning_tokens_total quern_ignored_fields_total
vllm:num_requests_waiting_by_reason vllm:engine_sleep_state vllm:lora_requests_info vllm:prompt_tokens_by_source_total
vllm:mm_cache_queries_total vllm:mm_cache_hits_total vllm:corrupted_requests_total vllm:admission_rejections_total
vllm:spec_decode_num_drafts_total vllm:spec_decode_num_draft_tokens_total vllm:spec_decode_num_accepted_tokens_total
vllm:spec_decode_num_accepted_tokens_per_pos_total vllm:request_time_per_output_token_seconds_bucket vllm:iteration_tokens_total_bucket
vllm:request_max_num_generation_tokens_bucket vllm:request_params_n_bucket vllm:request_params_max_tokens_bucket
vllm:request_prefill_kv_computed_tokens_bucket vllm:kv_block_lifetime_seconds_bucket vllm:kv_block_idle_before_evict_seconds_bucket
vllm:kv_block_reuse_gap_seconds_bucket llamacpp:spec_decode_num_drafts_total llamacpp:spec_decode_num_draft_tokens_total
llamacpp:spec_decode_num_accepted_tokens_total llamacpp:spec_decode_num_accepted_tokens_per_pos_total quern_tool_calls_total
quern_grammar_compile_seconds_bucket quern_grammar_rejected_total quern_response_store_entries quern_log_lines_dropped_total""".split()


def scrape(s):
    out = {}
    for line in s.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            m = re.match(r"(\S+?)(\{.*\})? (\S+)$", line)
            assert m, line
            out[m.group(1) + (m.group(2) or "")] = float(m.group(3))
    return out


def test_complete_from_the_start(start):
    s = start()
    r = s.get("/metrics")
    assert r.headers["content-type"].startswith("text/plain; version=0.0.4")
    got = scrape(s)
    for n in NAMES:
        assert any(k == n or k.startswith(n + "{") for k in got), n
    for k, v in got.items():
        if k.startswith("vllm:"):
            assert 'model_name="m"' in k and 'engine="0"' in k
        if k.startswith("llamacpp:"):
            assert "{" not in k or k.startswith("llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position=")
    for reason in ("stop", "length", "abort", "error"):
        assert got[f'vllm:request_success_total{{model_name="m",engine="0",finished_reason="{reason}"}}'] == 0


def test_counts_are_exact(start):
    s = start()
    L = '{model_name="m",engine="0"}'
    a = scrape(s)
    d = s.complete(prompt=[9] * 40, max_tokens=5, n=2, ignore_eos=True).json()
    s.complete(prompt=[9] * 40, max_tokens=5, ignore_eos=True)
    b = scrape(s)
    assert d["usage"]["completion_tokens"] == 10
    assert b["vllm:prompt_tokens_total" + L] - a["vllm:prompt_tokens_total" + L] == 80
    assert b["vllm:generation_tokens_total" + L] - a["vllm:generation_tokens_total" + L] == 15
    assert b["vllm:time_to_first_token_seconds_count" + L] - a["vllm:time_to_first_token_seconds_count" + L] == 3
    assert b["vllm:inter_token_latency_seconds_count" + L] - a["vllm:inter_token_latency_seconds_count" + L] == 12
    assert b["vllm:e2e_request_latency_seconds_count" + L] - a["vllm:e2e_request_latency_seconds_count" + L] == 3
    assert b['http_requests_total{handler="/v1/completions",method="POST",status="200"}'] == 2
    for k in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert b[k + L] == 0
    for k in b:
        if "_total" in k or "_count" in k or "_bucket" in k:
            assert b[k] >= a.get(k, 0), k
    assert b['quern_kv_blocks{state="cached"}'] > 0


def test_handlers_are_patterns(server):
    server.get("/v1/models/some-name")
    server.get("/secret/path")
    text = server.get("/metrics").text
    assert "some-name" not in text and "secret" not in text
    assert 'handler="/v1/models/*"' in text and 'handler="other"' in text


@pytest.mark.parametrize("accept,open_metrics", [
    (None, False), ("*/*", False), ("text/plain", False), ("application/openmetrics-text; version=1.0.0", True),
    ("application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", True),
    ("application/openmetrics-text;q=0.2, text/plain;q=0.9", False), ("application/openmetrics-text;q=0", False)])
def test_both_formats_parse(server, accept, open_metrics):
    """N1: OpenMetrics if the client prefers it; every family once, with its type, by Prometheus's own parsers."""
    server.complete(max_tokens=2)
    r = server.get("/metrics", headers={"Accept": accept} if accept else {})
    kind = "application/openmetrics-text; version=1.0.0; charset=utf-8" if open_metrics else "text/plain; version=0.0.4; charset=utf-8"
    assert r.headers["content-type"] == kind
    parse = open_parser.text_string_to_metric_families if open_metrics else parser.text_string_to_metric_families
    families = list(parse(r.text))
    assert len({f.name for f in families}) == len(families) > 60
    assert {f.type for f in families} <= {"counter", "gauge", "histogram", "unknown"} and all(f.documentation for f in families)
    names = {s.name for f in families for s in f.samples}
    names |= {n.removesuffix("_total") for n in names}  # the parser gives every counter that ending
    assert set(NAMES) <= names
    for f in families:
        if f.type == "histogram":
            runs = {}
            for s in f.samples:
                if s.name.endswith("_bucket"):
                    runs.setdefault(tuple(v for k, v in s.labels.items() if k != "le"), []).append(s.value)
            assert all(v == sorted(v) for v in runs.values()), f.name


def test_what_requests_ask_for(start):
    """N4, N8: choices, limits and computed tokens once a request; mean token times once a sequence."""
    s = start()
    L = '{model_name="m",engine="0"}'
    s.complete(prompt=[9] * 40, max_tokens=5, n=3, ignore_eos=True)
    s.complete(prompt=[9] * 40, max_tokens=1, ignore_eos=True)
    a = scrape(s)
    assert a["vllm:request_params_n_count" + L] == 2 and a["vllm:request_params_n_sum" + L] == 4
    assert a["vllm:request_params_max_tokens_sum" + L] == 6
    assert a["vllm:request_max_num_generation_tokens_sum" + L] == 6
    assert a["vllm:request_time_per_output_token_seconds_count" + L] == 3
    cached = a["vllm:prompt_tokens_cached_total" + L]
    assert cached == 32 and a["vllm:request_prefill_kv_computed_tokens_sum" + L] == 80 - cached
    by_source = {k: v for k, v in a.items() if k.startswith("vllm:prompt_tokens_by_source_total")}
    assert sum(by_source.values()) == 80 and by_source['vllm:prompt_tokens_by_source_total{model_name="m",engine="0",source="local_cache_hit"}'] == 32
    assert a["vllm:iteration_tokens_total_count" + L] == a["llamacpp:n_decode_total"]
    assert a["vllm:kv_block_reuse_gap_seconds_count" + L] == 1


def test_blocks_live_and_die(start):
    """N4: a pool that is too small for what was cached evicts, and says how old it was."""
    s = start("--kv-cache-memory", "2M", "--max-model-len", "128")
    for i in range(12):
        s.complete(prompt=[10 + i] * 120, max_tokens=2, ignore_eos=True)
    n = s.metric("vllm:kv_block_lifetime_seconds_count")
    assert n > 0 and s.metric("vllm:kv_block_idle_before_evict_seconds_count") == n
    assert s.metric("vllm:kv_block_lifetime_seconds_sum") >= s.metric("vllm:kv_block_idle_before_evict_seconds_sum") > 0


def test_refused_by_the_queue(start):
    """N3, N8: a full queue counts as an admission rejection and in http_*, nowhere else."""
    s = start(*SLOW, "--max-num-seqs", "1", "--max-queue", "1")
    held = [s.open_stream(max_tokens=1500) for _ in range(2)]
    assert wait_for(lambda: s.metric("vllm:num_requests_waiting") == 1)
    assert s.metric("vllm:num_requests_waiting_by_reason", reason="capacity") == 1
    assert s.complete(max_tokens=1).status_code == 429
    assert s.metric("vllm:admission_rejections_total") == 1
    assert s.metric("vllm:request_success_total") == 0
    for c in held:
        c.close()


def test_tool_calls_are_counted(server):
    """N7: what parsers found, by format and whether it was complete."""
    def counts():
        return [server.metric("quern_tool_calls_total", format="hermes", result=r) for r in ("complete", "truncated")]
    with open("tests/data/demo_golden.json") as f:
        tools = next(g["tools"] for g in json.load(f) if g["tools"] and g["tools"][0]["function"]["name"] == "get_weather")[:1]
    ask = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": tools, "temperature": 0, "enable_thinking": False}
    before = counts()
    d = server.chat(**ask, return_token_ids=True).json()["choices"][0]
    assert d["finish_reason"] == "tool_calls"
    assert counts() == [before[0] + 1, before[1]]
    server.chat(**ask, max_tokens=len(d["token_ids"]) - 4)
    assert counts() == [before[0] + 1, before[1] + 1]
