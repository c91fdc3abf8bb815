"""The official openai client with strict response validation."""
import asyncio

import openai
import pytest

from conftest import stopped, wait_for


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", _strict_response_validation=True, max_retries=0)


M = [{"role": "user", "content": "What is the capital of France?"}]


def test_chat(client):
    r = client.chat.completions.create(model="m", messages=M, temperature=0, max_tokens=100)
    assert r.choices[0].message.content and r.usage.total_tokens > 0


def test_chat_stream(client):
    plain = client.chat.completions.create(model="m", messages=M, temperature=0, max_tokens=100)
    text, usage = "", None
    for ev in client.chat.completions.create(model="m", messages=M, temperature=0, max_tokens=100, stream=True,
                                             stream_options={"include_usage": True}):
        for c in ev.choices:
            text += c.delta.content or ""
        usage = ev.usage or usage
    assert text == plain.choices[0].message.content and usage.completion_tokens == plain.usage.completion_tokens


def test_stream_helper(client):
    with client.chat.completions.stream(model="m", messages=M, temperature=0, max_tokens=100) as s:
        for _ in s:
            pass
        done = s.get_final_completion()
    assert done.choices[0].message.content


def test_logprobs(client):
    r = client.chat.completions.create(model="m", messages=M, temperature=0, max_tokens=40, logprobs=True, top_logprobs=2)
    assert all(len(t.top_logprobs) == 2 for t in r.choices[0].logprobs.content)


def test_completions(client):
    r = client.completions.create(model="m", prompt="Hello", max_tokens=5, echo=True)
    assert r.choices[0].text.startswith("Hello")
    r = client.completions.create(model="m", prompt="Hello", max_tokens=5, logprobs=2, extra_body={"ignore_eos": True})
    assert len(r.choices[0].logprobs.tokens) == r.usage.completion_tokens == 5


def test_completions_stream(server):
    # The client's type has no null finish_reason, which every stream carries: not strict here.
    c = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    want = c.completions.create(model="m", prompt="Hello", max_tokens=5, temperature=0).choices[0].text
    events = list(c.completions.create(model="m", prompt="Hello", max_tokens=5, temperature=0, stream=True))
    assert "".join(e.choices[0].text for e in events) == want and events[-1].choices[0].finish_reason == "length"


def test_models(client):
    assert [m.id for m in client.models.list()] == ["m"]
    assert client.models.retrieve("m").id == "m"


def test_errors(client):
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="m", messages=M, temperature=5)
    assert e.value.param == "temperature" and e.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="zzz", messages=M)
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="m", input="x")


ENDLESS = {"stream": True, "extra_body": {"ignore_eos": True}}


@pytest.mark.parametrize("begin", [
    lambda c: c.chat.completions.create(model="m", messages=M, max_tokens=1500, **ENDLESS),
    lambda c: c.completions.create(model="m", prompt="Once", max_tokens=1500, **ENDLESS),
    lambda c: c.responses.create(model="m", input="Hello", max_output_tokens=1500, **ENDLESS)], ids=["chat", "completions", "responses"])
def test_cancel(slow, begin):
    client = openai.OpenAI(base_url=slow.url + "/v1", api_key="none", max_retries=0)
    with stopped(slow):
        s = begin(client)
        next(iter(s))
        s.close()
    assert client.chat.completions.create(model="m", messages=M, max_tokens=1).choices


@pytest.mark.anyio
async def test_cancel_of_a_plain_call(slow):
    """A task that is cancelled closes its connection, and the server sees that although no byte is due (H14)."""
    async with openai.AsyncOpenAI(base_url=slow.url + "/v1", api_key="x", max_retries=0) as c:
        with stopped(slow, 2):
            call = asyncio.create_task(c.chat.completions.create(model="m", messages=M, n=2, max_tokens=1500, extra_body={"ignore_eos": True}))
            assert await asyncio.to_thread(wait_for, lambda: slow.metric("vllm:num_requests_running") == 2, 20)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call


@pytest.mark.anyio
async def test_async(server):
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="x", _strict_response_validation=True) as c:
        r = await c.chat.completions.create(model="m", messages=M, max_tokens=5)
        assert r.choices


@pytest.fixture
def anyio_backend():
    return "asyncio"


def test_completions_of_editors_and_scorers(fim_server):
    """Fields that OpenAI's client knows or passes on (P2, P6, G12, G14, C6)."""
    c = openai.OpenAI(base_url=fim_server.url + "/v1", api_key="x")
    r = c.completions.create(model="m", prompt="def f(x):", suffix="return y", max_tokens=4, temperature=0)
    assert r.usage.prompt_tokens > 5 and r.choices[0].finish_reason in ("stop", "length")
    r = c.completions.create(model="m", prompt="Once", best_of=4, n=2, max_tokens=4, seed=1, extra_body={"prompt_logprobs": 1})
    assert [x.index for x in r.choices] == [0, 1] and r.choices[0].prompt_logprobs[0] is None
    got = list(c.chat.completions.create(model="m", messages=M + [{"role": "assistant", "content": "The"}], stream=True, max_tokens=30, temperature=0,
               stream_options={"include_usage": True, "continuous_usage_stats": True},
               extra_body={"continue_final_message": True, "echo": True, "timings_per_token": True, "return_progress": True}))
    assert got[1].prompt_progress["processed"] >= 0 and all(x.timings["predicted_n"] >= 0 and x.usage.total_tokens > 0 for x in got)
    assert "".join(x.choices[0].delta.content or "" for x in got if x.choices).startswith("The")
