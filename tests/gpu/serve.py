#!/usr/bin/env python3
"""The demo model served from a device: greedy ids equal to the goldens, alone and in company; streams that say what
plain replies say; with --batch-invariant the same bits alone and in company.

usage: tests/gpu/serve.py QUERN [--small]     --small: on the emulator, some of the goldens
Only Python's own modules.  Prints a line a check; exits 1 if one fails."""
import concurrent.futures as cf
import http.client, json, os, queue, re, signal, subprocess, sys, threading, time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
DEMO = os.path.join(ROOT, "models", "demo")
COMPANY = 12
START_S, REPLY_S = 120, 300


class Server:
    def __init__(self, quern, device, *args):
        cmd = [quern, "serve", DEMO, "--port", "0", "--served-model-name", "m", "--device", device, *args]
        self.proc = subprocess.Popen(cmd, stderr=subprocess.PIPE, text=True)
        self.lines, found = [], queue.Queue()

        def read():
            for line in self.proc.stderr:
                self.lines.append(line)
                hit = re.search(r"listening\s+http://\S+:(\d+)", line)
                if hit:
                    found.put(int(hit.group(1)))
            found.put(0)

        threading.Thread(target=read, daemon=True).start()
        self.port = found.get(timeout=START_S)
        if not self.port:
            raise RuntimeError("server did not start:\n" + "".join(self.lines))
        end = time.time() + START_S
        while self.request("GET", "/ready")[0] != 200:
            if time.time() > end or self.proc.poll() is not None:
                raise RuntimeError("server is not ready:\n" + "".join(self.lines))
            time.sleep(0.02)

    def request(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REPLY_S)
        c.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        r = c.getresponse()
        status, text = r.status, r.read().decode()
        c.close()
        return status, text

    def post(self, path, body):
        status, text = self.request("POST", path, body)
        if status != 200:
            raise RuntimeError("%s: %d %s" % (path, status, text[:500]))
        return json.loads(text)

    def stream(self, path, body):
        status, text = self.request("POST", path, dict(body, stream=True))
        if status != 200 or not text.rstrip().endswith("data: [DONE]"):
            raise RuntimeError("%s: %d, ends with %r" % (path, status, text[-200:]))
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]

    def complete(self, prompt, **more):
        body = {"model": "m", "prompt": prompt, "temperature": 0, "max_tokens": 200, "return_token_ids": True,
                "skip_special_tokens": False, **more}
        return self.post("/v1/completions", body)["choices"][0]

    def stop(self):
        self.proc.send_signal(signal.SIGTERM)
        return self.proc.wait(60)


def chat_body(g):
    return {"model": "m", "messages": g["messages"], "temperature": 0, "max_tokens": 200, "enable_thinking": g["enable_thinking"]}


def together(jobs):
    with cf.ThreadPoolExecutor(COMPANY) as pool:
        return [f.result() for f in [pool.submit(*j) for j in jobs]]


def count_equal(pairs):
    return sum(a == b for a, b in pairs), len(pairs)


def goldens_alone(s, goldens):
    return count_equal([(s.complete(g["prompt_ids"])["token_ids"], g["output_ids"]) for g in goldens])


def goldens_together(s, goldens):
    got = together([(s.complete, g["prompt_ids"]) for g in goldens])
    return count_equal([(c["token_ids"], g["output_ids"]) for c, g in zip(got, goldens)])


def streams(s, goldens):
    """Streamed chats, all at once, against the plain replies."""
    bodies = [chat_body(g) for g in goldens if not g["tools"]]
    plain = [s.post("/v1/chat/completions", b)["choices"][0]["message"].get("content") or "" for b in bodies]
    parts = together([(s.stream, "/v1/chat/completions", b) for b in bodies])
    text = ["".join((e["choices"][0]["delta"].get("content") or "") for e in p if e["choices"]) for p in parts]
    return count_equal(list(zip(text, plain)))


def drawn(s, goldens):
    """Drawn tokens repeat with their seed."""
    more = {"temperature": 1, "top_p": 0.9, "seed": 11, "max_tokens": 40, "ignore_eos": True}
    return count_equal([(s.complete(g["prompt_ids"], **more)["token_ids"], s.complete(g["prompt_ids"], **more)["token_ids"])
                        for g in goldens])


def invariant_bits(s, goldens):
    """Ids and logprobs of each alone, then of all at once."""
    more = {"logprobs": 3, "max_tokens": 40, "ignore_eos": True, "cache_prompt": False}

    def bits(g):
        c = s.complete(g["prompt_ids"], **more)
        return json.dumps([c["token_ids"], c["logprobs"]])

    alone = [bits(g) for g in goldens]
    return count_equal(list(zip(together([(bits, g) for g in goldens]), alone)))


def run(quern, device, goldens, args, checks):
    s = Server(quern, device, *args)
    bad = 0
    for check in checks:
        start = time.time()
        try:
            good, all_ = check(s, goldens)
            word = "ok" if good == all_ else "FAILED"
        except (RuntimeError, OSError, KeyError, ValueError, http.client.HTTPException) as x:
            good, all_, word = 0, len(goldens), "FAILED (%s: %s)" % (type(x).__name__, x)
        bad += word != "ok"
        print("%-20s %-18s %2d of %2d  %6.2f s  %s" % (check.__name__, " ".join(args), good, all_, time.time() - start, word), flush=True)
    code = s.stop()
    if code or bad:
        print("exit code %d\n%s" % (code, "".join(s.lines[-15:])), flush=True)
    return bad + (code != 0)


def main():
    quern, small = sys.argv[1], "--small" in sys.argv
    with open(os.path.join(ROOT, "tests", "data", "demo_golden.json"), encoding="utf-8") as f:
        goldens = json.load(f)[::6 if small else 1]
    device = "cuda-emu" if small else "cuda"
    print("\n== the demo model over HTTP, %s" % device)
    bad = run(quern, device, goldens, [], [goldens_alone, goldens_together, streams, drawn])
    bad += run(quern, device, goldens, ["--batch-invariant"], [goldens_alone, invariant_bits])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
