"""quern grammar-check (API J6): verdicts of schemas, patterns, GBNF grammars and lists; refusals end with code 2."""

import json
import subprocess

from conftest import BIN


def check(tmp_path, texts, **option):
    batch = tmp_path / "texts.jsonl"
    batch.write_text("".join(json.dumps(t) + "\n" for t in texts))
    args = [x for k, v in option.items() for x in ("--" + k.replace("_", "-"), str(v))]
    run = subprocess.run([BIN, "grammar-check", *args, "--batch", batch], capture_output=True, text=True)
    return run.returncode, run.stdout.split(), run.stderr


def test_kinds(tmp_path):
    f = tmp_path / "f"
    f.write_text('{"type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": false}')
    texts = ['{"a": 1, "b": 2}', '{"b": 2, "a": 1}', '{"c": 1}']
    assert check(tmp_path, texts, schema=f)[:2] == (0, ["accept", "reject", "reject"])
    assert check(tmp_path, texts, schema=f, key_order="free")[:2] == (0, ["accept", "accept", "reject"])
    assert check(tmp_path, ["ab", "abb", "b"], regex="a(b|é)+")[:2] == (0, ["accept", "accept", "reject"])
    f.write_text('root ::= "(" root? ")"\n')
    assert check(tmp_path, ["(())", "())"], gbnf=f)[:2] == (0, ["accept", "reject"])
    f.write_text('["yes", "no"]')
    assert check(tmp_path, ["yes", "nope"], choice=f)[:2] == (0, ["accept", "reject"])


def test_refusals(tmp_path):
    f = tmp_path / "f"
    f.write_text('{"properties": {"a": {"unevaluatedItems": {}}}}')
    code, out, words = check(tmp_path, ["1"], schema=f)
    assert code == 2 and not out and 'unsupported_schema: keyword "unevaluatedItems" at #/properties/a' in words
    f.write_text('{"properties": {"a": {"type": "strin"}, "b": {"pattern": "(?=x)"}}, "required": 5}')
    code, out, words = check(tmp_path, ["1"], schema=f)
    assert code == 2 and not out and [line.split(" at ")[0] for line in words.splitlines() if line.startswith("quern: ")] == [
        'quern: invalid_schema: keyword "required"', 'quern: invalid_schema: keyword "type"', 'quern: unsupported_schema: keyword "pattern"']
    f.write_text('root ::= a\na ::= a b\nb ::= "x" |\n')
    code, out, words = check(tmp_path, ["x"], gbnf=f)
    assert code == 2 and not out and "unsatisfiable" in words
    code, out, words = check(tmp_path, ["x"], regex="(?=x)")
    assert code == 2 and "look-around" in words
    assert check(tmp_path, ["x"], regex="x", gbnf=f)[0] == 2
