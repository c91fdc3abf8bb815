#!/usr/bin/env python3
"""Writes tests/data/json/dumps.txt: pairs of lines, a JSON text and what Python makes of it
(json.dumps(json.loads(text), ensure_ascii=False)).  Seeded: the output never changes."""
import json
import math
import pathlib
import random
import struct

rng = random.Random(20)
texts = [
    "-0", "0", "-0.0", "1.0", "1E5", "1e16", "1e15", "123456789012345678901234567890", "0.0001",
    "0.00001", "1e22", "1e23", "9007199254740993.0", "5e-324", "1e-400", "-1e-5", "0.1", "1e-7",
    "100000000000000.5", "1.7976931348623157e308", "2.2250738585072014e-308", "-1.5e+300", "[]",
    "{}", '[[],{},[{}]]', ' { "a" : [ 1 , 2 ] , "b" : null } ', '{"a":1,"b":2,"a":3}',
    '"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\u001f\\u007f\\u2028"', '"\\"\\\\"', "true",
]
# Powers of two: the gap below is half the gap above, where naive shortest printing fails.
texts += [repr(math.ldexp(1.0, e)) for e in range(-1074, 1024, 7)]
for _ in range(600):
    d = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))[0]
    if math.isfinite(d):
        texts.append(repr(d))
for _ in range(300):
    t = "%s%d.%0*de%d" % (rng.choice(["", "-"]), rng.randrange(1000), rng.randrange(1, 18),
                          rng.randrange(10**6), rng.randrange(-330, 300))
    if math.isfinite(float(t)):
        texts.append(t)


def text():
    parts = ["a", "\n", "\x01", "\b", "\f", "\x7f", "é", "中", "😀", '"', "\\", "/", "\x1f", "\u2028"]
    return "".join(rng.choice(parts) for _ in range(rng.randrange(12)))


def value(depth):
    k = rng.randrange(8 if depth < 3 else 5)
    if k == 0:
        return text()
    if k == 1:
        return rng.randrange(-(10**18), 10**25)
    if k == 2:
        return rng.uniform(-1e3, 1e3)
    if k == 3:
        return rng.choice([None, True, False])
    if k == 4:
        return rng.random() * 10 ** rng.randrange(-20, 20)
    if k == 5:
        return [value(depth + 1) for _ in range(rng.randrange(20))]
    return {text() + str(rng.randrange(10)): value(depth + 1) for _ in range(rng.randrange(20))}


for _ in range(40):
    texts.append(json.dumps(value(0), ensure_ascii=rng.random() < 0.5,
                            separators=rng.choice([(",", ":"), (" , ", " : ")])))
for n in (3, 16, 17, 40, 200):  # duplicate keys, below and above the size of the lookup table
    for _ in range(6):
        texts.append("{" + ",".join('"k%d":%d' % (rng.randrange(n), i) for i in range(n)) + "}")

out = pathlib.Path(__file__).parent.parent / "data/json/dumps.txt"
out.parent.mkdir(parents=True, exist_ok=True)
with out.open("w", encoding="utf-8", newline="\n") as f:
    for t in texts:
        f.write(t + "\n" + json.dumps(json.loads(t), ensure_ascii=False) + "\n")
print(len(texts), "pairs,", out.stat().st_size, "bytes")
