"""litellm against a server whose address is argv[1], and for hanging up a slow one, argv[2]; its own process, since litellm
wants an older openai than the newest (API 19): plain, stream, the way round a tool, structured output, errors, hanging up,
on the dialects it knows us by."""
import asyncio
import json
import sys
import time
import urllib.request

import litellm
from pydantic import BaseModel

URL, SLOW = sys.argv[1:]
litellm.telemetry = False
CHAT = {"model": "openai/m", "api_base": URL + "/v1", "api_key": "none", "temperature": 0, "max_tokens": 200, "num_retries": 0,
        "extra_body": {"enable_thinking": False}}
ANTHROPIC = {"model": "anthropic/m", "api_base": URL, "api_key": "none", "temperature": 0, "max_tokens": 200, "num_retries": 0}
OLLAMA = {"model": "ollama_chat/m", "api_base": URL, "temperature": 0, "max_tokens": 200, "num_retries": 0}
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city"}}, "required": ["city"]}}}]


class Person(BaseModel):
    name: str
    age: int


def plain_and_stream(how):
    plain = litellm.completion(messages=CAPITAL, **how)
    assert "Paris" in plain.choices[0].message.content and plain.usage.completion_tokens > 0, plain
    text = "".join(e.choices[0].delta.content or "" for e in litellm.completion(messages=CAPITAL, stream=True, **how) if e.choices)
    assert text == plain.choices[0].message.content, text


def tool_loop(how):
    talk = [{"role": "user", "content": "What is the weather in Paris?"}]
    m = litellm.completion(messages=talk, tools=TOOLS, **how).choices[0].message
    (call,) = m.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}
    talk += [m.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"temperature": 18, "condition": "sunny"})}]
    answer = litellm.completion(messages=talk, tools=TOOLS, **how).choices[0].message
    assert not answer.tool_calls and "18" in answer.content, answer


def streamed_tools(how):
    talk = [{"role": "user", "content": "What is the weather in Paris?"}]
    events = list(litellm.completion(messages=talk, tools=TOOLS, stream=True, **how))
    (call,) = litellm.stream_chunk_builder(events, messages=talk).choices[0].message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}, call


def structured(how):
    r = litellm.completion(messages=[{"role": "user", "content": "Extract name, age as JSON: Anna is 31 years old."}],
                           response_format=Person, **how)
    assert Person.model_validate_json(r.choices[0].message.content) == Person(name="Anna", age=31)


def responses():
    r = litellm.responses(model="openai/m", api_base=URL + "/v1", api_key="none", input="What is the capital of France?", temperature=0,
                          extra_body={"enable_thinking": False})
    assert "Paris" in json.dumps(r.model_dump(mode="json"))


def thoughts():
    r = litellm.completion(messages=CAPITAL, **{**CHAT, "extra_body": {"enable_thinking": True}})
    assert r.choices[0].message.reasoning_content and "Paris" in r.choices[0].message.content


def errors(how):
    for bad, kind in (({"model": how["model"].replace("/m", "/zzz")}, (litellm.NotFoundError, litellm.APIConnectionError)),
                      ({"temperature": 9}, (litellm.BadRequestError, litellm.APIConnectionError))):
        try:
            litellm.completion(messages=CAPITAL, **{**how, **bad})
        except kind as e:
            # Of Ollama's errors litellm keeps the text alone.
            assert not isinstance(e, litellm.APIConnectionError) or how is OLLAMA, e
            assert "zzz" in str(e) or "temperature" in str(e), e
            continue
        raise AssertionError(kind)


def long_prompts():
    try:
        litellm.completion(messages=[{"role": "user", "content": "ab " * 20000}], **CHAT)
    except litellm.ContextWindowExceededError:
        return
    raise AssertionError("context window")


def metric(name, **labels):
    text = urllib.request.urlopen(SLOW + "/metrics").read().decode()
    want = "".join(f'{k}="{v}"' for k, v in labels.items())
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{") and want in line)


def wait_for(fn, limit):
    end = time.time() + limit
    while not fn():
        assert time.time() < end
        time.sleep(0.05)


def aborted():
    return metric("vllm:request_success_total", finished_reason="abort")


def hang_up(how):
    """A task that is cancelled, and for chat a stream that is closed: the server counts the request as aborted and runs
    nothing any more (H14)."""
    form = {"type": "object", "properties": {"a": {"type": "string", "minLength": 5000}}, "required": ["a"]}
    how = {**how, "api_base": how["api_base"].replace(URL, SLOW), "max_tokens": 1500, "messages": CAPITAL,
           "response_format": {"type": "json_schema", "json_schema": {"name": "long", "schema": form}}}

    async def cancelled():
        call = asyncio.create_task(litellm.acompletion(**how))
        await asyncio.to_thread(wait_for, lambda: metric("vllm:num_requests_running") == 1, 20)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return
        raise AssertionError("it ended")

    wait_for(lambda: metric("vllm:num_requests_running") == 0, 5)
    before = aborted()
    asyncio.run(cancelled())
    wait_for(lambda: aborted() == before + 1, 5)
    if how["model"].startswith("openai"):
        s = litellm.completion(stream=True, **how)
        next(iter(s))
        s.completion_stream.response.close()
        wait_for(lambda: aborted() == before + 2, 5)
    wait_for(lambda: metric("vllm:num_requests_running") == 0, 5)


DIALECTS = {"chat": CHAT, "anthropic": ANTHROPIC, "ollama": OLLAMA}
for name, case, args in [*((f"{what} {d}", case, [how]) for d, how in DIALECTS.items() for what, case in (
                             ("plain", plain_and_stream), ("tools", tool_loop), ("streamed tools", streamed_tools), ("structured", structured),
                             ("errors", errors), ("hang up", hang_up))),
                         ("responses", responses, []), ("thoughts", thoughts, []), ("long prompts", long_prompts, [])]:
    try:
        case(*args)
        print("ok", name, flush=True)
    except Exception as e:  # one line a case: the test names those that are missing
        print("FAILED", name, type(e).__name__, str(e)[:400].replace("\n", " "), flush=True)
