"""What constraints cost a served token: bench_forms.py MODEL [options of serve].

Processor time of the server over the tokens it generated, with no constraint and with each of several, at one and at eight
connections; the least of three alternating rounds.  No form may let a text end early: a step of fewer rows costs more a token.
QUERN_BIN names the binary; run in the root of the repository.
"""
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "e2e"))
from conftest import Server  # noqa: E402

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}, "minItems": 200},
          "age": {"type": "integer"}}, "required": ["name", "tags", "age"], "additionalProperties": False}
FORMS = {"none": {}, "one ban": {"logit_bias": {"5": -100}}, "any text": {"regex": ".*"}, "[a-z ]*": {"regex": "[a-z ]*"}, "schema": {"guided_json": SCHEMA},
         "any JSON": {"guided_json": {"type": "array", "minItems": 1000}}}


def run(server, n, form):
    def one(seed):
        r = server.complete(prompt="Hello world %d" % seed, max_tokens=200, temperature=1, seed=seed, ignore_eos=True, **form)
        assert r.status_code == 200, r.text
    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    before = [server.metric("process_cpu_seconds_total"), server.metric("vllm:generation_tokens_total")]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    after = [server.metric("process_cpu_seconds_total"), server.metric("vllm:generation_tokens_total")]
    assert after[1] - before[1] == n * 200, "a text ended early"
    return (after[0] - before[0]) / (after[1] - before[1]) * 1e6


def main():
    server = Server(*sys.argv[2:], model=sys.argv[1])
    for form in FORMS.values():
        run(server, 2, form)
    for n in (1, 8):
        best = {}
        for _ in range(3):
            for name, form in FORMS.items():
                best[name] = min(best.get(name, 1e9), run(server, n, form))
        print(n, "connections, us of processor time a token:", ", ".join(f"{k} {v:.0f}" for k, v in best.items()))
    server.stop()


if __name__ == "__main__":
    main()
