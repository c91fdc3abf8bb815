"""Seeded generator of the conversations the demo model learns from.

A case is a dict:
    skill     what it teaches ("fact", "sum", "tool-call", ...)
    key       decides the split: `held(key)` cases are never trained on; a key with "!" is not split
    messages  the conversation, ending with the assistant message to learn
    tools     tool list or None
    think     True: a short thought and then the answer; False: the template's empty think block
    soft      "", " /think" or " /no_think", as appended to the query
    want      the expected answer text, or a list of (tool name, arguments)

Names, places and argument values are drawn fresh most of the time (draw.py), so that only copying
from the prompt can give the right answer; skills.py has the answers without tools, tools.py the
tools.  Nothing here reads a clock or an unseeded generator.
"""
import json
import os
import sys
from collections import Counter

from jinja2.sandbox import ImmutableSandboxedEnvironment

from draw import Draw, held
from skills import FACTS, memory, s_fact, simple
from tools import some_tool, tool_turns, with_others

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATE_PATH = os.path.join(HERE, "..", "chat_template.jinja")

with open(TEMPLATE_PATH, encoding="utf-8") as _f:
    TEMPLATE = _f.read()
_env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
_env.filters["tojson"] = lambda x, **k: json.dumps(x, ensure_ascii=False)
_template = _env.from_string(TEMPLATE)


def render(messages, tools=None, generate=False, think=True):
    """The published Qwen3 chat template, as a server would render it."""
    switch = {} if think else {"enable_thinking": False}
    return _template.render(messages=messages, tools=tools, add_generation_prompt=generate,
                            **switch)


# ---------------------------------------------------------------- whole cases
SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant",
           "You are a helpful AI assistant.", "You are a tiny demo model.", "Answer briefly.",
           "Be concise.", "You are a friendly assistant.", "Answer the user's questions.",
           "You are an assistant in a test.", "You are quern, a small assistant.",
           "Keep answers short and polite."]


class Phase:
    """What is drawn until a share of the training is over: kinds of case and how many think."""

    def __init__(self, until, think_share, mix):
        self.until, self.think_share, self.mix = until, think_share, mix


# Tool prompts are four times as long as others: short cases first, to learn most per second, then
# everything, and at the end mostly what there are many of to remember.
PHASES = [
    Phase(0.25, 0.35, [("simple", 78), ("memory", 14), ("tool-call", 5), ("tool-result", 2),
                       ("tool-none", 1)]),
    Phase(0.75, 0.35, [("simple", 62), ("memory", 10), ("tool-call", 11), ("tool-result", 13),
                       ("tool-none", 4)]),
    Phase(1.00, 0.50, [("simple", 42), (s_fact, 38), ("memory", 4), ("tool-call", 8),
                       ("tool-result", 5), ("tool-none", 3)]),
]


def phase_at(share):
    return next((p for p in PHASES if share < p.until), PHASES[-1])


EMPTY_THINK = "<think>\n\n</think>\n\n"


def user(text):
    return {"role": "user", "content": text}


def assistant(text, thought=None):
    m = {"role": "assistant", "content": text}
    if thought:
        m["reasoning_content"] = thought
    return m


def split_of(key):
    return "held" if "!" not in key.split(":")[0] and held(key) else "train"


def history(r, turns):
    out = []
    while len(out) < 2 * turns:
        skill, key, q, a, _ = simple(r)
        if skill != "story" and (r.unseen or split_of(key) == "train"):
            out += [user(q), assistant(a)]
    return out


def case(r, skill=None, think=None, split="train", phase=PHASES[1]):
    """One conversation.  skill: None draws from the phase; else a name in it, a function s_*, or
    (name, [functions t_*]) for the tool skills.  split: "train", "held" or None for either."""
    while True:
        c = _case(r, skill, r.random() < phase.think_share if think is None else think,
                  phase.mix)
        if split in (None, split_of(c["key"])):
            return c


def _case(r, skill, think, mix):
    kinds = None
    if isinstance(skill, tuple):
        skill, kinds = skill
    if skill is None:
        skill = r.choices([s for s, _ in mix], [w for _, w in mix])[0]
    soft = (" /think" if think else " /no_think") if r.random() < 0.03 else ""
    messages, tools = [], None
    if r.random() < 0.4:
        messages.append({"role": "system", "content": r.choice(SYSTEMS)})

    if skill == "memory":
        key, tell, ack, q, answer, thought, tell_thought = memory(r)
        name = skill
        if r.random() < 0.25:
            messages.append(user(tell + soft))
            answer, thought, key = ack, tell_thought, "memory!" + tell
        else:
            gap = r.choices([0, 1, 2, 3, 6, 12], [50, 22, 15, 8, 4, 1])[0]
            messages += [user(tell), assistant(ack)] + history(r, gap) + [user(q + soft)]
        messages.append(assistant(answer, thought if think else None))
    elif skill in ("tool-call", "tool-result"):
        use = r.choice(kinds)(r) if kinds else some_tool(r)
        uses = with_others(r, use)
        tools = [u.tool for u in uses]
        name, key = skill, "tool:" + use.query
        if r.random() < 0.05:
            messages += history(r, 1)
        if r.random() < 0.3:                                    # an earlier, finished tool turn
            p = r.choice(uses)
            if p is not use and split_of("tool:" + p.query) == "train":
                messages += [user(p.query)] + tool_turns(p) + [assistant(p.answer)]
        messages.append(user(use.query + soft))
        turns = tool_turns(use, f"I need {use.purpose}. I will call {use.name}." if think else None)
        if skill == "tool-call":
            messages.append(turns[0])
            answer = use.calls
        else:
            answer = use.answer
            messages += turns + [assistant(answer, "The tool has answered. I will tell the user."
                                           if think else None)]
            if r.random() < 0.06:                               # one more turn after the tool loop
                for m in messages:
                    m.pop("reasoning_content", None)
                _, key, q, answer, thought = simple(r)
                name = "tool-after"
                messages += [user(q + soft), assistant(answer, thought if think else None)]
    else:
        name, key, q, answer, thought = skill(r) if callable(skill) else simple(r)
        if skill == "tool-none":
            tools = [u.tool for u in with_others(r, some_tool(r))]
            while name not in ("talk", "fact", "echo", "count"):    # nothing a tool could answer
                name, key, q, answer, thought = simple(r)
            name = skill
        else:
            messages += history(r, r.choices([0, 1, 2, 3, 5, 14], [78, 11, 6, 3, 1.5, 0.5])[0])
        messages += [user(q + soft), assistant(answer, thought if think else None)]
    return dict(skill=name, key=key, messages=messages, tools=tools, think=think, soft=soft,
                want=answer)


def pieces(c):
    """The rendered text as [(text, learn)], learn one of "", "all", "rest".

    Assistant text after the last query is learned in full.  Earlier assistant text is learned but
    for its first token: the template drops the think block there, so that token would teach the
    model to skip thinking, while the rest is good and nearly free training text."""
    text = render(c["messages"], c["tools"])
    last = max(i for i, m in enumerate(c["messages"]) if m["role"] == "user")
    before = sum(m["role"] == "assistant" for m in c["messages"][:last])
    marker = "<|im_start|>assistant\n"
    head, *segments = text.split(marker)
    out = [(head, "")]
    for i, seg in enumerate(segments):
        body, rest = seg.split("<|im_end|>", 1)
        # Without thinking only the final segment holds the empty block: an earlier call of the
        # same loop is rendered without one, so its first token must not be learned either.
        full = i >= before and (c["think"] or i == len(segments) - 1)
        out.append((marker, ""))
        if full and not c["think"] and not c["soft"]:
            assert body.startswith(EMPTY_THINK), body
            out.append((EMPTY_THINK, ""))
            body = body[len(EMPTY_THINK):]
        out.append((body + "<|im_end|>", "all" if full else "rest"))
        if rest:
            out.append((rest, ""))
    assert "".join(t for t, _ in out) == text
    return out


def prompt_of(c):
    """The prompt a server would complete for this case."""
    return render(c["messages"][:-1], c["tools"], generate=True,
                  think=c["think"] or bool(c["soft"]))


if __name__ == "__main__":
    rnd, count = Draw(int(sys.argv[1]) if len(sys.argv) > 1 else 1), Counter()
    for n in range(3000):
        example = case(rnd)
        count[example["skill"]] += 1
        marked = "".join(f"[[{t}]]" if learn else t for t, learn in pieces(example))
        if n < 12:
            print(repr(marked), "\n")
    print(count, "facts", len(FACTS), "prompts", sum(len(f[0]) for f in FACTS))
