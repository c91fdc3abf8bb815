"""litellm against a server whose address is argv[1]; its own process, since litellm wants an older openai than the newest
(API 19): plain, stream, the way round a tool, structured output, errors, hanging up, on the dialects it knows us by."""
import json
import sys

import litellm
from pydantic import BaseModel

URL = sys.argv[1]
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


def structured():
    r = litellm.completion(messages=[{"role": "user", "content": "Extract name, age as JSON: Anna is 31 years old."}],
                           response_format=Person, **CHAT)
    assert Person.model_validate_json(r.choices[0].message.content) == Person(name="Anna", age=31)


def responses():
    r = litellm.responses(model="openai/m", api_base=URL + "/v1", api_key="none", input="What is the capital of France?", temperature=0,
                          extra_body={"enable_thinking": False})
    assert "Paris" in json.dumps(r.model_dump(mode="json"))


def thoughts():
    r = litellm.completion(messages=CAPITAL, **{**CHAT, "extra_body": {"enable_thinking": True}})
    assert r.choices[0].message.reasoning_content and "Paris" in r.choices[0].message.content


def errors():
    for how, kind in (({**CHAT, "model": "openai/zzz"}, litellm.NotFoundError), ({**CHAT, "temperature": 9}, litellm.BadRequestError)):
        try:
            litellm.completion(messages=CAPITAL, **how)
        except kind:
            continue
        raise AssertionError(kind)
    try:
        litellm.completion(messages=[{"role": "user", "content": "ab " * 20000}], **CHAT)
    except litellm.ContextWindowExceededError:
        return
    raise AssertionError("context window")


def hang_up():
    s = litellm.completion(messages=CAPITAL, stream=True, **{**CHAT, "max_tokens": 1500, "extra_body": {"ignore_eos": True}})
    next(iter(s))
    s.completion_stream.response.close()


for name, case, args in [("chat", plain_and_stream, [CHAT]), ("anthropic", plain_and_stream, [ANTHROPIC]), ("ollama", plain_and_stream, [OLLAMA]),
                         ("tools chat", tool_loop, [CHAT]), ("tools anthropic", tool_loop, [ANTHROPIC]), ("tools ollama", tool_loop, [OLLAMA]),
                         ("structured", structured, []), ("responses", responses, []), ("thoughts", thoughts, []), ("errors", errors, []),
                         ("hang up", hang_up, [])]:
    try:
        case(*args)
        print("ok", name, flush=True)
    except Exception as e:  # one line a case: the test names those that are missing
        print("FAILED", name, type(e).__name__, str(e)[:400].replace("\n", " "), flush=True)
