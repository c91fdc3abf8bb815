"""The tools of the demo's conversations: each t_* draws a tool and one use of it (`Use`)."""
from draw import *
from facts import *


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
