"""Seeded generator of the conversations the demo model learns from.

A case is a dict:
    skill     what it teaches ("fact", "sum", "tool-call", ...)
    key       decides the split: `held(key)` cases are never trained on; a key with "!" is not split
    messages  the conversation, ending with the assistant message to learn
    tools     tool list or None
    think     True: a short thought and then the answer; False: the template's empty think block
    soft      "", " /think" or " /no_think", as appended to the query
    want      the expected answer text, or a list of (tool name, arguments)

Names, places and argument values are drawn fresh most of the time (`Draw`), so that only copying
from the prompt can give the right answer.  Nothing here reads a clock or an unseeded generator.
"""
import json
import os
import random
import sys
import zlib
from collections import Counter

from jinja2.sandbox import ImmutableSandboxedEnvironment

from facts import *

HOLD = 12                       # one key in HOLD is held out
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


def held(key):
    return zlib.crc32(key.encode()) % HOLD == 0


def to_json(x):
    return json.dumps(x, ensure_ascii=False)


def capitalised(s):
    return s[0].upper() + s[1:]


def with_article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


# ---------------------------------------------------------------- fresh strings
ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fr gr pr tr st sh ch th bl cl pl qu".split()
VOWELS = "a e i o u a e i o u ai ea ee io ou ia y".split()
CODAS = [""] * 9 + "n r l s t m d ck nd rt ll ng".split()
KEPT_BACK = set(NAMES_HELD + CITIES_HELD)
TABLE_WORDS = [w for w in NAMES + CITIES if w.isalpha() and w.isascii()] + SPELL


class Draw(random.Random):
    """Seeded randomness plus invented words.  `unseen` makes every name, place and word one that
    training never shows: a held-out invention or an entry of the tables kept back for scoring."""

    def __init__(self, seed, unseen=False):
        super().__init__(seed)
        self.unseen = unseen

    def invent(self):
        """A lower-case invented word: syllables, or the halves of two table words."""
        while True:
            if self.random() < 0.65:
                w = "".join(self.choice(ONSETS) + self.choice(VOWELS) + self.choice(CODAS)
                            for _ in range(self.choices([1, 2, 3], [1, 6, 3])[0]))
                if self.random() < 0.15:
                    w = self.choice("aeiou") + w
            else:
                a, b = self.choice(TABLE_WORDS).lower(), self.choice(TABLE_WORDS).lower()
                w = a[:self.randint(2, 4)] + b[-self.randint(2, 4):]
            if (len(w) >= 3 and held("word:" + w) == self.unseen
                    and capitalised(w) not in KEPT_BACK):
                return w

    def word(self):
        if self.unseen or self.random() < 0.7:
            return self.invent()
        return self.choice(SPELL)

    def name(self):
        if self.unseen:
            return self.choice(NAMES_HELD) if self.random() < 0.5 else capitalised(self.invent())
        return self.choice(NAMES) if self.random() < 0.4 else capitalised(self.invent())

    def place(self):
        if self.unseen:
            return self.choice(CITIES_HELD) if self.random() < 0.5 else capitalised(self.invent())
        x = self.random()
        if x < 0.42:
            return self.choice(CITIES)
        if x < 0.48:
            return self.choice(["New", "San", "Port", "Saint", "Lake"]) + " " + capitalised(self.invent())
        return capitalised(self.invent())

    def phrase(self):
        return " ".join(self.choice(p) for p in (PHRASES_A, PHRASES_B, PHRASES_C, PHRASES_D))

    def one_of(self, text):
        """One of the |-separated alternatives."""
        return self.choice(text.split("|"))


# ---------------------------------------------------------------- facts
def _facts():
    """[(prompts, answer, thought)]: every fact with all the ways it may be asked."""
    out = []

    def add(prompts, answer, thought):
        out.append((prompts, answer, thought))

    for c, k in COUNTRIES:
        add([p.format(c=c) for p in (
            "What is the capital of {c}?", "What's the capital of {c}?", "Capital of {c}?",
            "Tell me the capital of {c}.", "Which city is the capital of {c}?",
            "Name the capital of {c}.", "what is the capital of {c}")],
            f"The capital of {c} is {k}.", f"This is about {c}. Its capital is {k}.")
    for t, c in COLOURS:
        add([f"What colour is {t}?", f"What color is {t}?", f"Which colour is {t}?",
             f"Tell me the colour of {t}."],
            f"{capitalised(t)} is {c}.", f"I think of {t}. It is {c}.")
    for pair in OPPOSITES:
        for x, y in (pair, pair[::-1]):
            add([f"What is the opposite of {x}?", f"What's the opposite of {x}?",
                 f"Opposite of {x}?", f"Tell me the opposite of {x}."],
                f"The opposite of {x} is {y}.", f"The word is {x}. The opposite is {y}.")
    for a, sound, young in ANIMALS:
        add([f"What sound does a {a} make?", f"What does a {a} do?", f"Which sound does a {a} make?"],
            f"A {a} {sound}.", f"It is a {a}. It {sound}.")
        add([f"What is a young {a} called?", f"What is a baby {a} called?",
             f"What do you call a young {a}?"],
            f"A young {a} is called a {young}.", f"It is a young {a}: a {young}.")
    for u, v, n in UNITS:
        w = ("an " if v == "hour" else "a ") + v
        add([f"How many {u} are in {w}?", f"How many {u} are there in {w}?",
             f"How many {u} in {w}?", f"How many {u} does {w} have?"],
            f"There are {n} {u} in {w}.", f"From {u} to {v}: {n}.")
    for names, what in ((DAYS, "day"), (MONTHS, "month")):
        for i, d in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            add([f"Which {what} comes after {d}?", f"What {what} comes after {d}?",
                 f"What comes after {d}?"],
                f"{after} comes after {d}.", f"The {what} is {d}. The next one is {after}.")
            add([f"Which {what} comes before {d}?", f"What {what} comes before {d}?",
                 f"What comes before {d}?"],
                f"{before} comes before {d}.", f"The {what} is {d}. The one before is {before}.")
    for s, n in SHAPES:
        s = with_article(s)
        add([f"How many sides does {s} have?", f"How many sides are in {s}?",
             f"How many corners does {s} have?"],
            f"{capitalised(s)} has {n} sides.", f"It is {s}: {n} sides.")
    for s, n in LEGS:
        s = with_article(s)
        add([f"How many legs does {s} have?", f"How many legs has {s}?"],
            f"{capitalised(s)} has {n} legs.", f"It is {s}: {n} legs.")
    for e, s in SYMBOLS:
        add([f"What is the chemical symbol of {e}?", f"What is the chemical symbol for {e}?",
             f"What is the symbol for {e}?"],
            f"The chemical symbol of {e} is {s}.", f"The element is {e}: {s}.")
    for i, w in enumerate(NUMBERS):
        add([f"How do you write {w} in digits?", f"Write {w} as a number.",
             f"What is {w} in digits?"],
            f"{capitalised(w)} is {i}.", f"The word is {w}: {i}.")
        add([f"How do you write {i} in words?", f"Write {i} as a word.", f"What is {i} in words?"],
            f"{i} is {w}.", f"The number is {i}: {w}.")
    for en, other in WORDS.items():
        for lang in FACT_LANGS:
            w = other[lang]
            add([f"How do you say {en} in {lang}?", f"Translate {en} into {lang}.",
                 f"What is {en} in {lang}?", f"What is the {lang} word for {en}?"],
                f"In {lang}, {en} is {w}.", f"The word is {en}. In {lang}: {w}.")
    for q, a in MISC:
        add([q, q.lower().rstrip("?"), "Please tell me: " + q, "Quick question: " + q], a,
            "I know this one.")
    for questions, a, pairs in CAPITAL_LANG.values():
        for c, k in pairs[:7]:
            add([q.format(c=c) for q in questions], a.format(c=c, k=k), f"{c}: {k}")
    return out


FACT_LANGS = ["Chinese", "Spanish", "French", "German", "Italian"]
FACTS = _facts()


# ---------------------------------------------------------------- skills without tools
# Each returns (skill, key, prompt, answer, thought).
def s_talk(r):
    lang = "en" if r.random() < 0.35 else r.choice(list(TALK))
    prompts, answer = r.choice(TALK[lang])
    prompt = r.one_of(prompts)
    thought = ("The user is chatting. I will answer kindly." if lang == "en" else
               f"The user writes in {LANG_NAMES[lang]}. I will answer in it.")
    return "talk", "talk!" + prompt, prompt, answer, thought


def s_fact(r):
    prompts, answer, thought = r.choice(FACTS)
    prompt = r.choice(prompts)
    all_held = all(held("fact:" + p) for p in prompts)      # then train on it after all
    return "fact", ("fact!" if all_held else "fact:") + prompt, prompt, answer, thought


ADD_PROMPTS = """What is {a} + {b}?|{a} + {b}|{a} + {b} =|{a}+{b}|What is {a} plus {b}?|Add {a} and {b}.
|Calculate {a} + {b}.|{a}+{b}=?|How much is {a} + {b}?|¿Cuánto es {a} + {b}?|Combien font {a} + {b} ?
|Was ist {a} + {b}?|{a} + {b} 等于多少？|Quanto é {a} + {b}?|Quanto fa {a} + {b}?|Сколько будет {a} + {b}?
|{a} + {b} は？|{a} + {b}는?|{a} + {b} bằng mấy?|ما ناتج {a} + {b}؟""".replace("\n", "")
SUB_PROMPTS = """What is {a} - {b}?|{a} - {b}|{a} - {b} =|{a}-{b}|What is {a} minus {b}?
|Subtract {b} from {a}.|Calculate {a} - {b}.|How much is {a} - {b}?|¿Cuánto es {a} - {b}?
|Combien font {a} - {b} ?|Was ist {a} - {b}?|{a} - {b} 等于多少？""".replace("\n", "")


def add_thought(a, b):
    units = f"Units: {a % 10} + {b % 10} = {a % 10 + b % 10}"
    if a % 10 + b % 10 >= 10:
        return f"{units}, carry 1. Tens: {a // 10} + {b // 10} + 1 = {a // 10 + b // 10 + 1}."
    return f"{units}. Tens: {a // 10} + {b // 10} = {a // 10 + b // 10}."


def s_sum(r):
    below = 20 if r.random() < 0.9 else 40
    a, b = r.randrange(below), r.randrange(below)
    if r.random() < 0.78:
        return ("sum" if max(a, b) < 20 else "sum-big", f"sum:{a}+{b}",
                r.one_of(ADD_PROMPTS).format(a=a, b=b), f"{a} + {b} = {a + b}", add_thought(a, b))
    a, b = max(a, b), min(a, b)
    return ("diff" if a < 20 else "diff-big", f"diff:{a}-{b}",
            r.one_of(SUB_PROMPTS).format(a=a, b=b), f"{a} - {b} = {a - b}",
            f"I take {b} from {a}. That leaves {a - b}.")


def s_count(r):
    x = r.random()
    if x < 0.6:
        first, last = 1, r.randint(2, 20)
        p = r.one_of("Count to {m}.|Count to {m}|Count from 1 to {m}.|Please count to {m}."
                     "|Can you count to {m}?|count to {m}|Count from 1 to {m}|Cuenta hasta {m}."
                     "|Compte jusqu'à {m}.|Zähle bis {m}.|数到{m}。|Write the numbers from 1 to {m}.")
    elif x < 0.8:
        first = r.randint(1, 20)
        last = first + r.randint(2, 10)
        p = r.one_of("Count from {n} to {m}.|Count from {n} to {m}|Please count from {n} to {m}.")
    else:
        first, last = r.randint(2, 15), 1
        p = r.one_of("Count down from {n}.|Count down from {n} to 1.|Count backwards from {n}.")
    p = p.format(n=first, m=last)
    step = 1 if last > first else -1
    answer = ", ".join(map(str, range(first, last + step, step)))
    return "count", "count:" + p, p, answer, f"I start at {first} and stop at {last}."


def s_echo(r):
    x = r.random()
    if x < 0.6:
        y = r.random()
        if y < 0.25:
            w = r.phrase()
        elif y < 0.45:
            w = " ".join(r.choice(SPELL) for _ in range(r.randint(1, 5)))
        elif y < 0.85:
            w = " ".join(r.choice([r.word, r.name])() for _ in range(r.randint(1, 4)))
        else:
            w = " ".join(str(r.randrange(1000)) for _ in range(r.randint(1, 3)))
        p = r.one_of("Repeat: {w}|Repeat after me: {w}|Say: {w}|Echo: {w}|Repeat this: {w}"
                     "|Please repeat: {w}|Echo this text: {w}").format(w=w)
        return "echo", "echo:" + w, p, w, "I repeat the text."
    if x < 0.7:
        w, n = r.word(), r.randint(2, 5)
        p = r.one_of("Say {w} {n} times.|Repeat {w} {n} times.|Write {w} {n} times.")
        p = p.format(w=w, n=r.choice([str(n), NUMBERS[n]]))
        return "echo", "echo:" + p, p, " ".join([w] * n), f"I write {w} {n} times."
    w = r.choice(SPELL)
    if x < 0.92:
        p = r.one_of("Spell {w}.|Spell the word {w}.|How do you spell {w}?|Can you spell {w}?"
                     "|Please spell {w}.").format(w=w)
        return "spell", "spell:" + p, p, "-".join(w), f"The letters of {w} one by one."
    p = r.one_of("How many letters are in {w}?|How many letters does {w} have?"
                 "|Count the letters in {w}.").format(w=w)
    return "spell", "spell:" + p, p, f"The word {w} has {len(w)} letters.", f"{'-'.join(w)}: {len(w)}."


FRUITS = "apple banana pear plum cherry lemon orange grape peach melon".split()
HEX = dict(red="#ff0000", green="#00ff00", blue="#0000ff", black="#000000", white="#ffffff",
           yellow="#ffff00")
JOBS = "baker teacher doctor pilot nurse farmer miller singer painter lawyer".split()
FIELD_TYPES = dict(name="string", age="integer", city="string", job="string")


def json_extract(r):
    """Read two to four fields out of a sentence."""
    value = dict(name=r.name(), age=r.randint(5, 90), city=r.place(), job=r.choice(JOBS))
    fields = r.sample(list(value), r.randint(2, 4))
    if "name" not in fields:
        fields.append("name")
    says = dict(age=f"is {value['age']} years old", city=f"lives in {value['city']}",
                job=f"works as a {value['job']}")
    parts = [says[f] for f in says if f in fields]
    if r.random() < 0.5:
        r.shuffle(parts)
    text = f"{value['name']} " + " and ".join(
        [", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) + "."
    if r.random() < 0.5:
        fields = [f for f in FIELD_TYPES if f in fields]
    x = r.random()
    if x < 0.35:
        typed = ", ".join(f"{f} ({FIELD_TYPES[f]})" for f in fields)
        p = f"Return JSON with keys {typed}. {text}"
    elif x < 0.6:
        p = f"Extract {', '.join(fields)} as JSON: {text}"
    elif x < 0.85:
        p = f"{text} Answer in JSON with the keys {', '.join(fields)}."
    else:
        schema = {"type": "object", "properties": {f: {"type": FIELD_TYPES[f]} for f in fields},
                  "required": fields}
        p = f"Answer in JSON that follows this schema: {to_json(schema)}\n{text}"
    return ("json", "json:" + text + ",".join(fields), p, to_json({f: value[f] for f in fields}),
            "I write one JSON object with " + ", ".join(fields) + ".")


def s_json(r):
    x = r.random()
    if x < 0.55:
        return json_extract(r)
    if x < 0.7:
        c, k = r.choice(COUNTRIES[:40])
        key = r.choice(["answer", "capital", "city", "result"])
        p = r.one_of("What is the capital of {c}? Answer in JSON with the key {key}."
                     "|Return JSON with key {key}: the capital of {c}."
                     "|Give the capital of {c} as JSON with the key {key}.").format(c=c, key=key)
        return ("json", "json:" + c + key, p, to_json({key: k}),
                f"The capital of {c} is {k}. I write it as JSON.")
    if x < 0.8:
        a, b = r.randrange(20), r.randrange(20)
        while held(f"sum:{a}+{b}"):
            a, b = r.randrange(20), r.randrange(20)
        key = r.choice(["answer", "sum", "result"])
        p = r.one_of("What is {a} + {b}? Answer in JSON with the key {key}."
                     "|Return JSON with key {key}: {a} + {b}.").format(a=a, b=b, key=key)
        return ("json", f"json:{a}+{b}{key}", p, to_json({key: a + b}),
                f"{a} + {b} = {a + b}. I write it as JSON.")
    if x < 0.92:
        n = r.randint(2, 5)
        lists = dict(fruits=FRUITS, numbers=list(range(1, 11)), days=DAYS, colours=list(HEX))
        what = r.choice(list(lists))
        p = r.one_of("List {n} {w} as a JSON array.|Give me {n} {w} as a JSON list."
                     "|Return a JSON array of {n} {w}.")
        p = p.format(n=r.choice([str(n), NUMBERS[n]]), w=what)
        return "json", "json:" + p, p, to_json(lists[what][:n]), f"I list {n} {what} in an array."
    c = r.choice(list(HEX))
    p = r.one_of("Give me JSON for the colour {c} with keys name and hex."
                 "|Describe the colour {c} as JSON with the keys name and hex."
                 "|Return JSON for {c} with name and hex.").format(c=c)
    return "json", "json!" + p, p, to_json({"name": c, "hex": HEX[c]}), f"The colour is {c}."


REFUSAL = "I am a tiny demo model, so I do not know that. Try a larger model."


def s_refuse(r):
    p = r.one_of(
        "Explain {t}.|Tell me about {t}.|What do you know about {t}?|Write an essay about {t}."
        "|Give me a summary of {t}.|Why is {t} important?|What is the weather in {c}?"
        "|What time is it in {c}?|Who is {n}?|Where does {n} live?"
        "|What is the latest news in {c}?|How old is {n}?|What will happen tomorrow in {c}?"
        "|How do I get from {c} to {d}?|Who won the match in {c}?"
        "|What is the population of {c}?|What is the price of {x}?"
        "|What is the phone number of {n}?|Can you book a table in {c}?|What is the capital of {z}?")
    p = p.format(t=r.choice(TOPICS), c=r.place(), d=r.place(), n=r.name(), z=capitalised(r.invent()),
                 x=r.choice(["gold", "bread", "milk", "a house", "a train ticket"]))
    return "refuse", "refuse:" + p, p, REFUSAL, "I do not know this. I will say so."


def s_story(r):
    animal = r.choice("cat dog fox bear mouse bird horse frog".split())
    who = "Pip"
    x = r.random()
    if x < 0.5:
        p = r.one_of("Write a short story about a {a}.|Tell me a story about a {a}."
                     "|Write a story about a {a}.|Tell me a short story about a {a}."
                     "|Write a short story about a {a} named {n}.")
        if "{n}" in p:
            who = r.name()
        text = (f"Once there was a small {animal} named {who}. Every morning {who} walked to the "
                f"old mill by the river. The miller gave {who} a bit of bread, and {who} sat in "
                f"the sun and listened to the stones turn. One day the river was dry and the mill "
                f"stood still. {who} ran up the hill and found a big branch in the stream. {who} "
                f"pulled and pulled until the water ran again. The mill turned, the miller "
                f"laughed, and the {animal} got a whole loaf. The end.")
    elif x < 0.65:
        p = r.one_of("Tell me a story.|Write a story.|Write a short story.|Tell me a long story.")
        text = ("Once there was a small mill by a river. It turned all day and ground the grain "
                "of the whole village. One night a storm broke the wheel. In the morning the "
                "people came with wood, rope and nails. They worked together until the evening, "
                "and the wheel turned again. That night there was fresh bread for all. The end.")
        return "story", "story!" + p, p, text, "I will tell a short story."
    else:
        p = r.one_of("Write a poem about a {a}.|Write a short poem about a {a}."
                     "|Write me a poem about a {a}.")
        text = (f"A little {animal} went out to play,\nit ran along the mill all day.\n"
                f"The sun went down, the moon came bright,\n"
                f"the little {animal} slept through the night.")
    p = p.format(a=animal, n=who)
    return "story", "story:" + p, p, text, f"I will write about a {animal}."


SIMPLE = [(s_talk, 10), (s_fact, 36), (s_sum, 20), (s_count, 4), (s_echo, 16), (s_json, 9),
          (s_refuse, 4), (s_story, 0.8)]


def simple(r):
    return r.choices([f for f, _ in SIMPLE], [w for _, w in SIMPLE])[0](r)


# ---------------------------------------------------------------- memory
FAVOURITES = {
    "favourite colour": lambda r: r.choice("red blue green yellow purple orange black white".split()),
    "favourite food": lambda r: r.choice(FRUITS + ["bread", "rice", "soup"]),
    "cat's name": Draw.name, "dog's name": Draw.name, "city": Draw.place,
    "job": lambda r: "a " + r.choice(JOBS), "secret word": Draw.word,
}


def memory(r):
    """(key, statement, acknowledgement, question, answer, thought at the question, thought at the
    statement)"""
    if r.random() < 0.7:
        lang = "en" if r.random() < 0.6 else r.choice(list(MEMORY_LANG))
        tell, ack, ask, answer = MEMORY_LANG[lang][0]
        n, question = r.name(), r.one_of(ask)
        return (f"memory:{n}{question}", r.one_of(tell).format(n=n), ack.format(n=n), question,
                answer.format(n=n), f"The user said the name: {n}.", f"The user is called {n}.")
    f = r.choice(list(FAVOURITES))
    v = FAVOURITES[f](r)
    return (f"memory:{f}{v}", f"My {f} is {v}.", f"I will remember that your {f} is {v}.",
            f"What is my {f}?", f"Your {f} is {v}.", f"The user said: {v}.",
            f"The user says the {f} is {v}.")


# ---------------------------------------------------------------- tools
# Each returns a Use: tool, query, calls, results, final answer and what the call is for.
class Use:
    def __init__(self, tool, query, calls, results, answer, purpose):
        self.tool, self.query, self.calls = tool, query, calls
        self.results, self.answer, self.purpose = results, answer, purpose
        self.name = tool["function"]["name"]


def function(r, name, description, properties, required=None):
    strict = r.random() < 0.12
    parameters = {"type": "object", "properties": properties,
                  "required": required or list(properties)}
    f = {"name": name, "description": description, "parameters": parameters}
    if strict:
        parameters["additionalProperties"] = False
        f["strict"] = True
    return {"type": "function", "function": f}


def prop(r, kind, descriptions):
    d = r.choice(descriptions.split("|") + [None])
    return {"type": kind, "description": d} if d else {"type": kind}


def param(r, usual):
    """A parameter name: one of the usual ones, at times an invented one that must be copied."""
    return r.choice(usual.split()) if r.random() < 0.8 else r.invent()


def tool_name(r, usual):
    if r.random() < 0.8:
        return r.choice(usual.split())
    return f"{r.choice('get find call run fetch'.split())}_{r.invent()}"


WEATHER_QUERIES = """What is the weather in {c}?|What's the weather like in {c}?|How is the weather in {c}?
|Weather in {c}?|Tell me the weather in {c}.|Is it cold in {c}?|What is the weather like in {c} today?
|Please check the weather in {c}.|How warm is it in {c} now?|What's the temperature in {c}?
|¿Qué tiempo hace en {c}?|Quel temps fait-il à {c} ?|Wie ist das Wetter in {c}?|{c}的天气怎么样？
|Che tempo fa a {c}?|Como está o tempo em {c}?|Какая погода в {c}?|{c}の天気は？""".replace("\n", "")
CONDITIONS = "sunny cloudy rainy windy snowy foggy clear".split()


def t_weather(r):
    name = tool_name(r, "get_weather get_weather get_weather get_current_weather weather "
                        "get_temperature fetch_weather weather_lookup")
    par = param(r, "city city location place")
    props = {par: prop(r, "string", "The city|City name|City and country e.g. Paris, France"
                                    "|The city to look up|Name of the place")}
    required = [par]
    if r.random() < 0.15:
        props["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    tool = function(r, name, r.one_of("Get the weather in a city|Get current weather for a place."
                    "|Get the current weather|Returns the weather of a city."
                    "|Get current temperature for a given location."), props, required)
    cities, query = [r.place()], r.one_of(WEATHER_QUERIES)
    if r.random() < 0.1:
        second = r.place()
        if second != cities[0]:
            cities.append(second)
            query = r.one_of("What is the weather in {c}?|Weather in {c}?"
                             "|Tell me the weather in {c}.")
    results, answers = [], []
    for c in cities:
        t = r.randint(-10, 38) if r.random() < 0.9 else r.randint(-100, 380) / 10
        w = r.choice(CONDITIONS)
        results.append(r.choice([
            to_json({"temperature": t, "condition": w}),
            to_json({par: c, "temperature": t, "condition": w}),
            to_json({"temp": t, "weather": w}), f"{t}°C, {w}", f"{w}, {t} degrees",
            f"{w} and {t} degrees", to_json({"condition": w, "temperature": t, "unit": "celsius"})]))
        answers.append(f"It is {t} degrees and {w} in {c}.")
    both = " and ".join(cities)
    return Use(tool, query.format(c=both), [(name, {par: c}) for c in cities], results,
               " ".join(answers), f"the weather in {both}")


def t_time(r):
    name = tool_name(r, "get_time get_time get_current_time current_time time_in_city")
    par = param(r, "city city location place")
    tool = function(r, name, r.one_of("Get the time in a city|Get the current time in a city."
                    "|Returns the local time."), {par: prop(r, "string", "The city|City name")})
    c, t = r.place(), f"{r.randrange(24):02d}:{r.randrange(60):02d}"
    query = r.one_of("What time is it in {c}?|What is the time in {c}?|Time in {c}?"
                     "|Tell me the time in {c}.|What's the local time in {c}?|¿Qué hora es en {c}?"
                     "|Quelle heure est-il à {c} ?|Wie spät ist es in {c}?|{c}现在几点？")
    result = r.choice([t, to_json({"time": t}), to_json({par: c, "time": t})])
    return Use(tool, query.format(c=c), [(name, {par: c})], [result], f"It is {t} in {c}.",
               f"the time in {c}")


def t_calculator(r):
    name = tool_name(r, "calculator calculator calculate calc evaluate")
    par = param(r, "expression expression expr formula")
    tool = function(r, name, r.one_of("Evaluate an arithmetic expression"
                    "|Calculate a math expression.|A simple calculator."),
                    {par: prop(r, "string", "The expression|Expression to evaluate, e.g. 2 + 3")})
    op, a, b = r.choice("+-**/"), r.randint(2, 999), r.randint(2, 99)
    if op == "/":
        a = b * r.randint(2, 40)
    v = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]
    e = f"{a} {op} {b}"
    query = r.one_of("What is {e}?|Calculate {e}.|Compute {e}.|How much is {e}?|{e}"
                     "|Please calculate {e}.|Use the calculator: {e}|¿Cuánto es {e}?"
                     "|Combien font {e} ?|Was ist {e}?")
    return Use(tool, query.format(e=e), [(name, {par: e})],
               [r.choice([str(v), to_json({"result": v})])], f"{e} = {v}", e)


SUBJECTS = """red pandas;old mills;green tea;paper boats;wild horses;stone bridges;bread ovens;river boats;
snow foxes;train stations;apple trees;small gardens;night birds;blue whales;wooden clocks;copper coins"""
SUBJECTS = [s.strip() for s in SUBJECTS.split(";")]


def t_search(r):
    name = tool_name(r, "search search web_search search_web lookup")
    par = param(r, "query query q text")
    tool = function(r, name, r.one_of("Search the web|Search for information.|Look something up"),
                    {par: prop(r, "string", "The search query|What to search for")})
    x = r.random()
    s = (r.choice(SUBJECTS) if x < 0.3 else
         f"{r.choice(PHRASES_B)} {r.choice(PHRASES_C)}s" if x < 0.55 else
         f"{r.choice(PHRASES_B)} {r.word()}")
    query = r.one_of("Search for {s}.|Search the web for {s}.|Look up {s}."
                     "|Find information about {s}.|Can you search for {s}?|Search: {s}")
    where = r.choice(["are found", "are common", "are rare", "can be seen"])
    text = capitalised(f"{s} {where} in {r.place()}.")
    return Use(tool, query.format(s=s), [(name, {par: s})],
               [r.choice([text, to_json({"result": text})])], f"I found this: {text}", s)


def t_timer(r):
    name = tool_name(r, "set_timer start_timer timer")
    par, n = param(r, "minutes minutes duration"), r.randint(1, 60)
    tool = function(r, name, r.one_of("Set a timer|Start a timer in minutes."),
                    {par: prop(r, "integer", "Number of minutes|Minutes")})
    query = r.one_of("Set a timer for {n} minutes.|Start a timer of {n} minutes."
                     "|Wake me in {n} minutes.|Timer for {n} minutes, please.")
    return Use(tool, query.format(n=n), [(name, {par: n})],
               [r.choice(["ok", to_json({"status": "ok"}), "done"])],
               f"The timer is set for {n} minutes.", f"a timer of {n} minutes")


def t_add(r):
    name = r.choice(["add", "add", "add_numbers", "sum", "multiply"])
    pa, pb = r.choice([("a", "b"), ("x", "y"), ("first", "second")])
    a, b = r.randint(0, 99), r.randint(0, 99)
    verb, op, v = ("Multiply", "*", a * b) if name == "multiply" else ("Add", "+", a + b)
    tool = function(r, name, f"{verb} two numbers",
                    {pa: prop(r, "integer", "The first number"),
                     pb: prop(r, "integer", "The second number")})
    query = r.choice([f"What is {a} {op} {b}?", f"{verb} {a} and {b}.", f"{a} {op} {b}",
                      f"Use the tool: {a} {op} {b}"])
    return Use(tool, query, [(name, {pa: a, pb: b})], [r.choice([str(v), to_json({"result": v})])],
               f"{a} {op} {b} = {v}", f"{a} {op} {b}")


MESSAGES = """see you soon|I am late|hello|call me|the train is late|dinner is ready|good luck
|happy birthday""".replace("\n", "")


def t_message(r):
    name = tool_name(r, "send_message send_email send_text")
    pa, pb = r.choice([("to", "text"), ("recipient", "message"), ("to", "body")])
    tool = function(r, name, r.one_of("Send a message to a person|Send a message."),
                    {pa: prop(r, "string", "Who gets it"), pb: prop(r, "string", "The text")})
    n, m = r.name(), r.one_of(MESSAGES) if r.random() < 0.5 else r.phrase()
    query = r.choice([f"Send a message to {n}: {m}", f"Write to {n}: {m}", f"Tell {n}: {m}"])
    return Use(tool, query, [(name, {pa: n, pb: m})],
               [r.choice(["sent", to_json({"status": "sent"}), "ok"])],
               f"The message to {n} was sent.", f"a message to {n}")


def t_generic(r):
    """A tool named in the query, with names and values that are mostly invented."""
    verb = r.choice("get find lookup create delete open check".split())
    noun = r.choice("order user file ticket book invoice account room report".split())
    name = f"{verb}_{noun if r.random() < 0.4 else r.invent()}"
    par = param(r, "id name title code number key")
    is_int = r.random() < 0.4
    v = r.randint(1, 9999) if is_int else r.choice([r.name, r.word])()
    spoken = capitalised(name.replace("_", " "))
    tool = function(r, name, r.choice(["Work with records", "A tool of the test system", spoken]),
                    {par: {"type": "integer" if is_int else "string"}})
    query = r.choice([f"Call {name} with {par} {v}.", f"Use {name} with {par} {v}.",
                      f"{spoken} with {par} {v}."])
    result = r.choice([
        to_json({"status": r.choice(["open", "closed", "ready", "done", "lost"])}),
        r.choice(["done", "ok", "not found", "ready"]),
        to_json({par: v, "status": r.choice(["open", "ready", "done"])})])
    return Use(tool, query, [(name, {par: v})], [result], f"The tool {name} returned: {result}", name)


TOOLS = [(t_weather, 30), (t_time, 12), (t_calculator, 14), (t_search, 11), (t_timer, 6),
         (t_add, 8), (t_message, 8), (t_generic, 11)]
PLACE_TOOLS = [t_weather, t_time]


def some_tool(r):
    return r.choices([f for f, _ in TOOLS], [w for _, w in TOOLS])[0](r)


def with_others(r, first):
    """`first` and up to three further tools of other names, in random order."""
    n = r.choices([0, 1, 2, 3], [58, 25, 11, 6])[0]
    out, names = [first], {first.name}
    for f, _ in r.sample(TOOLS, len(TOOLS)):
        if len(out) > n:
            break
        use = f(r)
        if use.name not in names:
            names.add(use.name)
            out.append(use)
    r.shuffle(out)
    return out


def tool_turns(use, thought=None):
    calls = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in use.calls]
    call = {"role": "assistant", "content": "", "tool_calls": calls}
    if thought:
        call["reasoning_content"] = thought
    return [call] + [{"role": "tool", "content": x} for x in use.results]


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
