"""What the demo model can do without tools: facts, sums, counting, echoes, JSON, stories, and what it
was told earlier in a conversation.  Facts are FACTS, the others are drawn.
"""
from draw import *
from facts import *


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
