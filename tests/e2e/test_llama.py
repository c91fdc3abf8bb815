"""llama.cpp's routes, and filling in the middle wherever it is offered (API K4-K7, P6, G4, G9, G14; MODELS 6.6)."""
import json
import threading
import time

import httpx
import pytest

from test_fields import ids, refused

COLD = {"temperature": 0, "n_predict": 8}
ASKED = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
GAP = {"input_prefix": "def add(a, b):\n    ", "input_suffix": "\nprint(add(1, 2))\n"}


def completion(server, **body):
    return server.post("/completion", {**COLD, "prompt": ASKED, **body})


# ---- /completion (K7) --------------------------------------------------------------------------

def test_completion_equals_completions(server):
    r = completion(server, return_tokens=True, n_probs=3).json()
    same = server.complete(prompt=ASKED, temperature=0, max_tokens=8, logprobs=3, return_token_ids=True).json()
    c = same["choices"][0]
    assert r["content"] == c["text"] and r["tokens"] == c["token_ids"] and r["stop"] is True and r["model"] == "m"
    assert r["tokens_evaluated"] == same["usage"]["prompt_tokens"] and r["tokens_predicted"] == same["usage"]["completion_tokens"] > 4
    assert r["stop_type"] in ("limit", "eos") and r["stopping_word"] == "" and r["truncated"] is False and r["prompt"] == ASKED
    assert r["has_new_line"] == ("\n" in r["content"]) and r["id_slot"] >= 0 and r["tokens_cached"] >= 0
    assert r["timings"]["predicted_n"] == r["tokens_predicted"] and r["timings"]["prompt_n"] + r["timings"]["cache_n"] == r["tokens_evaluated"]
    g = r["generation_settings"]
    assert g["temperature"] == 0 and g["n_predict"] == 8 and g["top_p"] == 0.95 and g["n_probs"] == 3 and g["stream"] is False
    items = r["completion_probabilities"]
    assert [i["id"] for i in items] == r["tokens"][:len(items)] and len(items) >= len(r["tokens"]) - 1 and all(len(i["top_logprobs"]) == 3 for i in items)
    assert [i["logprob"] for i in items] == c["logprobs"]["token_logprobs"] and items[0]["top_logprobs"][0]["id"] == items[0]["id"]
    assert bytes(items[0]["bytes"]).decode() == items[0]["token"]
    assert completion(server).json()["tokens"] == [] and "completion_probabilities" not in completion(server).json()


def test_completion_stream(server):
    plain = completion(server, n_predict=60, n_probs=1, return_tokens=True).json()
    got = server.events("/completion", {**COLD, "n_predict": 60, "prompt": ASKED, "n_probs": 1, "return_tokens": True,
                                        "timings_per_token": True, "return_progress": True})
    assert all(isinstance(c, dict) for c in got), "no [DONE] here"
    assert [c["stop"] for c in got] == [False] * (len(got) - 1) + [True]
    assert "".join(c["content"] for c in got) == plain["content"] and sum((c["tokens"] for c in got), []) == plain["tokens"]
    assert sum((c.get("completion_probabilities", []) for c in got), []) == plain["completion_probabilities"]
    seen = [c["prompt_progress"] for c in got if "prompt_progress" in c]
    assert seen[0]["processed"] == seen[0]["cache"] and seen[-1]["processed"] == plain["tokens_evaluated"]
    assert all("timings" in c for c in got)
    last = got[-1]
    for key in ("stop_type", "stopping_word", "tokens_predicted", "tokens_evaluated", "prompt", "has_new_line", "truncated"):
        assert last[key] == plain[key], key


def test_completion_stops(server):
    text = completion(server, n_predict=30).json()["content"]
    word = text.split()[1]
    r = completion(server, n_predict=30, stop=[word]).json()
    assert r["stop_type"] == "word" and r["stopping_word"] == word and r["content"] == text[:text.index(word)]
    r = completion(server, stop_token_ids=[completion(server, return_tokens=True).json()["tokens"][1]]).json()
    assert r["stop_type"] == "word" and r["stopping_word"] and r["tokens_predicted"] == 2
    end = server.post("/tokenize", {"content": "<|im_end|>"}).json()["tokens"][0]
    r = completion(server, logit_bias=[[end, 100]], n_probs=1).json()
    assert r["stop_type"] == "eos" and r["content"] == "" and r["completion_probabilities"] == []
    for limits, n in (({"n_predict": 3, "max_tokens": 5, "max_completion_tokens": 6}, 3), ({"n_predict": None, "max_tokens": 5}, 5)):  # V9
        assert completion(server, ignore_eos=True, **limits).json()["tokens_predicted"] == n
    r = completion(server, n_predict=0).json()
    assert r["content"] == "" and r["tokens_predicted"] == 0 and r["stop_type"] == "limit"


def test_completion_bias_seed_and_prompts(server):
    base = completion(server, return_tokens=True).json()
    banned = completion(server, return_tokens=True, logit_bias=[[base["tokens"][0], False]]).json()
    assert base["tokens"][0] != banned["tokens"][0]
    assert banned["tokens"] == completion(server, return_tokens=True, logit_bias={str(base["tokens"][0]): -100}).json()["tokens"]
    assert banned["generation_settings"]["logit_bias"] == [{"token": base["tokens"][0], "bias": -100}]
    draws = {completion(server, prompt="Once", temperature=2, top_k=0, top_p=1, seed=-1, n_predict=12).json()["content"] for _ in range(4)}
    assert len(draws) > 1 and "x-quern-seed" in completion(server, seed=-1).headers
    assert completion(server, temperature=2, seed=3).json()["content"] == completion(server, temperature=2, seed=3).json()["content"]
    tokens = ids(server, "The capital of")
    for prompt in (["The capital of"], tokens, [tokens]):
        assert completion(server, prompt=prompt).json()["content"] == completion(server, prompt="The capital of").json()["content"]
    mixed = completion(server, prompt=[*tokens, " France", tokens[0]]).json()
    assert mixed["tokens_evaluated"] == len(tokens) + len(ids(server, " France")) + 1


def test_completion_holds_to_a_schema(server):  # K7, J1
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"], "additionalProperties": False}
    r = completion(server, json_schema=schema, n_predict=300).json()
    assert set(json.loads(r["content"])) == {"city"} and r["stop_type"] == "eos"
    r = completion(server, grammar='root ::= "abc" [0-3]', prompt="Hello").json()
    assert r["content"][:3] == "abc" and r["content"][3] in "0123" and len(r["content"]) == 4
    refused(completion(server, grammar="root ::= ("), "grammar")


def test_completion_response_fields(server):
    r = completion(server, response_fields=["content", "timings/prompt_n", "nothing", "generation_settings/seed/x", "truncated"]).json()
    assert set(r) == {"content", "timings/prompt_n", "truncated"}


@pytest.mark.parametrize("body,param", [
    ({"prompt": None}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [[1], [2]]}, "prompt"),
    ({"prompt": {}}, "prompt"), ({"prompt": [1, {}]}, "prompt[1]"), ({"prompt": [10 ** 7]}, "prompt[0]"), ({"n": 2}, "n"), ({"n_probs": 21}, "n_probs"),
    ({"n_predict": -2}, "n_predict"), ({"logit_bias": [5]}, "logit_bias[0]"), ({"logit_bias": [[1, True]]}, "logit_bias[0]"),
    ({"logit_bias": [[10 ** 7, 1]]}, "logit_bias[0]"), ({"response_fields": "content"}, "response_fields"), ({"response_fields": ["prompt"] * 65}, "response_fields"), ({"response_fields": [5]}, "response_fields"), ({"post_sampling_probs": True}, "post_sampling_probs"),
    ({"prompt": "hi " * 5000}, "prompt"),
])
def test_completion_bad_values(server, body, param):
    refused(completion(server, **body), param)


def test_completion_lists_what_it_has_no_place_for(server):
    r = completion(server, samplers=["top_k"], id_slot=3, logprobs=2, stream_options={"include_usage": True}, prompt_logprobs=1, t_max_predict_ms=5,
                   truncate_prompt_tokens=1, echo=True)
    assert r.status_code == 200
    assert {"samplers", "id_slot", "logprobs", "stream_options", "prompt_logprobs", "t_max_predict_ms", "truncate_prompt_tokens",
            "echo"} == set(r.headers["x-quern-ignored"].split(","))
    refused(server.chat(logit_bias=[[5, 1]]), "logit_bias")


# ---- filling in (P6, K6) -----------------------------------------------------------------------

def test_suffix_fills_in(fim_server):  # P6
    s, t = fim_server, fim_server.fim
    before, behind = ids(s, "def f(x):"), ids(s, "return y")
    ask = {"prompt": "def f(x):", "suffix": "return y", "temperature": 0, "max_tokens": 6, "return_token_ids": True}
    c = s.complete(**ask).json()["choices"][0]
    assert c["prompt_token_ids"] == [t["fim_prefix"], *before, t["fim_suffix"], *behind, t["fim_middle"]]
    for name in ("fim_prefix", "fim_suffix", "fim_pad", "repo_name", "file_sep"):
        c = s.complete(**ask, logit_bias={str(t[name]): 100}, logprobs=0).json()["choices"][0]
        assert (c["text"], c["finish_reason"], c["stop_reason"], c["token_ids"]) == ("", "stop", None, [t[name]])
        # Until min_tokens, and with ignore_eos, they are held off like any end (G9).
        c = s.complete(**ask, logit_bias={str(t[name]): 100}, min_tokens=2).json()["choices"][0]
        assert len(c["token_ids"]) == 3 and t[name] not in c["token_ids"][:2]
        c = s.complete(**ask, logit_bias={str(t[name]): 100}, ignore_eos=True).json()["choices"][0]
        assert c["finish_reason"] == "length" and t[name] not in c["token_ids"]
    c = s.complete(prompt="def f(x):", temperature=0, max_tokens=6, logit_bias={str(t["file_sep"]): 100}).json()["choices"][0]
    assert c["finish_reason"] == "length"  # without a suffix they are tokens like others
    assert s.complete(prompt="", suffix="x", max_tokens=1).status_code == 200
    assert "insert" in s.get("/v1/models").json()["data"][0]["capabilities"]
    for extra, param in (({"echo": True}, "echo"), ({"prompt": ["a"]}, "prompt"), ({"prompt": [5]}, "prompt"), ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens")):
        refused(s.complete(**{**ask, **extra}), param)


def test_models_that_cannot_fill_in(server):
    r = server.complete(suffix="x")
    refused(r, "suffix")
    assert r.json()["error"]["code"] == "unsupported_value"
    refused(server.post("/infill", GAP), "input_prefix")
    assert "insert" not in server.get("/v1/models").json()["data"][0]["capabilities"]


def infill(server, **body):
    return server.post("/infill", {**GAP, **COLD, **body})


def test_infill(fim_server):  # K6
    s, t = fim_server, fim_server.fim
    r = infill(s, stop=["\n"], n_indent=4, id_slot=0, t_max_prompt_ms=500, samplers=["top_k"], cache_prompt=True, top_k=40, top_p=0.9).json()
    assert r["prompt"] == f"<|fim_prefix|>{GAP['input_prefix']}<|fim_suffix|>{GAP['input_suffix']}<|fim_middle|>"
    assert r["stop"] is True and r["timings"]["prompt_n"] > 0 and r["stop_type"] in ("word", "limit", "eos")
    # The client's prompt stands behind the prefix; marks in files and prefix are plain text there, in the prompt they count.
    r = infill(s, prompt="return<|fim_pad|>", input_prefix="<|fim_pad|>").json()
    assert r["prompt"].startswith("<|fim_prefix|><|fim_pad|>return<|fim_pad|><|fim_suffix|>")
    whole = s.post("/tokenize", {"content": r["prompt"]}).json()
    assert r["tokens_evaluated"] > whole["count"]
    extra = [{"filename": "a.py", "text": "A = 1\n"}, {"text": "B = 2"}]
    r = infill(s, input_extra=extra).json()
    assert r["prompt"].startswith("<|repo_name|>repository\n<|file_sep|>a.py\nA = 1\n<|file_sep|>file\nB = 2\n<|file_sep|>current\n<|fim_prefix|>def add")
    assert r["truncated"] is False
    got = s.events("/infill", {**GAP, **COLD, "input_extra": extra})
    assert "".join(c["content"] for c in got) == r["content"] and got[-1]["stop"] is True
    warm = infill(s, input_prefix="", input_suffix="", prompt="", n_predict=0, input_extra=extra, response_fields=[""])
    assert warm.status_code == 200 and warm.json() == {}
    c = infill(s, logit_bias=[[t["file_sep"], 100]]).json()
    assert c["stop_type"] == "eos" and c["content"] == "" and c["stopping_word"] == ""


def test_infill_cuts_the_oldest_files(fim_server):  # K6
    s = fim_server
    ctx = s.get("/props").json()["n_ctx"]
    words = "alpha beta gamma delta epsilon zeta eta theta\n"
    extra = [{"filename": f"f{i}.txt", "text": f"file {i}\n" + words * 40} for i in range(8)]
    r = infill(s, input_extra=extra)
    body = r.json()
    assert r.status_code == 200 and int(r.headers["x-quern-truncated"]) > 0 and body["truncated"] is True
    assert ctx - 8 - 40 <= body["tokens_evaluated"] <= ctx - 8
    assert "file 7\n" in body["prompt"] and "file 0\n" not in body["prompt"] and body["prompt"].startswith("<|repo_name|>repository\n<|file_sep|>f")
    all_of_it = len(ids(s, "".join(f"<|file_sep|>{e['filename']}\n{e['text']}" for e in extra)))
    kept = body["prompt"][len("<|repo_name|>repository\n"):body["prompt"].index("<|file_sep|>current")]
    assert int(r.headers["x-quern-truncated"]) == all_of_it - len(ids(s, kept))
    refused(infill(s, input_prefix="hi " * 5000), "input_prefix")  # prefix and suffix are never cut
    # Where no file has room, prefix and suffix are all there is, and nothing of the repository form takes their place.
    nearly = "x" + " hi" * (ctx - 8)
    for prefix in (nearly, nearly + " hi" * (ctx - 4 - len(ids(s, nearly)))):
        r = infill(s, input_prefix=prefix, input_suffix="", n_predict=1, input_extra=extra[:2])
        assert r.status_code == 200 and r.json()["truncated"] is True, r.text
        assert r.json()["prompt"].startswith("<|fim_prefix|>x hi") and r.json()["tokens_evaluated"] == len(ids(s, prefix)) + 3
        assert int(r.headers["x-quern-truncated"]) == len(ids(s, "".join(f"<|file_sep|>{e['filename']}\n{e['text']}" for e in extra[:2])))


@pytest.mark.parametrize("body,param", [
    ({"input_prefix": None}, "input_prefix"), ({"input_suffix": None}, "input_suffix"), ({"input_prefix": 5}, "input_prefix"), ({"prompt": ["x"]}, "prompt"),
    ({"input_extra": {}}, "input_extra"), ({"input_extra": ["x"]}, "input_extra[0]"), ({"input_extra": [{"text": "a"}, {"filename": "x"}]}, "input_extra[1]"),
    ({"input_extra": [{"text": 5}]}, "input_extra[0]"), ({"input_extra": [{"text": "a", "filename": 5}]}, "input_extra[0]"),
])
def test_infill_bad_values(fim_server, body, param):
    refused(infill(fim_server, **body), param)


# ---- /props and /slots (K4, K5) ----------------------------------------------------------------

def test_props(server):
    p = server.get("/props").json()
    assert p["n_ctx"] == p["default_generation_settings"]["n_ctx"] == 2048 and p["model_alias"] == "m" and "/" not in p["model_path"]
    d = p["default_generation_settings"]["params"]
    assert (d["temperature"], d["top_k"], d["top_p"], d["n_predict"], d["seed"]) == (0.6, 20, 0.95, -1, -1)
    assert "im_start" in p["chat_template"] and p["chat_template_caps"]["supports_tools"] is True and p["modalities"] == {"vision": False, "audio": False}
    assert p["is_sleeping"] is False and p["eos_token"] == "<|im_end|>" and p["build_info"] and p["total_slots"] > 0 and "bos_token" in p
    assert server.post("/props", {}).status_code == 501
    assert httpx.head(server.url + "/props").status_code == 200


def test_slots(start):  # K5
    s = start("--max-num-seqs", "2")
    idle = s.get("/slots").json()
    assert len(idle) == 2 == s.get("/props").json()["total_slots"] and [x["id"] for x in idle] == [0, 1]
    assert all(not x["is_processing"] and x["id_task"] == -1 and x["params"] == {} for x in idle)
    assert s.get("/slots?fail_on_no_slot=1").status_code == 200
    done = threading.Event()

    def run():
        with httpx.stream("POST", s.url + "/completion", json={"prompt": "secret words", "n_predict": -1, "stream": True, "ignore_eos": True, "temperature": 0.5,
                          "logit_bias": [[5, False]]}, timeout=60) as r:
            for _ in r.iter_lines():
                if done.is_set():
                    return

    threads = [threading.Thread(target=run) for _ in range(2)]
    for t in threads:
        t.start()
    full, text = None, ""
    end = time.time() + 20
    while time.time() < end and full is None:
        r = s.get("/slots")
        if all(x["is_processing"] and x["next_token"]["n_decoded"] > 3 for x in r.json()):
            full, text = r.json(), r.text
            refusal = s.get("/slots?fail_on_no_slot=1")
            still = s.get("/slots").json()
    done.set()
    for t in threads:
        t.join()
    assert full and "secret" not in text
    for x in full:
        assert x["params"]["temperature"] == 0.5 and x["prompt_tokens"] > 0 and x["next_token"]["has_next_token"] is True and x["speculative"] is False
        assert x["next_token"]["n_decoded"] + x["next_token"]["n_remain"] == x["n_ctx"] - x["prompt_tokens"]
    assert full[0]["id_task"] != full[1]["id_task"]
    if all(x["is_processing"] for x in still):  # they may have ended meanwhile
        assert refusal.status_code == 503 and refusal.json()["error"]["code"] == "no_slot_available"
    end = time.time() + 10
    while any(x["is_processing"] for x in s.get("/slots").json()):
        assert time.time() < end
        time.sleep(0.02)


def test_no_slots(start):
    r = start("--no-slots").get("/slots")
    assert r.status_code == 501 and "--no-slots" in r.json()["error"]["message"]


def test_error_shapes(server):
    r = server.post("/completion", "{")
    assert set(r.json()["error"]) == {"message", "type", "param", "code"} and r.status_code == 400
