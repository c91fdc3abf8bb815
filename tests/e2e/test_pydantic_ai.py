"""pydantic-ai agents (API 19): plain, stream, the way round a tool, every kind of structured output, errors."""
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

pytestmark = pytest.mark.anyio
COLD = {"temperature": 0, "max_tokens": 300, "extra_body": {"enable_thinking": False}}
PERSON = "Extract name, age as JSON: Anna is 31 years old."


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=["chat", "responses"])
def model(server, request):
    kind = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}[request.param]
    return kind("m", provider=OpenAIProvider(base_url=server.url + "/v1", api_key="none"))


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


async def test_errors(server):
    m = OpenAIChatModel("zzz", provider=OpenAIProvider(base_url=server.url + "/v1", api_key="none"))
    with pytest.raises(ModelHTTPError) as e:
        await Agent(m).run("hi")
    assert e.value.status_code == 404 and e.value.body["code"] == "model_not_found"
