"""Train the demo model on a stream of generated conversations that never repeats.

Matrices learn with Muon, embedding and norms with AdamW; the rate warms up and then follows a
cosine over --minutes of training.  The state is saved every few minutes, and `--resume` goes on
from it in the same schedule."""
import argparse
import math
import os
import time

import torch

import gen
from bpe import Tokenizer
from draw import Draw
from model import SIZES, Model

WARM_UP = 100                   # steps
END_RATE = 0.02                 # of the peak
MAX_TOKENS = 768                # longer cases are left out: they are few and dear
SAVE_SECONDS = 240
THREAD_CHECK_SECONDS = 20


def arguments():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True, help="checkpoint to write")
    ap.add_argument("--size", default="s", choices=SIZES)
    ap.add_argument("--vocab", type=int, default=2112, help="rows; above the tokenizer's: padding")
    ap.add_argument("--minutes", type=float, default=90)
    ap.add_argument("--batch", type=int, default=4096, help="tokens a step, padding included")
    ap.add_argument("--rate", type=float, default=0.01, help="peak rate of Muon; AdamW gets a fifth")
    ap.add_argument("--decay", type=float, default=0.05)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=2, help="at most; falls to 1 on a busy machine")
    ap.add_argument("--resume", action="store_true")
    return ap.parse_args()


def encode(c, tok):
    """Token ids of a case and the weight of each as a target."""
    ids, weights = [], []
    for text, learn in gen.pieces(c):
        e = tok.encode(text)
        v = 5 / math.sqrt(max(12, len(e)))              # long answers weigh less per token
        for i in range(len(e)):
            if learn == "all":
                weights.append(2 * v if i == 0 else v)  # the first token decides most
            else:
                weights.append(v if learn == "rest" and i else 0.0)
        ids += e
    return ids, weights


class Stream:
    """Endless batches of (ids [B, T], targets [n], flat positions [n], weights [n])."""

    def __init__(self, seed, tok, batch):
        self.r, self.tok, self.batch, self.ready = Draw(seed), tok, batch, []

    def refill(self, phase):
        """Batches of cases of like length, in random order: less padding than by chance."""
        pool = [encode(gen.case(self.r, phase=phase), self.tok) for _ in range(1500)]
        pool = [p for p in pool if len(p[0]) <= MAX_TOKENS]
        pool.sort(key=lambda p: len(p[0]) + self.r.random() * 8)
        current = []
        for p in pool:
            if current and (len(current) + 1) * len(p[0]) > self.batch:
                self.ready.append(current)
                current = []
            current.append(p)
        self.r.shuffle(self.ready)

    def next(self, phase):
        if not self.ready:
            self.refill(phase)
        rows = self.ready.pop()
        T = max(len(ids) for ids, _ in rows)
        ids, weights = torch.zeros(len(rows), T, dtype=torch.long), torch.zeros(len(rows), T)
        for i, (a, b) in enumerate(rows):
            ids[i, :len(a)], weights[i, :len(b)] = torch.tensor(a), torch.tensor(b)
        target, weight = ids[:, 1:].flatten(), weights[:, 1:].flatten()
        where = weight.nonzero()[:, 0]
        return ids[:, :-1].contiguous(), target[where], where, weight[where]


class Muon:
    """Momentum whose step is made nearly orthogonal by a Newton-Schulz iteration."""

    def __init__(self, params, decay):
        self.decay, self.groups = decay, {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momentum = {s: torch.zeros(len(g), *s) for s, g in self.groups.items()}

    @staticmethod
    def orthogonal(g):
        x = g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)
        tall = x.shape[1] > x.shape[2]
        x = (x.mT if tall else x).bfloat16()
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return (x.mT if tall else x).float()

    @torch.no_grad()
    def step(self, rate):
        for shape, params in self.groups.items():
            grad, m = torch.stack([p.grad for p in params]), self.momentum[shape]
            m.mul_(0.95).add_(grad)
            update = self.orthogonal(grad.add(m, alpha=0.95))
            scale = rate * max(1, shape[0] / shape[1]) ** 0.5
            for p, u in zip(params, update):
                p.mul_(1 - rate * self.decay).add_(u, alpha=-scale)


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    torch._inductor.config.cpp.dynamic_threads = True
    tok = Tokenizer(a.tokenizer)
    net = Model(SIZES[a.size], a.vocab)
    matrices = [p for n, p in net.named_parameters() if p.ndim == 2 and n != "emb"]
    others = [p for n, p in net.named_parameters() if p.ndim == 1 or n == "emb"]
    muon = Muon(matrices, a.decay)
    adam = torch.optim.AdamW(others, lr=a.rate / 5, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)
    done = dict(seconds=0.0, steps=0, tokens=0, learned=0, runs=0)
    if a.resume:
        d = torch.load(a.out, weights_only=True)
        net.load_state_dict(d["state"])
        muon.momentum = {tuple(s): m for s, m in d["momentum"]}
        adam.load_state_dict(d["adam"])
        done = d["done"]
    done["runs"] += 1
    stream = Stream(a.seed * 1000 + done["runs"], tok, a.batch)
    log = open(a.out + ".log", "a" if a.resume else "w")

    def say(text):
        print(text, flush=True)
        print(text, file=log, flush=True)

    def save():
        torch.save(dict(size=a.size, vocab=a.vocab, state=net.state_dict(), adam=adam.state_dict(),
                        momentum=[(list(s), m) for s, m in muon.momentum.items()], done=done),
                   a.out + ".part")
        os.replace(a.out + ".part", a.out)

    losses = torch.compile(net.losses, dynamic=True)
    say(f"size {a.size} {SIZES[a.size]} parameters {sum(p.numel() for p in net.parameters())} "
        f"{vars(a)} {done}")
    before, start = dict(done), time.time()
    reported = saved = checked = start
    total = count = 0.0
    while done["seconds"] < a.minutes * 60:
        at = done["seconds"] / (a.minutes * 60)
        ids, target, where, weight = stream.next(gen.phase_at(at))
        rate = a.rate * min(1, (done["steps"] + 1) / WARM_UP) * max(
            END_RATE, 0.5 * (1 + math.cos(math.pi * at)))
        with torch.autocast("cpu", torch.bfloat16):
            ce = losses(ids, target, where)
        (ce * weight).sum().div(weight.sum()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.param_groups[0]["lr"] = rate / 5
        adam.step()
        muon.step(rate)
        net.zero_grad(set_to_none=True)

        now = time.time()
        done["seconds"] = before["seconds"] + now - start
        done["steps"] += 1
        done["tokens"] += ids.numel()
        done["learned"] += len(target)
        total, count = total + float(ce.detach().sum()), count + len(target)
        if now - reported > 30:
            say(f"min {done['seconds'] / 60:.2f} step {done['steps']} tokens "
                f"{done['tokens'] / 1e6:.2f}M learned {done['learned'] / 1e6:.2f}M loss "
                f"{total / count:.4f} rate {rate:.5f} threads {torch.get_num_threads()} tok/s "
                f"{(done['tokens'] - before['tokens']) / (now - start):.0f}")
            reported, total, count = now, 0.0, 0.0
        if now - saved > SAVE_SECONDS:
            save()
            saved = now
        if a.threads > 1 and now - checked > THREAD_CHECK_SECONDS:
            # Ours are part of the load; leave the other cores alone once someone else is at work.
            busy = os.getloadavg()[0] > torch.get_num_threads() + 0.7
            torch.set_num_threads(1 if busy else a.threads)
            checked = now
    save()
    say(f"done {done}")


if __name__ == "__main__":
    main()
