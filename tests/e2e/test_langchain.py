"""LangChain's ChatOpenAI (API 19): plain, stream, the way round a tool, structured output, errors, hanging up."""
import asyncio
import itertools

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings  # noqa: F401  (the import is what users write)
from pydantic import BaseModel

from conftest import stopped, wait_for

WEATHER = "What is the weather in Paris?"


@tool
def get_weather(city: str) -> dict:
    """Get the weather in a city"""
    return {"temperature": 18, "condition": "sunny"}


class Person(BaseModel):
    """A person."""
    name: str
    age: int


@pytest.fixture(scope="module")
def model(server):
    return ChatOpenAI(model="m", base_url=server.url + "/v1", api_key="none", temperature=0, max_retries=0, max_tokens=200,
                      stream_usage=True, extra_body={"enable_thinking": False})


def test_plain_and_stream(model):
    plain = model.invoke("What is the capital of France?")
    assert "Paris" in plain.content and plain.usage_metadata["output_tokens"] > 0
    assert plain.response_metadata["finish_reason"] == "stop"
    whole = None
    for chunk in model.stream("What is the capital of France?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == plain.content and whole.usage_metadata["output_tokens"] == plain.usage_metadata["output_tokens"]


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_loop(model, streamed):
    bound = model.bind_tools([get_weather])

    def ask(talk):
        if not streamed:
            return bound.invoke(talk)
        whole = None
        for chunk in bound.stream(talk):
            whole = chunk if whole is None else whole + chunk
        return whole

    talk = [HumanMessage(WEATHER)]
    first = ask(talk)
    assert [(c["name"], c["args"]) for c in first.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert first.response_metadata["finish_reason"] == "tool_calls"
    talk.append(first)
    talk += [ToolMessage(get_weather.invoke(c["args"]).__repr__().replace("'", '"'), tool_call_id=c["id"]) for c in first.tool_calls]
    answer = ask(talk)
    assert not answer.tool_calls and "18" in answer.content and "sunny" in answer.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(model, method):
    got = model.with_structured_output(Person, method=method).invoke("Extract name, age as JSON: Anna is 31 years old.")
    assert got == Person(name="Anna", age=31)


def test_forced_tool(model):
    got = model.bind_tools([get_weather], tool_choice="get_weather").invoke("Hello!")
    assert [c["name"] for c in got.tool_calls] == ["get_weather"] and not got.content
    got = model.bind_tools([get_weather], tool_choice="required").invoke("Hello!")
    assert got.tool_calls


def test_errors(server):
    bad = ChatOpenAI(model="zzz", base_url=server.url + "/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError):
        bad.invoke("hi")
    with pytest.raises(openai.BadRequestError) as e:
        ChatOpenAI(model="m", base_url=server.url + "/v1", api_key="none", max_retries=0).invoke("ab " * 20000)
    assert e.value.code == "context_length_exceeded"


def test_hang_up(slow):
    model = ChatOpenAI(model="m", base_url=slow.url + "/v1", api_key="none", max_retries=0, max_tokens=1500, extra_body={"ignore_eos": True})
    with stopped(slow):
        s = model.stream("Count to 10.")
        assert list(itertools.islice(s, 3))
        s.close()
    assert model.invoke("Hello!", max_tokens=3).usage_metadata["output_tokens"] == 3


@pytest.mark.anyio
async def test_cancelled_task(slow):
    model = ChatOpenAI(model="m", base_url=slow.url + "/v1", api_key="none", max_retries=0, max_tokens=1500, extra_body={"ignore_eos": True})
    with stopped(slow):
        call = asyncio.create_task(model.ainvoke("Count to 10."))
        assert await asyncio.to_thread(wait_for, lambda: slow.metric("vllm:num_requests_running") == 1, 20)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.fixture
def anyio_backend():
    return "asyncio"
