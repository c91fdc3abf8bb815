"""pydantic-ai agents (API 19): plain, stream, the way round a tool, every kind of structured output, errors, cancelled
runs; over chat and over responses."""
import asyncio

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from conftest import stopped, wait_for

pytestmark = pytest.mark.anyio
COLD = {"temperature": 0, "max_tokens": 300, "extra_body": {"enable_thinking": False}}
PERSON = "Extract name, age as JSON: Anna is 31 years old."


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel], ids=["chat", "responses"])
def kind(request):
    return request.param


def connect(kind, s, name="m"):
    return kind(name, provider=OpenAIProvider(base_url=s.url + "/v1", api_key="none"))


@pytest.fixture
def model(server, kind):
    return connect(kind, server)


async def test_plain_and_stream(model):
    agent = Agent(model, model_settings=COLD)
    plain = await agent.run("What is the capital of France?")
    assert "Paris" in plain.output and plain.usage.output_tokens > 0
    async with agent.run_stream("What is the capital of France?") as run:
        pieces = [t async for t in run.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == plain.output


async def test_tool_loop(model):
    asked = []
    agent = Agent(model, model_settings=COLD)

    @agent.tool_plain
    def get_weather(city: str) -> dict:
        """Get the weather in a city"""
        asked.append(city)
        return {"temperature": 18, "condition": "sunny"}

    r = await agent.run("What is the weather in Paris?")
    assert asked == ["Paris"] and "18" in r.output and "sunny" in r.output


@pytest.mark.parametrize("form", [NativeOutput, ToolOutput, PromptedOutput])
async def test_structured_output(model, form):
    r = await Agent(model, model_settings=COLD, output_type=form(Person)).run(PERSON)
    assert r.output == Person(name="Anna", age=31)


async def test_streamed_tool_loop(model):
    agent = Agent(model, model_settings=COLD)

    @agent.tool_plain
    def get_weather(city: str) -> dict:
        """Get the weather in a city"""
        return {"temperature": 18, "condition": "sunny"}

    async with agent.run_stream("What is the weather in Paris?") as run:
        said = await run.get_output()
    assert "18" in said and "sunny" in said


async def test_errors(server, kind, model):
    with pytest.raises(ModelHTTPError) as e:
        await Agent(connect(kind, server, "zzz")).run("hi")
    assert e.value.status_code == 404 and e.value.body["code"] == "model_not_found"
    for settings, words, code in (({"temperature": 9}, "hi", "invalid_value"), (COLD, "ab " * 20000, "context_length_exceeded")):
        with pytest.raises(ModelHTTPError) as e:
            await Agent(model, model_settings=settings).run(words)
        assert e.value.status_code == 400 and e.value.body["code"] == code


@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelled_runs(slow, kind, streamed):
    """H14: a run that is cancelled, plain or in the middle of its stream, stops the server."""
    agent = Agent(connect(kind, slow), model_settings={"max_tokens": 1500, "extra_body": {"ignore_eos": True, "enable_thinking": False}})

    begun = asyncio.Event()

    async def run():
        if not streamed:
            return await agent.run("Count to 10.")
        async with agent.run_stream("Count to 10.") as r:
            async for _ in r.stream_text(delta=True, debounce_by=None):
                begun.set()

    with stopped(slow):
        call = asyncio.create_task(run())
        assert await asyncio.to_thread(wait_for, lambda: slow.metric("vllm:num_requests_running") == 1, 20)
        if streamed:
            await asyncio.wait_for(begun.wait(), 20)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
