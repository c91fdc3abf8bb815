"""Embedding models and rerankers from GGUF files (API B1-B8): the vectors and scores of the directory with the same
weights, by what the file says of itself.  The files are as llama.cpp's converter writes them (gguf_models.py), and as
`quern quantize` does."""
import subprocess

import pytest

import gguf_models
import pooled_models
from conftest import BIN, Server
from gguf_models import F16, F32, JUDGE, LABELS, LAST, RANK, USUAL, convert, make, prompted
from pooled_models import NO, YES
from test_pooled import DOCS, EMULATED, GOLDEN, QUESTION, TEXTS, near, vectors

# F32 matrices are summed in another order than F16 ones, and on a device both are rounded to bf16.
SAME = 0.05 if EMULATED else 1e-5


def scores(s, documents=DOCS):
    r = s.post("/v1/score", {"text_1": QUESTION, "text_2": documents})
    assert r.status_code == 200, r.text
    return [d["score"] for d in r.json()["data"]]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("gguf")


def directory(root, kind):
    path = root / kind
    return str(path) if path.exists() else getattr(pooled_models, kind)(str(path))


def served(model, fn, *args):
    """What fn makes of a server of model."""
    s = Server(*args, model=model)
    try:
        return fn(s)
    finally:
        assert s.stop() == 0, "".join(s.lines[-40:])


@pytest.fixture(scope="module")
def wanted(root):
    """What the directory of a kind answers, asked once."""
    known = {}

    def get(kind):
        if kind not in known:
            known[kind] = served(directory(root, kind), answers(kind))
        return known[kind]
    return get


def answers(kind):
    return scores if kind in ("reranker", "classifier", "words") else lambda s: [v for t in TEXTS for v in vectors(s, t)[0]]


@pytest.mark.parametrize("kind,matrices", [*((k, F16) for k in gguf_models.KINDS), ("embedding", F32)])
def test_files_answer_as_their_directory(root, wanted, kind, matrices):
    """B2, B4, B8: the pooling, the appended end, full attention and the rows that judge are the file's."""
    path = make(kind, directory(root, kind), str(root / f"{kind}-{matrices}.gguf"), matrices=matrices)
    near(served(path, answers(kind)), wanted(kind), SAME)


def test_capabilities_are_those_of_the_file(root):
    """M1, B4, O9."""
    def look(s):
        told = s.get("/v1/models").json()["data"][0]["capabilities"], s.get("/api/tags").json()["models"][0]
        tokens = s.post("/v1/embeddings", {"input": TEXTS}).json()["usage"]["prompt_tokens"]
        cut = vectors(s, TEXTS[1], dimensions=64)[0]
        return *told, tokens, cut, s.chat().json()["error"]["code"]
    path = make("embedding", directory(root, "embedding"), str(root / "told.gguf"))
    kinds, tags, tokens, cut, chat = served(path, look)
    assert kinds == ["embedding"] and tags["capabilities"] == ["embedding"] and tags["details"]["format"] == "gguf"
    assert tokens == sum(GOLDEN["tokens"]) and chat == "unsupported_value"
    near(cut, GOLDEN["cut"])


def test_the_end_token_of_older_files(root, wanted):
    """B2: converters of before wrote no add_eos_token; Qwen3-Embedding is read at <|endoftext|> all the same."""
    path = make("embedding", directory(root, "embedding"), str(root / "older.gguf"), ends=False)
    near(served(path, answers("embedding")), wanted("embedding"), SAME)


def test_the_order_of_a_rerankers_rows(root, wanted):
    """B8: labels say which row is yes; without labels it is the first."""
    d = directory(root, "reranker")
    swapped = convert(d, str(root / "swapped.gguf"), ("*.pooling_type", RANK), (LABELS, ["no", "yes"]), judge=[NO, YES])
    near(served(swapped, scores), wanted("reranker"), SAME)
    bare = convert(d, str(root / "bare.gguf"), ("*.pooling_type", RANK), judge=[YES, NO])
    near(served(bare, scores), wanted("reranker"), SAME)


def test_the_prompt_of_the_file(root):
    """B5, B7, B8, G19: a judge is asked as its file says; swapped places show it to the bit of the order."""
    d = directory(root, "reranker")

    def file(name, text):
        return make("reranker", d, str(root / f"{name}.gguf"), more=[("*.pooling_type", RANK), *prompted(text)])

    def score(s, left, right, **more):
        r = s.post("/v1/score", {"text_1": left, "text_2": right, **more})
        assert r.status_code == 200, r.text
        return [x["score"] for x in r.json()["data"]]

    def swap(s):
        return score(s, DOCS, [QUESTION] * len(DOCS), instruction="Find cats"), score(s, DOCS, [QUESTION] * len(DOCS))
    cats, usual = served(d, swap)
    places = JUDGE.replace("{instruction}", "Find cats").replace("{query}", "{q}").replace("{document}", "{query}")
    swapped = file("swapped-places", places.replace("{q}", "{document}"))

    def digest(s):
        return s.get("/api/tags").json()["models"][0]["digest"]

    def ask(s):
        rows = s.post("/rerank", {"query": QUESTION, "documents": DOCS}).json()["results"]
        return (score(s, QUESTION, DOCS), score(s, QUESTION, DOCS, instruction=USUAL),
                [x["relevance_score"] for x in sorted(rows, key=lambda x: x["index"])], digest(s))
    own, told, ranked, name = served(swapped, ask)
    near(own, cats, SAME)
    near(told, usual, SAME)
    assert ranked == own and max(abs(a - b) for a, b in zip(cats, usual)) > 1e-4

    def bare(s):
        n = s.post("/v1/score", {"text_1": "<|im_end|>", "text_2": "{query}"}).json()["usage"]["prompt_tokens"]
        e = s.post("/rerank", {"query": "a", "documents": ["b"], "instruction": "c"}).json()["error"]
        return n, e, s.post("/tokenize", {"content": "judge <|im_end|> {query}"}).json()["tokens"], digest(s)
    n, e, tokens, other = served(file("bare-prompt", "judge {query} {document}"), bare)
    assert n > len(tokens), "what a client writes is no control token"
    assert (e["code"], e["param"]) == ("unsupported_value", "instruction") and "no place" in e["message"]
    assert name != other, "what changes prompts changes the fingerprint (G15)"


def test_attention_that_the_file_does_not_tell(root, wanted):
    """gte-Qwen2 as the converter writes it: the operator says what a token sees; a generative model needs a reason."""
    def look(s):
        return answers("gte")(s), s.get("/api/tags").json()["models"][0]["digest"]
    path = make("gte", directory(root, "gte"), str(root / "silent.gguf"), more=[("*.pooling_type", LAST)])
    full, name = served(path, look, "--attention", "non-causal")
    near(full, wanted("gte"), SAME)
    causal = served(directory(root, "gte"), answers("gte"), "--attention", "causal")
    silent, other = served(path, look)
    near(silent, causal, SAME)
    assert name != other, "what changes bits changes the fingerprint (G15)"
    assert max(abs(a - b) for a, b in zip(causal, wanted("gte"))) > 0.01
    with pytest.raises(RuntimeError, match="how its states become"):
        Server("--attention", "non-causal", wait=False)


def test_generation_stays_generation(root):
    """B4: pooling_type 0, as some converters write it."""
    path = convert(directory(root, "copy_demo"), str(root / "none.gguf"), ("*.pooling_type", 0))
    assert served(path, lambda s: s.chat(max_tokens=3).status_code) == 200


@pytest.mark.parametrize("more,judge,words", [
    ([("*.pooling_type", 5)], None, "'qwen3.pooling_type' is 5, a way of pooling that is not supported"),
    ([("*.pooling_type", "last")], None, "'qwen3.pooling_type' must be an integer"),
    ([("*.pooling_type", RANK), (LABELS, ["sport", "politics"])], [1, 2], "begins with 'sport': a classifier is not supported"),
    ([("*.pooling_type", RANK)], [1, 2, 3], "tensor cls.output.weight has 3 rows; one or two can judge"),
    ([("*.pooling_type", RANK)], None, "no tokens 'yes' and 'no'"),
    ([("*.pooling_type", LAST)], [1, 2], "unexpected tensor cls.output.weight"),
    ([("*.pooling_type", RANK), *prompted("is it {query}?")], [1, 2], "tokenizer.chat_template.rerank: the rerank prompt must hold {query}"),
    ([("*.attention.causal", False)], None, "nothing in the checkpoint says how its states become embeddings")])
def test_files_that_ask_for_what_is_not_built(root, more, judge, words):
    path = convert(directory(root, "copy_demo"), str(root / "refused.gguf"), *more, judge=judge)
    with pytest.raises(RuntimeError) as e:
        Server(model=path, wait=False)
    assert words in str(e.value)


@pytest.mark.parametrize("kind", ["embedding", "gte", "classifier", "words"])
def test_quantize_keeps_what_a_model_is_for(root, wanted, kind):
    """`quern quantize` writes pooling, end token, attention and the rows that judge; twice over, too."""
    path = str(root / f"own-{kind}.gguf")
    subprocess.run([BIN, "quantize", directory(root, kind), path, "--type", "F16"], check=True, capture_output=True)
    if kind in ("embedding", "words"):
        again = str(root / f"again-{kind}.gguf")
        subprocess.run([BIN, "quantize", path, again, "--type", "F32"], check=True, capture_output=True)
        path = again
    near(served(path, answers(kind)), wanted(kind), SAME)
