"""--tool-format: calls written and read as the operator says (API T2, T3, T7-T9, T11), in every dialect with its official client."""
import json
import subprocess

import anthropic
import httpx
import ollama
import openai
import pytest

from conftest import BIN, Server

SCHEMA = {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "does it", "parameters": SCHEMA, "strict": True}},
         {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}]
FLOWER = "✿"
CALL, ARGS, RESULT, RETURN = (f"{FLOWER}{w}{FLOWER}:" for w in ("FUNCTION", "ARGS", "RESULT", "RETURN"))
WRITTEN = {  # format -> what the prompt says of a tool, of a call, of its result, its end, and a text that is a call
    "react": ("Action: the tool to use, one of [f, g]", 'Thought:\nAction: f\nAction Input: {"x": 1}', "\nObservation: seven", "\nThought:",
              'Thought: look\nAction: f\nAction Input: {"x": 1}\nObservation: made up'),
    "function": (f"{CALL} the tool to use, one of [f,g]", f'{CALL} f\n{ARGS} {{"x": 1}}', f"\n{RESULT} seven", f"\n{RETURN}",
                 f'look\n{CALL} f\n{ARGS} {{"x": 1}}\n{RESULT} made up'),
    "hermes": ("<tools>", '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>', "<tool_response>\nseven\n</tool_response>",
               "<think>\n\n</think>\n\n", 'look\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'),
    "qwen3_coder": ("<tools>", '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>', "<tool_response>\nseven\n</tool_response>",
                    "<think>\n\n</think>\n\n", "look\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>"),
}
LINES = {  # format -> a call, a second round of two calls, an answer: the second and third behind results
    "react": (WRITTEN["react"][4], ' more\nAction: g\nAction Input: {}\nAction: f\nAction Input: {"x": 2}\nObservation:', " I know.\nFinal Answer: it is\n7"),
    "function": (WRITTEN["function"][4], f' more\n{CALL} g\n{ARGS} {{}}\n{CALL} f\n{ARGS} {{"x": 2}}\n{RETURN} made up', " I know.\nit is\n7"),
}


def options(form):
    """The labelled forms with the template of the checkpoints they are for."""
    return ("--tool-format", form, *(("--chat-template", "tests/data/templates/Qwen2-Instruct.jinja") if form in LINES else ()))


@pytest.fixture(scope="module")
def speaking():
    """Servers by their --tool-format, each started once."""
    made = {}

    def get(form):
        if form not in made:
            made[form] = Server(*options(form))
        return made[form]

    yield get
    for s in made.values():
        assert s.proc.poll() is None and s.stop() == 0, "".join(s.lines[-40:])


@pytest.mark.parametrize("form", WRITTEN)
def test_written_and_read(speaking, form):
    told, call, result, end, text = WRITTEN[form]
    s = speaking(form)
    talk = {"model": "m", "tools": TOOLS, "enable_thinking": False, "messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
        {"role": "tool", "content": "seven"}]}
    prompt = s.post("/apply-template", talk).json()["prompt"]
    assert told in prompt and call in prompt and result in prompt and prompt.endswith(end)
    p = subprocess.run([BIN, "render", "models/demo", *options(form)], input=json.dumps(talk).encode(), capture_output=True)
    assert p.stdout.decode() == prompt
    ask = {**talk, "messages": talk["messages"][:1]}
    body = {**ask, "structured_outputs": {"choice": [text]}, "max_tokens": 300, "temperature": 0}
    c = s.post("/v1/chat/completions", body).json()["choices"][0]
    (got,) = c["message"]["tool_calls"]
    assert got["function"] == {"name": "f", "arguments": '{"x": 1}'} and c["message"]["content"] == "look" and c["finish_reason"] == "tool_calls"
    # Without tools nothing is told, and nothing is parsed.
    plain = {**body, "tools": []}
    assert told not in s.post("/apply-template", plain).json()["prompt"]
    assert s.post("/v1/chat/completions", plain).json()["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("form", WRITTEN)
def test_required_call(speaking, form, after):
    """T4: a call that must be made is one in this form, at the first step and behind results; its arguments have an end."""
    s = speaking(form)
    opener = {"react": "Action:", "function": CALL}.get(form, "<tool_call>")
    talk = [{"role": "user", "content": "go"}]
    if after:
        talk += [{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "g", "arguments": "{}"}}]},
                 {"role": "tool", "content": "seven"}]
    r = s.chat(messages=talk, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "f"}}, max_tokens=400, temperature=0,
               enable_thinking=False, return_token_ids=True).json()["choices"][0]
    (call,) = r["message"]["tool_calls"]
    assert r["finish_reason"] == "tool_calls" and r["message"]["content"] is None and call["function"]["name"] == "f"
    assert json.loads(call["function"]["arguments"])["x"] in (1, 2)
    text = s.post("/detokenize", {"tokens": r["token_ids"]}).json()["content"]
    assert text.lstrip().startswith(opener), text


def test_no_format_leaves_calls_as_text(speaking):
    s = speaking("none")
    text = WRITTEN["hermes"][4]
    r = s.chat(tools=TOOLS, structured_outputs={"choice": [text]}, max_tokens=300, enable_thinking=False).json()["choices"][0]
    assert r["message"]["content"] == text and "tool_calls" not in r["message"] and r["finish_reason"] == "stop"
    assert s.chat(tools=TOOLS, tool_choice="required").status_code == 400
    assert subprocess.run([BIN, "serve", "--tool-format", "fancy"], capture_output=True).returncode == 2


@pytest.mark.parametrize("form", LINES)
def test_banned_calls(speaking, form):
    """T3: with tool_choice none this format's opener is banned, and an answer is due behind results."""
    s = speaking(form)
    opener = {"react": "Action", "function": CALL[:-1]}[form]
    (colon,) = s.post("/tokenize", {"content": ":"}).json()["tokens"]
    body = dict(tools=TOOLS, tool_choice="none", temperature=0, enable_thinking=False, max_tokens=40)
    ask = dict(structured_outputs={"regex": f"{opener}(:|x)"}, logit_bias={str(colon): 50})
    assert s.chat(**{**body, **ask, "tools": [], "tool_choice": None}).json()["choices"][0]["message"]["content"] == opener + ":"
    assert s.chat(**body, **ask).json()["choices"][0]["message"]["content"] == opener + "x"
    talk = {"model": "m", **body, "messages": [{"role": "user", "content": "go"}, {"role": "tool", "content": "7"}]}
    assert s.post("/apply-template", talk).json()["prompt"].endswith({"react": "Final Answer: ", "function": RETURN + " "}[form])
    first = {**talk, "messages": talk["messages"][:1]}
    cue = {"react": "Thought: I now know the final answer.\nFinal Answer: ", "function": ""}[form]
    assert s.post("/apply-template", first).json()["prompt"].endswith("assistant\n" + cue)
    for ask in (talk, first):  # K2
        assert s.post("/tokenize", ask).json()["count"] == s.post("/v1/chat/completions", ask).json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize("form", LINES)
def test_offline(form, tmp_path):
    """T11: quern parse-output reads what follows a result the same way."""
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(TOOLS))
    for split in ("0", "1"):
        for text, content, calls in ((LINES[form][1], "more", ["g", "f"]), (LINES[form][2], "I know.\nit is\n7", [])):
            p = subprocess.run([BIN, "parse-output", "--format", form, "--after-label", "--tools", tools, "--split", split], input=text.encode(), capture_output=True)
            got = json.loads(p.stdout)
            assert got["content"] == content and [c["name"] for c in got["tool_calls"]] == calls


# ---- a tool loop in every dialect: what a client hands out is what the model meant --------------------------------------


class Forcing(httpx.HTTPTransport):
    """The text that the model has to say; as a transport it puts it into requests of a client that takes no further fields."""
    text = None

    def fields(self):
        return {"structured_outputs": {"choice": [self.text]}, "enable_thinking": False, "temperature": 0}

    def handle_request(self, request):
        content = json.dumps({**json.loads(request.read()), **self.fields()}).encode()
        headers = {k: v for k, v in request.headers.items() if k.lower() != "content-length"}
        return super().handle_request(httpx.Request(request.method, request.url, headers=headers, content=content, extensions=request.extensions))


class Chat:
    """A step returns the text, the calls as (id, name, arguments), and why it ended."""
    ends = ("tool_calls", "stop")

    def __init__(self, url, force):
        self.client = openai.OpenAI(base_url=url + "/v1", api_key="none", _strict_response_validation=True, max_retries=0)
        self.force = force
        self.talk = [{"role": "user", "content": "go"}]

    def step(self, stream):
        ask = dict(model="m", messages=self.talk, tools=TOOLS, max_tokens=400, extra_body=self.force.fields())
        if not stream:
            c = self.client.chat.completions.create(**ask).choices[0]
            self.said = c.message
            return c.message.content, [(t.id, t.function.name, t.function.arguments) for t in c.message.tool_calls or []], c.finish_reason
        text, calls, finish = None, [], None
        for e in self.client.chat.completions.create(**ask, stream=True):
            d = e.choices[0].delta
            assert finish is None
            finish = e.choices[0].finish_reason
            text = (text or "") + d.content if d.content else text
            for t in d.tool_calls or []:
                if t.id:
                    assert t.index == len(calls) and t.type == "function"
                    calls.append([t.id, t.function.name, ""])
                calls[t.index][2] += t.function.arguments
        return text, [tuple(c) for c in calls], finish

    def result(self, calls, values):
        self.talk.append(self.said.model_dump(exclude_none=True))
        self.talk += [{"role": "tool", "tool_call_id": i, "content": v} for (i, _, _), v in zip(calls, values)]


class Responses(Chat):
    ends = ("completed", "completed")

    def step(self, stream):
        ask = dict(model="m", input=self.talk, tools=[{"type": "function", **t["function"]} for t in TOOLS], max_output_tokens=400,
                   extra_body=self.force.fields())
        if stream:
            with self.client.responses.stream(**ask) as s:
                kinds = [e.type for e in s]
                r = s.get_final_response()
            assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == len(r.output)
        else:
            r = self.client.responses.create(**ask)
        self.said = r.output
        return r.output_text or None, [(o.call_id, o.name, o.arguments) for o in r.output if o.type == "function_call"], r.status

    def result(self, calls, values):
        self.talk += [o.model_dump(exclude_none=True) for o in self.said]
        self.talk += [{"type": "function_call_output", "call_id": i, "output": v} for (i, _, _), v in zip(calls, values)]


class Messages:
    ends = ("tool_use", "end_turn")

    def __init__(self, url, force):
        self.client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
        self.force = force
        self.talk = [{"role": "user", "content": "go"}]

    def step(self, stream):
        tools = [{"name": f["name"], "description": f.get("description", ""), "input_schema": f["parameters"]} for f in (t["function"] for t in TOOLS)]
        ask = dict(model="m", messages=self.talk, tools=tools, max_tokens=400, extra_body=self.force.fields())
        if stream:
            with self.client.messages.stream(**ask) as s:
                r = s.get_final_message()
        else:
            r = self.client.messages.create(**ask)
        self.said = r.content
        return "".join(b.text for b in r.content if b.type == "text") or None, \
            [(b.id, b.name, json.dumps(b.input)) for b in r.content if b.type == "tool_use"], r.stop_reason

    def result(self, calls, values):
        self.talk += [{"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in self.said]},
                      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": i, "content": v} for (i, _, _), v in zip(calls, values)]}]


class Ollama:
    ends = ("stop", "stop")

    def __init__(self, url, force):
        self.client = ollama.Client(host=url, transport=force)
        self.talk = [{"role": "user", "content": "go"}]

    def step(self, stream):
        ask = dict(model="m", messages=self.talk, tools=TOOLS, options={"num_predict": 400})
        if stream:
            parts = list(self.client.chat(**ask, stream=True))
            text = "".join(p.message.content or "" for p in parts)
            calls = [c for p in parts for c in p.message.tool_calls or []]
            end = parts[-1]
        else:
            end = self.client.chat(**ask)
            self.said, text, calls = end.message, end.message.content, end.message.tool_calls or []
        return text or None, [(None, c.function.name, json.dumps(dict(c.function.arguments))) for c in calls], end.done_reason

    def result(self, calls, values):
        self.talk.append(self.said)
        self.talk += [{"role": "tool", "tool_name": n, "content": v} for (_, n, _), v in zip(calls, values)]


@pytest.mark.parametrize("dialect", [Chat, Responses, Messages, Ollama])
@pytest.mark.parametrize("form", LINES)
def test_loop(speaking, form, dialect):
    """G17, G20: call, two calls at once behind its result, answer behind theirs; streams say the same; the turn is one (T2)."""
    s, force = speaking(form), Forcing()
    client = dialect(s.url, force)
    rounds = [("look", [("f", {"x": 1})], ["seven"]), ("more", [("g", {}), ("f", {"x": 2})], ["8", "nine"]), ("I know.\nit is\n7", [], [])]
    ids = []
    for force.text, (text, want, results) in zip(LINES[form], rounds):
        plain, streamed = client.step(False), client.step(True)
        for got_text, got, end in (plain, streamed):
            assert got_text == text and end == client.ends[not want]
            assert [(n, json.loads(a)) for _, n, a in got] == want
        client.result(plain[1], results)
        ids += [i for i, _, _ in plain[1] + streamed[1] if i]
    assert len(set(ids)) == len(ids)
