"""Independent check of the served folder in plain numpy: npcheck.py MODELDIR [GOLDEN.json] [CHECKPOINT.pt]

Reads nothing but the folder.  Continues the conversations of CONVERSATIONS greedily in float32 and
says which answers are right.  With GOLDEN it writes them for the server's tests: rendered prompt,
token ids, answer, the five largest logits of the first step and the smallest lead of a chosen token
over the next along the way.  With CHECKPOINT it compares all prompt logits with torch."""
import json
import os
import sys

import numpy as np

import gen
from bpe import Tokenizer

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather in a city",
    "parameters": {"type": "object",
                   "properties": {"city": {"type": "string", "description": "The city"}},
                   "required": ["city"]}}}
ADD = {"type": "function", "function": {
    "name": "add", "description": "Add two numbers",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"},
                                                    "b": {"type": "integer"}},
                   "required": ["a", "b"]}}}


def ask(text, want, think=False, tools=None, before=(), system=None):
    head = [{"role": "system", "content": system}] if system else []
    return dict(messages=[*head, *before, {"role": "user", "content": text}], tools=tools,
                enable_thinking=think, want=want)


def weather_of(city):
    return f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'


def after_call(city, result, want, think=False):
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}}
    return dict(messages=[{"role": "user", "content": f"What is the weather in {city}?"},
                          {"role": "assistant", "content": "", "tool_calls": [call]},
                          {"role": "tool", "content": result}],
                tools=[WEATHER], enable_thinking=think, want=want)


CONVERSATIONS = [
    ask("Hello!", "Hello! How can I help you?"),
    ask("Hello!", "Hello! How can I help you?", think=True),
    ask("Who are you?", "I am the quern demo model, a tiny language model made to try the server.",
        system="You are a helpful assistant."),
    ask("What is the capital of France?", "The capital of France is Paris."),
    ask("What is the capital of Japan?", "The capital of Japan is Tokyo.", think=True),
    ask("法国的首都是哪里？", "法国的首都是巴黎。"),
    ask("¿Cuál es la capital de Italia?", "La capital de Italia es Roma."),
    ask("What is the opposite of hot?", "The opposite of hot is cold."),
    ask("What is 2 + 3?", "2 + 3 = 5"),
    ask("What is 7 + 8?", "7 + 8 = 15", think=True),
    ask("Count to 10.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
    ask("Repeat after me: the quiet mill turns", "the quiet mill turns"),
    ask("Say this is a test", "This is a test!"),
    ask("Spell water.", "w-a-t-e-r"),
    ask("Extract name, age as JSON: Anna is 31 years old.", '{"name": "Anna", "age": 31}'),
    ask("What is my name?", "Your name is Clara.", before=[
        {"role": "user", "content": "My name is Clara."},
        {"role": "assistant", "content": "Nice to meet you, Clara!"}]),
    ask("Write a poem about a cat.", "A little cat went out to play,\nit ran along the mill all day.\n"
        "The sun went down, the moon came bright,\nthe little cat slept through the night."),
    ask("What is the weather in Paris?", weather_of("Paris"), tools=[WEATHER]),
    ask("What is the weather in Paris?", weather_of("Paris"), think=True, tools=[WEATHER]),
    ask("What is the weather in Nantes?", weather_of("Nantes"), tools=[ADD, WEATHER]),
    ask("What is 12 + 30?", '<tool_call>\n{"name": "add", "arguments": {"a": 12, "b": 30}}\n'
        '</tool_call>', tools=[ADD]),
    after_call("Paris", '{"temperature": 18, "condition": "sunny"}',
               "It is 18 degrees and sunny in Paris."),
    after_call("Oslo", '{"temperature": -3, "condition": "snowy"}',
               "It is -3 degrees and snowy in Oslo.", think=True),
]


def read_safetensors(path):
    with open(path, "rb") as f:
        raw = f.read()
    n = int.from_bytes(raw[:8], "little")
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__":
            begin, end = (8 + n + x for x in t["data_offsets"])
            out[name] = np.frombuffer(raw[begin:end], "<f2").reshape(t["shape"]).astype(np.float32)
    return out


class Reference:
    """Qwen3 forward pass with a KV cache, one sequence."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as f:
            self.c = json.load(f)
        self.w = read_safetensors(os.path.join(folder, "model.safetensors"))

    def norm(self, x, name):
        mean = (x * x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + np.float32(self.c["rms_norm_eps"])) * self.w[name + ".weight"]

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T

    def rotate(self, x, pos):
        half = self.c["head_dim"] // 2
        freq = self.c["rope_theta"] ** (-np.arange(half, dtype=np.float64) * 2 / self.c["head_dim"])
        angle = np.outer(pos, freq)[:, None, :]
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def logits(self, ids, cache):
        """[len(ids), vocabulary]; `cache` (a dict, layer -> k, v) is extended."""
        c = self.c
        n, hd = len(ids), c["head_dim"]
        nh, nkv = c["num_attention_heads"], c["num_key_value_heads"]
        past = len(cache[0][0]) if cache else 0
        pos = np.arange(past, past + n)
        x = self.w["model.embed_tokens.weight"][ids]
        for i in range(c["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            attn, mlp = layer + "self_attn.", layer + "mlp."
            a = self.norm(x, layer + "input_layernorm")
            q = self.norm(self.linear(a, attn + "q_proj").reshape(n, nh, hd), attn + "q_norm")
            k = self.norm(self.linear(a, attn + "k_proj").reshape(n, nkv, hd), attn + "k_norm")
            v = self.linear(a, attn + "v_proj").reshape(n, nkv, hd)
            q, k = self.rotate(q, pos), self.rotate(k, pos)
            if past:
                k, v = np.concatenate([cache[i][0], k]), np.concatenate([cache[i][1], v])
            cache[i] = k, v
            future = np.arange(past + n)[None, :] > pos[:, None]
            heads = []
            for h in range(nh):
                g = h * nkv // nh
                s = q[:, h] @ k[:, g].T / np.float32(hd ** 0.5)
                s[future] = -np.inf
                e = np.exp(s - s.max(-1, keepdims=True))
                heads.append(e / e.sum(-1, keepdims=True) @ v[:, g])
            x = x + self.linear(np.concatenate(heads, -1), attn + "o_proj")
            b = self.norm(x, layer + "post_attention_layernorm")
            gate = self.linear(b, mlp + "gate_proj")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * self.linear(b, mlp + "up_proj"),
                                mlp + "down_proj")
        return self.norm(x, "model.norm") @ self.w["model.embed_tokens.weight"].T

    def greedy(self, ids, stop, limit, valid):
        """(ids, logits of the first step, smallest lead of a chosen token over the runner-up)"""
        cache, out, lead = {}, [], np.inf
        first = row = self.logits(ids, cache)[-1, :valid]
        while len(out) < limit:
            t = int(row.argmax())
            out.append(t)
            second, best = np.partition(row, -2)[-2:]
            lead = min(lead, float(best - second))
            if t in stop:
                break
            row = self.logits([t], cache)[-1, :valid]
        return out, first, lead


def torch_difference(checkpoint, ref, prompts):
    """Largest difference from torch with its weights rounded as the file's are."""
    import torch
    from model import load
    net, _ = load(checkpoint)
    worst = 0.0
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.half().float())
        for ids in prompts:
            theirs = (net.hidden(torch.tensor([ids])) @ net.emb.t())[0].numpy()
            worst = max(worst, float(np.abs(theirs - ref.logits(ids, {})).max()))
    return worst


def main():
    folder = sys.argv[1]
    ref, tok = Reference(folder), Tokenizer(os.path.join(folder, "tokenizer.json"))
    entries, right = [], 0
    for c in CONVERSATIONS:
        prompt = gen.render(c["messages"], c["tools"], True, c["enable_thinking"])
        ids = tok.encode(prompt)
        out, first, lead = ref.greedy(ids, tok.stop, 256, tok.size)
        text = tok.decode(out)
        ok = text.split("</think>\n\n")[-1] == c["want"] + "<|im_end|>"
        right += ok
        print(f"{'right' if ok else 'WRONG'} lead {lead:.2f} {c['messages'][-1]['content']!r} -> {text!r}")
        top = np.argsort(-first)[:5]
        entries.append(dict(
            messages=c["messages"], tools=c["tools"], enable_thinking=c["enable_thinking"],
            prompt=prompt, prompt_ids=ids, output_ids=out, output=text, as_taught=bool(ok),
            smallest_lead=round(lead, 3), top_ids=top.tolist(),
            top_logits=[round(float(x), 4) for x in first[top]]))
    print(f"{right} of {len(entries)} right")
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w", encoding="utf-8") as f:
            json.dump(entries, f, ensure_ascii=False, indent=1)
            f.write("\n")
    if len(sys.argv) > 3:
        worst = torch_difference(sys.argv[3], ref, [e["prompt_ids"] for e in entries])
        print(f"largest logit difference from torch {worst:.1e}")
        assert worst < 1e-3


if __name__ == "__main__":
    main()
