"""Embeddings, rerank and score: API section 11 (B1-B8), O8, G6, G7 and M1 for these models.  Vectors and
scores are held against what transformers computed in fp32 (tests/data/pooled_golden.json)."""
import base64
import json
import math
import os
import struct
import threading
import time

import httpx
import ollama
import openai
import pytest

import pooled_models as make
from conftest import Server, alive

GOLDEN = json.load(open("tests/data/pooled_golden.json"))
TEXTS = GOLDEN["texts"]
EMULATED = os.environ.get("QUERN_DEVICE", "").startswith("cuda")
# f32 sums of f16 weights; bf16 activations on a device.
NEAR = 0.05 if EMULATED else 2e-3


def near(got, want, bound=NEAR):
    assert len(got) == len(want)
    worst = max(abs(a - b) for a, b in zip(got, want))
    assert worst < bound, worst


def unit(v):
    n = math.sqrt(sum(x * x for x in v))
    return [x / n for x in v]


def vectors(s, texts, **more):
    r = s.post("/v1/embeddings", {"model": "m", "input": texts, **more})
    assert r.status_code == 200, r.text
    return [d["embedding"] for d in r.json()["data"]]


def refused(r, param, code="invalid_value"):
    assert r.status_code == 400, r.text
    e = r.json()["error"]
    assert (e["param"], e["code"]) == (param, code), e
    return e["message"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Servers by kind of checkpoint, started when first asked for."""
    made = {}

    def get(kind, *args):
        key = (kind, *args)
        if key not in made:
            path = str(tmp_path_factory.mktemp("pooled") / kind)
            made[key] = Server(*args, model=getattr(make, kind)(path))
        return made[key]

    yield get
    for s in made.values():
        assert s.proc.poll() is None, "".join(s.lines[-40:])
        assert s.stop() == 0, "".join(s.lines[-40:])


@pytest.fixture(scope="module")
def embed(models):
    return models("embedding")


@pytest.fixture(scope="module")
def rank(models):
    return models("reranker")


# ---- against transformers -------------------------------------------------------------------------------------------


def test_last_token_vectors_are_those_of_transformers(embed):
    """B2, B3: the state of an appended end token, of length 1; tokens count it."""
    r = embed.post("/v1/embeddings", {"model": "m", "input": TEXTS}).json()
    assert r["object"] == "list" and r["model"] == "m"
    assert [d["index"] for d in r["data"]] == [0, 1, 2, 3] and {d["object"] for d in r["data"]} == {"embedding"}
    total = sum(GOLDEN["tokens"])
    assert r["usage"] == {"prompt_tokens": total, "total_tokens": total}
    for got, want in zip(r["data"], GOLDEN["embedding"]):
        near(got["embedding"], want)
        assert abs(sum(x * x for x in got["embedding"]) - 1) < 1e-5


def test_instruction(embed):
    """B2: Instruct: ...\\nQuery:... in front of each text."""
    near(vectors(embed, TEXTS[0], instruction="Find the text")[0], GOLDEN["instructed"])


def test_full_attention_vectors_are_those_of_transformers(models):
    """A model whose tokens see those behind them (gte-Qwen2)."""
    s = models("full", "--max-num-seqs", "3")
    for got, want in zip(vectors(s, TEXTS), GOLDEN["full"]):
        near(got, want)


def test_mean_vectors_are_those_of_transformers(models):
    """B4: the mean of the last states, by the files and by --embeddings with a generative model."""
    s = models("copy_demo", "--embeddings", "--max-num-batched-tokens", "64")
    for got, want in zip(vectors(s, TEXTS), GOLDEN["mean"]):
        near(got, want)
    for got, want in zip(vectors(models("mean"), TEXTS), GOLDEN["mean"]):
        near(got, want)
    # Cut into other chunks; on a device only --batch-invariant keeps bits.
    assert EMULATED or vectors(s, TEXTS) == vectors(models("mean"), TEXTS)
    assert s.chat(max_tokens=3).status_code == 200


@pytest.mark.parametrize("kind", ["reranker", "classifier"])
def test_scores_are_those_of_transformers(models, kind):
    """B8: P(yes) of yes and no at the last position; the rows of two tokens, or one of their difference."""
    r = models(kind).post("/rerank", {"query": "What is the capital of France?", "documents": GOLDEN["documents"]})
    assert r.status_code == 200, r.text
    got = {x["index"]: x["relevance_score"] for x in r.json()["results"]}
    near([got[i] for i in range(len(got))], GOLDEN["scores"])


def test_plain_backend_is_nearer(models):
    s = models("embedding", "--device", "ref", "--kv-cache-dtype", "f32") if not EMULATED else models("embedding")
    near(vectors(s, TEXTS[1])[0], GOLDEN["embedding"][1], NEAR if EMULATED else 2e-6)


# ---- bits (B3, G4) --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind,args", [("embedding", ()), ("full", ("--max-num-seqs", "3")),
                                       ("copy_demo", ("--embeddings", "--max-num-batched-tokens", "64"))])
def test_same_text_same_bits(models, kind, args):
    """B3, G4: alone or in any batch, prompt in chunks, prefix cached or not, beside generation."""
    s = models(kind, *args, *(["--batch-invariant"] if EMULATED else []))
    alone = [vectors(s, t, cache_prompt=False)[0] for t in TEXTS]
    batch = vectors(s, [f"other text {i}" for i in range(20)] + TEXTS + TEXTS[::-1])
    assert batch[20:24] == alone and batch[24:] == alone[::-1]
    out, busy = [], []
    talk = threading.Thread(target=lambda: busy.append(s.complete(max_tokens=60).status_code))
    talk.start()
    many = [threading.Thread(target=lambda t=t: out.append((t, vectors(s, t)[0]))) for t in TEXTS * 3]
    for t in many:
        t.start()
    for t in [*many, talk]:
        t.join()
    assert len(out) == 12 and all(v == alone[TEXTS.index(t)] for t, v in out)
    assert busy == [200 if kind == "copy_demo" else 400]


def test_token_ids_and_text_are_the_same(embed):
    """B1: ids of /tokenize give the vector of the text, with or without the end token."""
    text = vectors(embed, TEXTS[1])[0]
    ids = embed.post("/tokenize", {"content": TEXTS[1]}).json()["tokens"]
    assert vectors(embed, ids)[0] == text
    assert vectors(embed, [ids, ids + [2039]]) == [text, text]


# ---- fields (B1) ----------------------------------------------------------------------------------------------------


def test_base64_is_little_endian_floats(embed):
    a = vectors(embed, TEXTS[0])[0]
    b = base64.b64decode(vectors(embed, TEXTS[0], encoding_format="base64")[0])
    assert b == struct.pack(f"<{len(a)}f", *a)
    assert vectors(embed, TEXTS[0], encoding_format="float")[0] == a


def test_dimensions_are_cut_and_made_unit_again(embed):
    whole = vectors(embed, TEXTS[1])[0]
    got = vectors(embed, TEXTS[1], dimensions=64)[0]
    near(got, GOLDEN["cut"])
    near(got, unit(whole[:64]), 1e-6)
    assert vectors(embed, TEXTS[1], dimensions=192)[0] == whole
    for bad in (31, 0, -1, 193, 1.5, "64", 10**30):
        e = embed.post("/v1/embeddings", {"input": "x", "dimensions": bad})
        assert e.status_code == 400 and e.json()["error"]["param"] == "dimensions"


def test_dimensions_of_other_models_are_refused(models):
    s = models("mean")
    assert "cannot be cut" in refused(s.post("/v1/embeddings", {"input": "x", "dimensions": 64}), "dimensions",
                                      "unsupported_value")
    assert len(vectors(s, "x", dimensions=192)[0]) == 192


@pytest.mark.parametrize("body,param", [
    ({}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": ["a", ""]}, "input[1]"),
    ({"input": [[]]}, "input[0]"), ({"input": [1, "a"]}, "input"), ({"input": [[1], "a"]}, "input"),
    ({"input": {}}, "input"), ({"input": 5}, "input"), ({"input": [None]}, "input"), ({"input": [-1]}, "input[0]"),
    ({"input": [2111]}, "input[0]"), ({"input": [[1, 1.5]]}, "input[0][1]"), ({"input": ["a"] * 2049}, "input"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"), ({"input": "a", "encoding_format": 1}, "encoding_format"),
    ({"input": [1, 2], "instruction": "find"}, "instruction"), ({"input": "a", "instruction": 7}, "instruction"),
    ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ({"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ({"input": "a", "truncation_side": "middle"}, "truncation_side"), ({"input": "a", "cache_salt": ""}, "cache_salt")])
def test_bad_fields_name_themselves(embed, body, param):
    """B1, V4, E3; K64."""
    r = embed.post("/v1/embeddings", body)
    assert r.status_code == 400 and r.json()["error"]["param"] == param, r.text


def test_unknown_fields_are_listed(embed):
    """V6: user is inert, what changes nothing here is listed; V8."""
    r = embed.post("/v1/embeddings", {"input": "a", "user": "u", "temperature": 1, "query": "q"})
    assert r.status_code == 200 and r.headers["x-quern-ignored"] == "temperature,query"
    assert embed.post("/v1/embeddings", {"model": "nope", "input": "a"}).status_code == 404
    assert embed.get("/v1/embeddings").status_code == 405


def test_2048_texts(embed):
    """B1: more texts than the queue and the batch hold, in order."""
    texts = [f"text number {i % 64}" for i in range(2048)]
    got = vectors(embed, texts, dimensions=32)
    assert len(got) == 2048 and got[:64] == got[64:128] == got[-64:]
    assert got[5] == vectors(embed, "text number 5", dimensions=32)[0] != got[6]


def test_too_long(embed):
    """G6 names the place; as many tokens as the context are allowed; G7 keeps either end."""
    ids = [100 + i % 900 for i in range(2047)]
    assert len(vectors(embed, ids)) == 1
    r = embed.post("/v1/embeddings", {"input": ["a", " ".join(["word"] * 4000)]})
    e = r.json()["error"]
    assert r.status_code == 400 and e["code"] == "context_length_exceeded" and e["param"] == "input[1]"
    assert e["n_ctx"] == 2048 and e["n_prompt_tokens"] > 2048 and "maximum context length is 2048 tokens" in e["message"]
    e = embed.post("/v1/embeddings", {"input": ids + [100]}).json()["error"]
    assert e["param"] == "input" and e["n_prompt_tokens"] == 2049
    r = embed.post("/v1/embeddings", {"input": ids + [100, 101], "truncate_prompt_tokens": -1})
    assert r.headers["x-quern-truncated"] == "2" and r.json()["usage"]["prompt_tokens"] == 2048
    last, first = vectors(embed, ids[-9:])[0], vectors(embed, ids[:9])[0]
    assert vectors(embed, ids, truncate_prompt_tokens=10)[0] == last
    assert vectors(embed, ids, truncate_prompt_tokens=10, truncation_side="right")[0] == first


# ---- which model answers what (B4, B8, M1) --------------------------------------------------------------------------


def test_each_model_answers_what_it_is_for(server, embed, rank):
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    assert "--embeddings" in refused(server.post("/v1/embeddings", {"input": "a"}), "model", "unsupported_value")
    assert "--pooling rank" in refused(server.post("/rerank", {"query": "a", "documents": ["b"]}), "model",
                                       "unsupported_value")
    for s, other in ((embed, "/v1/embeddings"), (rank, "/rerank")):
        assert other in refused(s.post("/v1/chat/completions", chat), "model", "unsupported_value")
        assert other in refused(s.post("/v1/completions", {"prompt": "a"}), "model", "unsupported_value")
        r = s.post("/v1/messages", {**chat, "model": "m"})
        assert r.status_code == 400 and r.json()["type"] == "error"
        assert other in s.post("/api/chat", {"model": "m", **chat}).json()["error"]
        assert s.post("/v1/chat/completions/input_tokens", chat).status_code == 200
    refused(embed.post("/score", {"text_1": "a", "text_2": "b"}), "model", "unsupported_value")
    refused(rank.post("/embeddings", {"input": "a"}), "model", "unsupported_value")
    for s, want in ((embed, ["embedding"]), (rank, ["rerank"]), (server, ["completion", "chat"])):
        got = s.get("/v1/models").json()["data"][0]["capabilities"]
        assert got[:len(want)] == want and ("embedding" in got, "rerank" in got) == ("embedding" in want, "rerank" in want)
    assert embed.get("/api/tags").json()["models"][0]["capabilities"] == ["embedding"]
    assert embed.post("/api/show", {"model": "m"}).json()["capabilities"] == ["embedding"]


def test_words_of_the_card_make_a_reranker(models):
    """The first Qwen3-Reranker says what it is in its card only, and judges by two words."""
    s = models("words")
    r = s.post("/v1/rerank", {"query": "a", "documents": ["b", "c"]})
    assert r.status_code == 200 and s.get("/v1/models").json()["data"][0]["capabilities"] == ["rerank"]


@pytest.mark.parametrize("change,words", [
    (lambda d: make.pool_files(d, pooling_mode_max_tokens=True), "pooling_mode_max_tokens"),
    (lambda d: make.pool_files(d), "no way of pooling"),
    (lambda d: make.pool_files(d, pooling_mode_lasttoken=True, pooling_mode_cls_token=True), "beside another way"),
    (lambda d: make.write_json(d + "/modules.json", [{"type": "x.Dense", "path": "2_Dense"}]), "Dense"),
    (lambda d: make.write_json(d + "/modules.json", [{"type": "x.Pooling", "path": "../x"}]), "no directory of the checkpoint"),
    (lambda d: make.write_json(d + "/modules.json", {"a": 1}), "an array is expected"),
    (lambda d: make.write_json(d + "/1_LogitScore/config.json", {"true_token_id": 5}) or make.write_json(
        d + "/modules.json", [{"type": "x.LogitScore", "path": "1_LogitScore"}]), "false_token_id"),
    (lambda d: make.change_json(d + "/config.json", lambda c: c.update(is_causal=False)), "1_Pooling/config.json"),
    (lambda d: make.change_json(d + "/config.json", lambda c: c.update(architectures=["Qwen3ForSequenceClassification"])),
     "classifier of 2 labels"),
    (lambda d: make.change_json(d + "/config.json", lambda c: c.update(architectures=["Qwen3ForSequenceClassification"],
                                                                     num_labels=1)), "score.weight is missing")])
def test_files_that_ask_for_what_is_not_built(tmp_path, change, words):
    d = make.copy_demo(str(tmp_path / "m"))
    change(d)
    with pytest.raises(RuntimeError) as e:
        Server(model=d, wait=False)
    assert words in str(e.value)


def test_full_attention_serves_the_whole_context(start, tmp_path):
    """A text is seen in one step: steps hold the model's context, and where the operator's are shorter, the start and
    the refusal of a longer text say which option that is (G6)."""
    d = make.full(str(tmp_path / "m"))
    make.change_json(d + "/config.json", lambda c: c.update(max_position_embeddings=16384))
    s = start(model=d)
    assert s.get("/v1/models").json()["data"][0]["max_model_len"] == 16384
    assert not any("cut from" in line for line in s.lines)
    assert s.post("/v1/embeddings", {"input": "word " * 2500}).json()["usage"]["prompt_tokens"] > 2048
    s = start("--max-num-batched-tokens", "64", model=d)
    assert any("cut from 16384 to 64" in line and "--max-num-batched-tokens" in line for line in s.lines)
    e = s.post("/v1/embeddings", {"input": ["a", "word " * 80]}).json()["error"]
    assert (e["code"], e["param"], e["n_ctx"]) == ("context_length_exceeded", "input[1]", 64)
    assert "maximum context length is 64 tokens" in e["message"] and "--max-num-batched-tokens" in e["message"]
    assert s.post("/v1/embeddings", {"input": "word " * 80, "truncate_prompt_tokens": -1}).status_code == 200


def test_pooling_option(start):
    """--pooling overrides the files; without --embeddings a generative model needs a reason."""
    with pytest.raises(RuntimeError, match="--embeddings"):
        start("--pooling", "last")
    s = start("--embeddings", "--pooling", "last")
    assert vectors(s, TEXTS[0])[0] != GOLDEN["mean"][0] and len(vectors(s, TEXTS[0])[0]) == 192
    with pytest.raises(RuntimeError, match="'yes' and 'no'"):
        start("--pooling", "rank")


# ---- rerank and score (B5-B7) ---------------------------------------------------------------------------------------

QUESTION = "What is the capital of France?"
DOCS = GOLDEN["documents"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking"])
def test_rerank(rank, path):
    r = rank.post(path, {"model": "m", "query": QUESTION, "documents": [DOCS[0], {"text": DOCS[1]}, DOCS[2], DOCS[0]]})
    assert r.status_code == 200, r.text
    b = r.json()
    assert b["id"].startswith("rerank-") and len(b["id"]) == 31 and b["object"] == "list" and b["model"] == "m"
    assert b["usage"]["prompt_tokens"] == b["usage"]["total_tokens"] > 200
    # Falling by score, equal ones in the order given.
    assert [x["index"] for x in b["results"]] == [0, 3, 1, 2]
    assert all(0 <= x["relevance_score"] <= 1 for x in b["results"])
    if path == "/v2/rerank":
        assert b["meta"] == {"api_version": {"version": "2"}} and "document" not in b["results"][0]
    else:
        assert "meta" not in b and b["results"][2]["document"] == {"text": DOCS[1]}


def test_rerank_fields(rank):
    ask = {"query": QUESTION, "documents": DOCS}
    assert len(rank.post("/rerank", {**ask, "top_n": 2}).json()["results"]) == 2
    assert len(rank.post("/rerank", {**ask, "top_n": 0}).json()["results"]) == 4
    assert len(rank.post("/rerank", {**ask, "top_n": 99}).json()["results"]) == 4
    assert "document" not in rank.post("/rerank", {**ask, "return_documents": False}).json()["results"][0]
    assert "document" in rank.post("/v2/rerank", {**ask, "return_documents": True}).json()["results"][0]
    a, b = (rank.post("/rerank", {**ask, **i}).json() for i in ({}, {"instruction": "Find cats"}))
    assert a["results"] != b["results"] and a["usage"] != b["usage"]
    for body, param in (({}, "query"), ({"query": "a"}, "documents"), ({"query": "", "documents": ["a"]}, "query"),
                        ({"query": "a", "documents": []}, "documents"), ({"query": "a", "documents": "x"}, "documents"),
                        ({"query": "a", "documents": ["x", 5]}, "documents[1]"), ({"query": ["a"], "documents": ["x"]}, "query"),
                        ({"query": "a", "documents": [{"txt": "x"}]}, "documents[0]"),
                        ({"query": "a", "documents": ["x"] * 1025}, "documents"), ({**ask, "top_n": -1}, "top_n"),
                        ({**ask, "instruction": 1}, "instruction"), ({**ask, "return_documents": 1}, "return_documents")):
        r = rank.post("/rerank", body)
        assert r.status_code == 400 and r.json()["error"]["param"] == param, r.text


def test_control_tokens_of_documents_are_text(rank):
    """G19: a document cannot close its turn and answer for the model."""
    mark = rank.post("/rerank", {"query": "a", "documents": ["<|im_end|>"]}).json()
    plain = rank.post("/rerank", {"query": "a", "documents": ["x"]}).json()
    assert mark["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 2


def test_long_documents(rank):
    """G6; G7 cuts the document and never the question."""
    long = " ".join(f"word{i}" for i in range(3000))
    e = rank.post("/rerank", {"query": "a", "documents": ["b", long]}).json()["error"]
    assert e["code"] == "context_length_exceeded" and e["param"] == "documents[1]"
    r = rank.post("/rerank", {"query": "a", "documents": [long], "truncate_prompt_tokens": -1})
    assert r.json()["usage"]["prompt_tokens"] == 2048 and int(r.headers["x-quern-truncated"]) > 1000
    short = rank.post("/rerank", {"query": QUESTION, "documents": [DOCS[0]]}).json()
    n = short["usage"]["prompt_tokens"]
    both = {"truncate_prompt_tokens": n, "truncation_side": "right"}
    r = rank.post("/rerank", {"query": QUESTION, "documents": [DOCS[0] + " And more of it."], **both}).json()
    assert r["results"][0]["relevance_score"] == short["results"][0]["relevance_score"]
    assert "question" in refused(rank.post("/rerank", {"query": "a", "documents": [long], "truncate_prompt_tokens": 20}),
                                 "truncate_prompt_tokens")


def test_score(rank):
    """B7: 1:1, 1:N, N:N under any of the names."""
    one = rank.post("/score", {"text_1": QUESTION, "text_2": DOCS[0]}).json()
    assert one["id"].startswith("score-") and one["object"] == "list" and abs(one["created"] - time.time()) < 60
    assert one["data"][0]["object"] == "score" and one["usage"]["total_tokens"] > 50
    same = {x["index"]: x["relevance_score"] for x in
            rank.post("/rerank", {"query": QUESTION, "documents": DOCS}).json()["results"]}
    for a, b in (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")):
        got = rank.post("/v1/score", {a: QUESTION, b: DOCS}).json()["data"]
        assert [x["index"] for x in got] == [0, 1, 2, 3] and [x["score"] for x in got] == [same[i] for i in range(4)]
    pairs = rank.post("/v1/score", {"text_1": [QUESTION] * 2, "text_2": DOCS[:2]}).json()["data"]
    assert [x["score"] for x in pairs] == [same[0], same[1]]
    for body, param in (({}, "text_1"), ({"text_1": "a"}, "text_1"), ({"text_1": ["a", "b"], "text_2": "c"}, "text_1"),
                        ({"text_1": ["a", "b"], "text_2": ["a"] * 3}, "text_1"), ({"text_1": [], "text_2": "b"}, "text_1"),
                        ({"text_1": "a", "text_2": ["b", 1]}, "text_2[1]"), ({"queries": 1, "items": "b"}, "queries")):
        r = rank.post("/score", body)
        assert r.status_code == 400 and r.json()["error"]["param"] == param, r.text
    long = "word " * 3000  # G6, E3: the name and the place that the client gave it
    for body, param in (({"data_1": "a", "data_2": long}, "data_2"), ({"queries": "a", "items": ["b", long]}, "items[1]"), ({"text_1": "a", "text_2": [long]}, "text_2[0]")):
        assert "maximum context length" in refused(rank.post("/score", body), param, "context_length_exceeded")


# ---- clients --------------------------------------------------------------------------------------------------------


def test_openai_client(embed):
    """The client asks for base64 on its own and decodes it."""
    c = openai.OpenAI(base_url=embed.url + "/v1", api_key="x")
    r = c.embeddings.create(model="m", input=TEXTS)
    assert r.usage.prompt_tokens == sum(GOLDEN["tokens"])
    near(r.data[1].embedding, GOLDEN["embedding"][1])
    assert len(c.embeddings.create(model="m", input="a", dimensions=32, encoding_format="float").data[0].embedding) == 32
    with pytest.raises(openai.BadRequestError):
        c.embeddings.create(model="m", input="")


def test_ollama_client(embed):
    """O8; too long a text loses its end unless truncate is false."""
    c = ollama.Client(host=embed.url)
    r = c.embed(model="m", input=TEXTS)
    assert r.prompt_eval_count == sum(GOLDEN["tokens"]) and r.total_duration > 0 and r.load_duration == 0
    near(r.embeddings[1], GOLDEN["embedding"][1])
    assert list(c.embed(model="m", input=TEXTS[0]).embeddings[0]) == list(r.embeddings[0])
    assert len(c.embed(model="m", input="a", dimensions=32).embeddings[0]) == 32
    near(c.embeddings(model="m", prompt=TEXTS[1]).embedding, GOLDEN["embedding"][1])
    long = " ".join(["word"] * 4000)
    assert c.embed(model="m", input=long).prompt_eval_count == 2048
    with pytest.raises(ollama.ResponseError, match="maximum context length"):
        c.embed(model="m", input=long, truncate=False)
    r = embed.post("/api/embed", {"model": "m", "options": {"num_ctx": 4}})
    assert r.json() == {"model": "m", "embeddings": [], "total_duration": 0, "load_duration": 0, "prompt_eval_count": 0} and r.headers["x-quern-ignored"] == "options"
    assert embed.post("/api/embed", {"model": "m", "input": []}).json()["embeddings"] == []
    assert embed.post("/api/embeddings", {"model": "m", "prompt": ""}).json() == {"embedding": []}
    for bad in (5, [1], {"a": 1}):
        assert embed.post("/api/embed", {"model": "m", "input": bad}).status_code == 400
    assert "x-quern-ignored" not in embed.post("/api/embed", {"model": "m", "input": "a", "truncate": True}).headers


# ---- load, limits, ends ---------------------------------------------------------------------------------------------


def test_metrics(models):
    """N8: one sequence a text, its tokens as prompt, no first token."""
    s = models("embedding", "--max-num-seqs", "4", "--max-queue", "2")
    before = {n: s.metric(n) for n in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total",
                                       "vllm:time_to_first_token_seconds_count", "vllm:e2e_request_latency_seconds_count")}
    ok = s.metric("vllm:request_success_total", finished_reason="stop")
    used = s.post("/v1/embeddings", {"input": TEXTS}).json()["usage"]["prompt_tokens"]
    assert s.metric("vllm:prompt_tokens_total") == before["vllm:prompt_tokens_total"] + used
    assert s.metric("vllm:request_success_total", finished_reason="stop") == ok + 4
    assert s.metric("vllm:e2e_request_latency_seconds_count") == before["vllm:e2e_request_latency_seconds_count"] + 4
    for n in ("vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_count"):
        assert s.metric(n) == before[n]


def test_many_calls_of_many_texts(models):
    """H11: a small queue: calls that are in get through whole, others are told to come back."""
    s = models("embedding", "--max-num-seqs", "4", "--max-queue", "2")
    texts = [f"{i} " * 40 for i in range(120)]
    out = []
    ts = [threading.Thread(target=lambda: out.append(s.post("/v1/embeddings", {"input": texts}))) for _ in range(8)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    codes = [r.status_code for r in out]
    assert set(codes) <= {200, 429} and 200 in codes
    assert all("retry-after" in r.headers for r in out if r.status_code == 429)
    assert len({r.text for r in out if r.status_code == 200}) == 1
    assert s.metric("vllm:num_requests_running") == 0


def test_deadline_and_cancel(models):
    """H12, H14: a call of many texts ends at its deadline, or when its client leaves."""
    s = models("embedding", "--max-num-seqs", "4", "--max-queue", "2")
    texts = [("%d " % i) * 500 for i in range(400)]
    r = s.post("/v1/embeddings", {"input": texts}, headers={"x-quern-timeout-ms": "150"})
    assert r.status_code == 504 and r.json()["error"]["code"] == "deadline_exceeded"
    gone = s.metric("vllm:request_success_total", finished_reason="abort")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(s.url + "/v1/embeddings", json={"input": texts}, timeout=0.4)
    end = time.time() + 5
    while s.metric("vllm:num_requests_running") and time.time() < end:
        time.sleep(0.05)
    assert s.metric("vllm:num_requests_running") == 0 and s.metric("vllm:num_requests_waiting") == 0
    assert s.metric("vllm:request_success_total", finished_reason="abort") > gone


def test_drain_finishes_what_is_in(start, tmp_path):
    """H18: a call that was taken is finished with all its texts."""
    s = start("--max-num-seqs", "2", model=make.embedding(str(tmp_path / "m")))
    out = []
    t = threading.Thread(target=lambda: out.append(s.post("/v1/embeddings", {"input": ["a b c " * 60] * 200})))
    t.start()
    while not s.metric("vllm:num_requests_running"):
        time.sleep(0.01)
    assert s.stop() == 0
    t.join()
    assert out[0].status_code == 200 and len(out[0].json()["data"]) == 200


def test_ranks(models):
    """Tensor parallel: near, and the same bits in any batch."""
    s = models("embedding", "--tensor-parallel-size", "2")
    alone = [vectors(s, t, cache_prompt=False)[0] for t in TEXTS]
    for got, want in zip(alone, GOLDEN["embedding"]):
        near(got, want)
    assert vectors(s, ["x", *TEXTS])[1:] == alone
    s = models("copy_demo", "--embeddings", "--tensor-parallel-size", "2")
    near(vectors(s, TEXTS[1])[0], GOLDEN["mean"][1])


def test_still_alive(server):
    alive(server)
