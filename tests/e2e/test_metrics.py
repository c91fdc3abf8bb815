"""/metrics (API N1-N8): complete from the start, monotone, exact counts."""
import re

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
quern_reasoning_tokens_total quern_ignored_fields_total""".split()


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
            assert "{" not in k
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
