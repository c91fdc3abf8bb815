"""The command line: exit codes, help, tokenize, render, inspect, quantize, chat, bench, config and environment."""
import json
import os
import shutil
import subprocess

import pytest

from conftest import BIN, DEMO, Server


def run(*args, stdin=None, env=None, want=0, limit=120):
    p = subprocess.run([BIN, *args], input=stdin, capture_output=True, timeout=limit, env={**os.environ, **(env or {})})
    assert p.returncode == want, (p.returncode, p.stderr.decode()[-500:])
    return p.stdout.decode(), p.stderr.decode()


def test_usage():
    for args in ((), ("nonsense",), ("serve", "--no-such-option"), ("serve", "--port", "x"), ("serve", "--port"), ("quantize", "a")):
        _, err = run(*args, want=2)
        assert err
    assert "serve" in run("--help")[0] and "quern" in run("--version")[0]
    for cmd in ("serve", "chat", "bench", "inspect", "tokenize", "detokenize", "render", "quantize"):
        out, _ = run(cmd, "--help")
        assert len(out) > 100, cmd
    assert "--max-num-seqs" in run("serve", "--help")[0]


@pytest.mark.parametrize("option,word", [(("--tensor-parallel-size", "3"), "tensor-parallel"), (("--device", "cuda"), "cuda"),
                                         (("--media-path", "x"), "media-path"), (("--cpu-isa", "mmx"), "cpu-isa"),
                                         (("--kv-cache-dtype", "q2"), "kv-cache-dtype"), (("--rope-scaling", "{"), "rope-scaling"),
                                         (("--max-model-len", "-5"), "max-model-len"),
                                         (("--kv-cache-memory", "1K"), "kv-cache-memory"), (("--kv-cache-memory", "900T"), "kv-cache-memory"),
                                         (("--api-key-file", "/tmp"), "api-key-file"), (("--config", "/tmp"), "config"),
                                         (("--served-model-name", "a,b*c"), "served-model-name"), (("--served-model-name", "*"), "served-model-name"),
                                         (("--served-model-name", "a\nb"), "served-model-name"), (("--served-model-name", ""), "served-model-name"),
                                         (("--allowed-hosts", "a:80"), "allowed-hosts"), (("--cors-origins", "a.example"), "cors-origins"),
                                         (("--default-chat-template-kwargs", '{"messages": []}'), "default-chat-template-kwargs"),
                                         (("--effort-budgets", "512,many"), "effort-budgets"),
                                         (("--effort-budgets", "1,2,3,4"), "effort-budgets"), (("--effort-budgets", "1,2,-7"), "effort-budgets")])
def test_refused_options_are_named(option, word):
    _, err = run("serve", DEMO, "--port", "0", *option, want=2)
    assert word in err


def test_bad_models(tmp_path):
    for path in (str(tmp_path / "missing"), str(tmp_path)):
        run("serve", path, want=2)
    f = tmp_path / "x.gguf"
    f.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 16)
    run("serve", str(f), want=2)
    d = tmp_path / "m"
    shutil.copytree(DEMO, d, ignore=shutil.ignore_patterns("train"))
    data = (d / "model.safetensors").read_bytes()
    (d / "model.safetensors").write_bytes(data[:-100])
    _, err = run("serve", str(d), "--port", "0", want=2)
    assert "safetensors" in err
    (d / "model.safetensors").write_bytes(data)
    c = json.loads((d / "config.json").read_text())
    for change, word in (({"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 1}, "sliding"),
                         ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "llama"),
                         ({"num_hidden_layers": 40}, "layers"), ({"hidden_size": -1}, "hidden_size"), ({"vocab_size": 99}, "embed")):
        (d / "config.json").write_text(json.dumps({**c, **change}))
        _, err = run("serve", str(d), "--port", "0", want=2)
        assert word.lower() in err.lower(), err


def test_tokenize_round_trip():
    texts = ["Hello world", "你好 <|im_end|>", "", "a\nb"]
    lines = "".join(json.dumps(t) + "\n" for t in texts).encode()
    out, _ = run("tokenize", DEMO, "--jsonl", stdin=lines)
    ids = [json.loads(l) for l in out.splitlines()]
    assert len(ids) == 4 and ids[2] == []
    back, _ = run("detokenize", DEMO, "--jsonl", stdin=out.encode())
    assert [json.loads(l) for l in back.splitlines()] == texts


def test_tokenize_needs_no_weights(tmp_path):
    for f in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(DEMO, f), tmp_path)
    out, _ = run("tokenize", str(tmp_path), "--jsonl", stdin=b'"Hello"\n')
    assert json.loads(out)


def test_render():
    out, _ = run("render", DEMO, stdin=json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode())
    assert out.startswith("<|im_start|>") and "hi<|im_end|>" in out
    _, err = run("render", DEMO, stdin=b'{"messages":[]}', want=2)
    assert "messages" in err


def test_inspect():
    out, _ = run("inspect", DEMO)
    for word in ("qwen3", "F16", "2048", "layers"):
        assert word.lower() in out.lower(), out


def test_quantize_and_serve(tmp_path, start):
    q = tmp_path / "demo-q8.gguf"
    run("quantize", DEMO, str(q), "--type", "Q8_0")
    assert q.stat().st_size < 0.6 * os.path.getsize(os.path.join(DEMO, "model.safetensors"))
    s = start(model=str(q))
    r = s.chat(messages=[{"role": "user", "content": "What is the capital of France?"}], temperature=0, max_tokens=100)
    assert r.status_code == 200 and r.json()["choices"][0]["message"]["content"]
    assert s.get("/v1/models").json()["data"][0]["meta"]["quantization"] == "Q8_0"
    run("quantize", DEMO, str(q), "--type", "Q9", want=2)


def test_chat_prompt():
    out, _ = run("chat", DEMO, "--prompt", "hello", "--no-think")
    assert out.strip()
    out, _ = run("chat", DEMO, stdin=b"hello\n/clear\nhello\n/exit\n")
    assert out.strip()


def test_bench():
    out, _ = run("bench", DEMO, "--json", "--reps", "1", limit=300)
    d = json.loads(out)
    assert {"model", "format", "threads", "bandwidth_gbs", "int8_gops", "fma_gflops", "decode", "prefill", "load_ms"} <= set(d)
    assert [x["batch"] for x in d["decode"]] == [1, 8, 32] and d["prefill"][0]["tokens"] == 512
    assert all(x["tok_s"] > 0 and x["roof_share"] > 0 for x in d["decode"] + d["prefill"])


def test_config_file_and_environment(tmp_path, start):
    f = tmp_path / "quern.json"
    f.write_text(json.dumps({"served-model-name": "from-file", "max_model_len": 256, "api-key": ["k"]}))
    s = start("--config", str(f), "--served-model-name", "cli", env={"QUERN_MAX_MODEL_LEN": "128"})
    d = s.get("/v1/models", headers={"x-api-key": "k"}).json()["data"]
    assert [m["id"] for m in d] == ["m", "cli"]  # "m" is the fixture's own
    assert d[0]["max_model_len"] == 128
    f.write_text(json.dumps({"nonsense": 1}))
    _, err = run("serve", DEMO, "--config", str(f), want=2)
    assert "nonsense" in err


def test_trace_ops():
    _, err = run("chat", DEMO, "--prompt", "hello", "--no-think", "--trace-ops", "attn_paged,1,0")
    lines = [l for l in err.splitlines() if l.startswith("trace ")]
    assert len(lines) == 1 and "step 0 layer 1 attn_paged" in lines[0] and "nan 0 inf 0" in lines[0]
    _, err = run("chat", DEMO, "--prompt", "hello", "--trace-ops", "nonsense", want=2)
    assert "trace-ops" in err and "attn_paged" in err


def test_fingerprint_names_what_changes_bits():
    """G4, G15: equal for equal servers, another for another KV type, template or sampling default."""
    def fingerprint(*args):
        s = Server(*args)
        try:
            return s.chat(max_tokens=1).json()["system_fingerprint"]
        finally:
            s.stop()
    first = fingerprint()
    assert first == fingerprint("--max-num-seqs", "3") and first.startswith("fp_") and len(first) == 13
    others = {fingerprint("--kv-cache-dtype", "f32"), fingerprint("--chat-template", "{{ messages[0].content }}"),
              fingerprint("--override-generation-config", '{"top_k": 3}'), fingerprint("--tensor-parallel-size", "2")}
    assert len(others | {first}) == 5
