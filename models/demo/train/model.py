"""Qwen3 dense in plain torch: training loss and greedy decoding."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

SIZES = {                       # h hidden, L layers, nh / nkv heads, hd head dim, ff MLP width
    "xs": dict(h=128, L=4, nh=4, nkv=2, hd=64, ff=384),
    "s": dict(h=192, L=4, nh=4, nkv=2, hd=64, ff=512),
    "m": dict(h=256, L=4, nh=4, nkv=2, hd=64, ff=512),
}
EPS, THETA, MAX_POSITIONS = 1e-6, 1e6, 2048


def rms(x, w):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        h, q, kv, ff, hd = c["h"], c["nh"] * c["hd"], c["nkv"] * c["hd"], c["ff"], c["hd"]
        residual = 1 / math.sqrt(2 * c["L"])

        def matrix(rows, cols, scale=1.0):
            return nn.Parameter(torch.randn(rows, cols) * scale / math.sqrt(cols))

        self.ln1, self.ln2 = nn.Parameter(torch.ones(h)), nn.Parameter(torch.ones(h))
        self.qn, self.kn = nn.Parameter(torch.ones(hd)), nn.Parameter(torch.ones(hd))
        self.qkv, self.o = matrix(q + 2 * kv, h), matrix(h, q, residual)
        self.gu, self.down = matrix(2 * ff, h), matrix(h, ff, residual)

    def forward(self, x, cos, sin, mask=None, cache=None):
        """x [B, T, h]; mask [B, 1, T, S] of bool, None: causal; cache: this layer's [k, v] list,
        empty at first, or None."""
        c = self.c
        B, T, _ = x.shape
        nh, nkv, hd = c["nh"], c["nkv"], c["hd"]
        z = F.linear(rms(x, self.ln1), self.qkv).view(B, T, nh + 2 * nkv, hd)
        q, k, v = z.split([nh, nkv, nkv], 2)
        q, k = rope(rms(q, self.qn), cos, sin), rope(rms(k, self.kn), cos, sin)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))                # [B, heads, T, hd]
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        k, v = (y.repeat_interleave(nh // nkv, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + F.linear(y.transpose(1, 2).reshape(B, T, nh * hd), self.o)
        gate, up = F.linear(rms(x, self.ln2), self.gu).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Model(nn.Module):
    def __init__(self, c, vocab):
        super().__init__()
        self.c, self.vocab = c, vocab
        self.emb = nn.Parameter(torch.randn(vocab, c["h"]) * 0.02)      # tied: also the output
        self.blocks = nn.ModuleList([Block(c) for _ in range(c["L"])])
        self.norm = nn.Parameter(torch.ones(c["h"]))
        freq = THETA ** (-torch.arange(0, c["hd"], 2).float() / c["hd"])
        angle = torch.arange(MAX_POSITIONS).float()[:, None] * freq
        self.register_buffer("cos", angle.cos()[:, None, :], persistent=False)
        self.register_buffer("sin", angle.sin()[:, None, :], persistent=False)

    def hidden(self, ids):
        """Last hidden states [B, T, h] of ids [B, T]."""
        T = ids.shape[1]
        x = F.embedding(ids, self.emb)
        for b in self.blocks:
            x = b(x, self.cos[:T], self.sin[:T])
        return rms(x, self.norm)

    def losses(self, ids, target, where):
        """Cross entropies of the tokens at the flat positions `where`."""
        h = self.hidden(ids).flatten(0, 1)[where]
        return F.cross_entropy(F.linear(h, self.emb).float(), target, reduction="none")

    @torch.no_grad()
    def greedy(self, prompts, stop, limit, valid):
        """Most likely continuation of each prompt, together: prompts are padded on the left.
        Ids at or above `valid` are padding rows of the embedding and are never chosen."""
        longest = max(map(len, prompts))
        pad = torch.tensor([longest - len(p) for p in prompts])
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        caches, out, past = [[] for _ in self.blocks], [[] for _ in prompts], 0
        while True:
            at = torch.arange(past, past + ids.shape[1])                # columns of the new tokens
            keys = torch.arange(past + ids.shape[1])
            mask = (keys <= at[:, None]) & (keys >= pad[:, None, None]) | (keys == at[:, None])
            pos = (at - pad[:, None]).clamp(min=0)
            x = F.embedding(ids, self.emb)
            for b, cache in zip(self.blocks, caches):
                x = b(x, self.cos[pos], self.sin[pos], mask[:, None], cache)
            best = (rms(x[:, -1], self.norm) @ self.emb[:valid].t()).argmax(-1)
            for o, t in zip(out, best.tolist()):
                if not o or o[-1] not in stop:
                    o.append(t)
            if max(map(len, out)) >= limit or all(o[-1] in stop for o in out):
                return out
            past, ids = past + ids.shape[1], best[:, None]


def load(path):
    d = torch.load(path, map_location="cpu", weights_only=True)
    net = Model(SIZES[d["size"]], d["vocab"])
    net.load_state_dict(d["state"])
    return net.eval(), d
