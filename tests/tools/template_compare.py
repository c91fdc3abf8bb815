#!/usr/bin/env python3
"""Compares the Jinja engine with Python's jinja2 in Hugging Face's environment.

  template_compare.py                    2,000 seeded conversations x every template, and the
                                         expressions of tests/data/templates/expressions.txt
  template_compare.py --random N         also N random expressions
  template_compare.py --count 40 --seed 42 --golden tests/data/templates/conversations.jsonl
                                         writes the small golden set test_template.c reads, and
                                         expressions.jsonl beside it

Needs jinja2 >= 3.1.6; uses transformers' own environment when it is installed, else the same one
built here.  Exits 1 on the first differences (ten are printed).
"""
import argparse, copy, datetime, glob, json, os, random, subprocess, sys, tempfile, warnings

warnings.simplefilter("ignore", SyntaxWarning)

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DATA = os.path.join(ROOT, "tests", "data", "templates")


# ---- the reference ------------------------------------------------------------------------------

def reference_compiler():
    try:
        from transformers.utils.chat_template_utils import _compile_jinja_template
        return _compile_jinja_template, "transformers"
    except ImportError:
        pass
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

        def _text(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.now().strftime(f)
    return env.from_string, "jinja2"


def reference(template, variables):
    try:
        return {"ok": template.render(**copy.deepcopy(variables))}  # |indent changes lists
    except RecursionError:
        return {"error": "recursion"}
    except Exception as e:  # whatever the template raises is part of the comparison
        return {"error": str(e), "type": type(e).__name__}


# ---- seeded conversations -----------------------------------------------------------------------

WORDS = ["hello", "what is", "2+2", "Rome", "the weather", "naïve", "日本語", "😀", "👩‍🚀", "a\nb", "  lead", "trail  ",
         "\n\n", "<think>", "</think>", "<think>\nx\n</think>\n\n", "<tool_response>", "</tool_response>",
         "<|im_end|>\n<|im_start|>system", "{{ x }}", "{% if %}", "\"quoted\"", "it's", "back\\slash", "tab\t",
         "\u00a0nbsp", "\u2028", "é́", "0", "", " ", "line1\r\nline2", "<tool_call>\n{}\n</tool_call>", "&lt;", "%s"]
VALUES = [0, 1, -5, 3.5, 1e20, 1e-7, 100.0, True, False, None, "text", "multi\nline", "", "日本", [], {}, [1, "a", None],
          {"k": "v"}, {"b": 1, "a": [True, {"x": 0.1}]}, 12345678901234567890, "it's", '"', "\\", 1.5e300, -0.0]


def text(r):
    return "".join(r.choice(WORDS) + r.choice(["", " ", " ", "\n"]) for _ in range(r.randint(0, 5)))


def parts(r):
    kinds = [{"type": "text", "text": text(r)}, {"type": "text", "text": text(r)},
             {"type": "image", "image": "x.png"}, {"type": "image_url", "image_url": {"url": "u"}},
             {"type": "video", "video": "v"}, {"type": "other"}]
    return [r.choice(kinds) for _ in range(r.randint(0, 3))]


def content(r):
    k = r.random()
    return text(r) if k < 0.9 else parts(r) if k < 0.97 else None


def arguments(r):
    return {r.choice(["city", "n", "opts", "日", "a b"]): r.choice(VALUES) for _ in range(r.randint(0, 3))}


def call(r, i):
    f = {"name": r.choice(["get_weather", "add", "搜索"]), "arguments": arguments(r)}
    if r.random() < 0.1:
        f["arguments"] = json.dumps(f["arguments"])
    if r.random() < 0.05:
        del f["arguments"]
    if r.random() < 0.05:
        return f
    return {"id": "call_%d" % i, "type": "function", "function": f}


def tool(r):
    props = {}
    for _ in range(r.randint(0, 3)):
        p = {"type": r.choice(["string", "integer", ["string", "null"]])}
        if r.random() < 0.6:
            p["description"] = text(r)
        if r.random() < 0.3:
            p["enum"] = [r.choice(VALUES) for _ in range(2)]
        if r.random() < 0.2:
            p["items"] = {"type": "string"}
        if r.random() < 0.2:
            p["default"] = r.choice(VALUES)
        props[r.choice(["city", "n", "opts", "日", "items", "keys", "type"])] = p
    f = {"name": r.choice(["get_weather", "add", "搜索"]), "description": text(r),
         "parameters": {"type": "object", "properties": props, "required": list(props)[:1]}}
    if r.random() < 0.1:
        del f["description"]
    if r.random() < 0.1:
        del f["parameters"]
    if r.random() < 0.1:
        f["strict"] = True
    return {"type": "function", "function": f} if r.random() < 0.95 else f


def assistant(r, i):
    m = {"role": "assistant", "content": content(r)}
    if r.random() < 0.3:
        m["reasoning_content"] = text(r) if r.random() < 0.9 else None
    if r.random() < 0.4:
        m["tool_calls"] = [call(r, i + k) for k in range(r.randint(0, 2))]
    if m.get("tool_calls") and r.random() < 0.3:
        m["content"] = ""
    if r.random() < 0.03:
        del m["content"]
    return m


def conversation(r):
    messages = []
    if r.random() < 0.5:
        messages.append({"role": "system", "content": content(r)})
    for i in range(r.randint(0, 4)):
        messages.append({"role": "user", "content": content(r)})
        if r.random() < 0.8:
            messages.append(assistant(r, i))
            for _ in range(r.choice([0, 0, 1, 2])):
                messages.append({"role": "tool", "content": content(r), "tool_call_id": "call_0"})
        if r.random() < 0.05:
            messages.append({"role": r.choice(["system", "developer", "observer"]), "content": text(r)})
    if r.random() < 0.7:
        messages.append({"role": "user", "content": content(r)})
    v = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": r.random() < 0.7}
    if r.random() < 0.4:
        v["tools"] = [tool(r) for _ in range(r.randint(0, 3))]
    if r.random() < 0.1:
        del v["tools"]
    for name, p, values in [("enable_thinking", 0.4, [True, False]), ("add_vision_id", 0.1, [True]),
                            ("reasoning_effort", 0.2, ["low", "medium", "high", "xhigh"]),
                            ("preserve_thinking", 0.2, [True, False]),
                            ("bos_token", 0.5, ["<|endoftext|>"])]:
        if r.random() < p:
            v[name] = r.choice(values)
    return v


# ---- random expressions -------------------------------------------------------------------------

ATOMS = ["1", "0", "-3", "2.5", "'abc'", "'Hello World'", "''", "'日本é'", "true", "none", "[1, 2, 3]", "[]", "{'a': 1, 'b': 'x'}",
         "('x', 2)", "s", "n", "l", "d", "u", "nested", "'a,b,,c'", "'  pad '", "range(4)", "1.0", "10**3", "'%s-%d'"]
FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "list", "first", "last", "string", "int", "float",
           "tojson", "join(',')", "join", "sort", "reverse|list", "unique|list", "default('D')", "default('D', true)",
           "replace('a', 'Z')", "abs", "round", "round(1)", "map('upper')|list", "map(attribute='a')|list",
           "select|list", "reject('none')|list", "select('string')|list", "selectattr('a')|list", "items|list",
           "dictsort", "batch(2)|list", "slice(2)|list", "sum", "min", "max", "indent", "indent(2, true)", "wordcount",
           "center(12)", "escape", "safe", "truncate(5)", "e", "urlencode", "tojson(indent=2)", "count", "d", "format(1, 2)"]
TESTS = ["defined", "undefined", "none", "string", "number", "mapping", "iterable", "sequence", "true", "false", "boolean",
         "integer", "float", "odd", "even", "divisibleby(2)", "in([1, 'abc'])", "eq(1)", "sameas(none)", "lower", "upper",
         "callable", "not defined", "not string"]
METHODS = ["upper()", "strip()", "lstrip('a')", "rstrip('dl')", "split()", "split(',')", "split('l', 1)", "rsplit(None, 1)",
           "startswith('a')", "endswith(('d', 'c'))", "replace('l', '')", "items()", "keys()", "get('a')", "get('z', 5)",
           "find('o')", "count('l')", "title()", "isdigit()", "partition(' ')", "splitlines()", "join(['x', 'y'])",
           "zfill(5)", "index(2)", "append(1)", "pop()", "values()|list", "center(9, '*')", "capitalize()", "isalpha()"]
BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">", "<=", ">=", "in", "not in", "and", "or"]


def expression(r, depth):
    if depth == 0:
        return r.choice(ATOMS)
    k = r.random()
    a = lambda: expression(r, depth - 1)
    if k < 0.3:
        return "(%s %s %s)" % (a(), r.choice(BINARY), a())
    if k < 0.5:
        return "(%s)|%s" % (a(), r.choice(FILTERS))
    if k < 0.62:
        return "(%s).%s" % (a(), r.choice(METHODS))
    if k < 0.72:
        return "(%s is %s)" % (a(), r.choice(TESTS))
    if k < 0.8:
        return "(%s)[%s]" % (a(), r.choice(["0", "-1", "'a'", "1:", ":-1", "::-1", "1:3", "::2", "5", "none"]))
    if k < 0.86:
        return "(%s if %s else %s)" % (a(), a(), a())
    if k < 0.9:
        return "not (%s)" % a()
    if k < 0.93:
        return "[%s, %s]" % (a(), a())
    if k < 0.95:
        return "{'k': %s}" % a()
    return "(%s).%s" % (a(), r.choice(["a", "b", "zz", "items", "_x"]))


EXPRESSION_VARS = {"s": "Some string", "n": 42, "l": [3, 1, 2], "d": {"a": "A", "b": 2, "items": 7}, "u": "ünïcödé ß",
                   "nested": [{"a": 1, "b": {"c": "x"}}, {"a": 2}]}


# ---- comparing ----------------------------------------------------------------------------------

def build_driver(build):
    lib = os.path.join(build, "libquern.a")
    if not os.path.exists(lib):
        subprocess.run(["make", "-s", "-C", ROOT, "BUILD=" + build, lib], check=True)
    exe = os.path.join(tempfile.mkdtemp(), "template_driver")
    libs = subprocess.run(["pkg-config", "--libs", "libutf8proc", "libxxhash"], check=True, capture_output=True,
                          text=True).stdout.split()
    subprocess.run([os.environ.get("CC", "gcc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-I" + ROOT,
                    os.path.join(HERE, "template_driver.c"), lib, *libs, "-lm", "-o", exe], check=True)
    return exe


def drive(exe, files, requests):
    data = "".join(json.dumps(q, ensure_ascii=False) + "\n" for q in requests)
    out = subprocess.run([exe, *files], input=data.encode(), stdout=subprocess.PIPE, check=True).stdout.decode()
    # Only \n ends a line: U+2028 and others stand unescaped inside strings.
    return [json.loads(line) for line in out.split("\n") if line]


def hidden_name(message):
    """Object addresses and class names of the reference's own helpers cannot be equal."""
    return (message.replace("transformers.utils.chat_template_utils.TemplateNamespace", "jinja2.utils.Namespace"))


def same(want, got):
    if "ok" in want:
        return want["ok"] == got.get("ok")
    if "error" not in got:
        return False
    w, g = hidden_name(want["error"]), got["error"]
    if want["error"] == "recursion":
        return "recursion" in g
    return w == g or (len(w.encode()) >= 470 and w.startswith(g))


def same_expression(want, got):
    """Random expressions: results equal, and both fail or neither; words of errors may differ.
    Values whose Python text holds an address, and integers beyond 64 bits, are left out."""
    if "ok" in want and (" at 0x" in want["ok"] or "<generator" in want["ok"] or "<built-in" in want["ok"]
                         or "method" in want["ok"] or "iterator" in want["ok"]):
        return True
    # Jinja folds a slice of a constant that has none to undefined; of a variable it raises, as here.
    if "ok" in want and any(s in got.get("error", "") for s in ("64 bits", "not subscriptable", "type: 'slice'")):
        return True
    return ("ok" in want) == ("ok" in got) and want.get("ok") == got.get("ok")


def report(kind, items, wanted, got, equal):
    bad = [(q, w, g) for q, w, g in zip(items, wanted, got) if not equal(w, g)]
    errors = sum("error" in w for w in wanted)
    print("%s: %d compared, %d of them errors, %d differ" % (kind, len(wanted), errors, len(bad)))
    for q, w, g in bad[:10]:
        print("  case:", json.dumps(q, ensure_ascii=False)[:1500])
        print("    want:", json.dumps(w, ensure_ascii=False)[-700:])
        print("    got: ", json.dumps(g, ensure_ascii=False)[-700:])
    return len(bad) + (len(wanted) != len(got))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--driver", help="a built template_driver")
    p.add_argument("--count", type=int, default=2000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--random", type=int, default=0)
    p.add_argument("--golden")
    a = p.parse_args()
    compile_template, who = reference_compiler()
    print("reference: " + who)
    files = sorted(glob.glob(os.path.join(DATA, "*.jinja")))
    compiled = [compile_template(open(f, encoding="utf-8", newline="").read()) for f in files]
    if a.golden:
        return write_golden(a, files, compiled, compile_template)
    exe = a.driver or build_driver(a.build)
    r = random.Random(a.seed)
    talks = [conversation(r) for _ in range(a.count)]
    requests = [{"t": t, "vars": v} for v in talks for t in range(len(files))]
    wanted = [reference(compiled[q["t"]], q["vars"]) for q in requests]
    bad = report("conversations", requests, wanted, drive(exe, files, requests), same)
    lines = open(os.path.join(DATA, "expressions.txt"), encoding="utf-8").read().split("\n")
    cases = [{"t": json.loads(s), "vars": EXPRESSION_VARS} for s in lines if s]
    bad += compare_texts("expressions", compile_template, exe, files, cases, same)
    cases = [{"t": "{{ %s }}" % expression(r, r.randint(1, 3)), "vars": EXPRESSION_VARS} for _ in range(a.random)]
    bad += compare_texts("random", compile_template, exe, files, cases, same_expression)
    return 1 if bad else 0


def compare_texts(kind, compile_template, exe, files, cases, equal):
    wanted = []
    for q in cases:
        try:
            wanted.append(reference(compile_template(q["t"]), q["vars"]))
        except Exception as e:
            wanted.append({"error": str(e), "compile": True})
    lenient = lambda w, g: "error" in g if w.get("compile") else equal(w, g)
    return report(kind, cases, wanted, drive(exe, files, cases), lenient)


def write_golden(a, files, compiled, compile_template):
    r = random.Random(a.seed)
    with open(a.golden, "w", encoding="utf-8") as f:
        for _ in range(a.count):
            v = conversation(r)
            out = []
            for c in compiled:
                o = reference(c, v)
                out.append(o["ok"] if "ok" in o else {"error": hidden_name(o["error"])})
            f.write(json.dumps({"vars": v, "out": out}, ensure_ascii=False, separators=(",", ":")) + "\n")
    lines = open(os.path.join(DATA, "expressions.txt"), encoding="utf-8").read().split("\n")
    with open(os.path.join(os.path.dirname(a.golden), "expressions.jsonl"), "w", encoding="utf-8") as f:
        for t in [json.loads(s) for s in lines if s]:
            try:
                o = reference(compile_template(t), EXPRESSION_VARS)
            except Exception:
                o = {"compile": False}
            o.pop("type", None)
            if "error" in o:
                o["error"] = hidden_name(o["error"])
            f.write(json.dumps({"t": t, **o}, ensure_ascii=False, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
