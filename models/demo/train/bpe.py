"""Byte-level BPE in the form of Qwen's tokenizer.json: trainer, encoder, decoder.

    bpe.py OUT.json SIZE        train on generated conversations and write the file

Merges inside words rank before merges that glue a leading space (or quote, or underscore) to a
word.  So " Nantes" and "Nantes" split into the same pieces, and a word that no merge covers whole
is the bare prefix followed by the very pieces it has elsewhere: copying a name from a sentence into
JSON is then copying tokens, which a small model can learn.  To a reader of the file it is ordinary
BPE."""
import collections
import json
import sys

import regex

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
ADDED = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True),     # (text, special)
         ("<tool_call>", False), ("</tool_call>", False), ("<tool_response>", False),
         ("</tool_response>", False), ("<think>", False), ("</think>", False)]
WORD_SHARE = 0.73               # share of the merges that work inside words
SPLIT = regex.compile(PATTERN)
SPLIT_ADDED = regex.compile("(" + "|".join(regex.escape(s) for s, _ in ADDED) + ")")


def _byte_chars():
    """GPT-2's printable stand-in for every byte, and the bytes in vocabulary order."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    order = keep + [b for b in range(256) if b not in keep]
    return {b: chr(b) if i < len(keep) else chr(256 + i - len(keep))
            for i, b in enumerate(order)}, order


BYTE_CHAR, BYTE_ORDER = _byte_chars()
CHAR_BYTE = {c: b for b, c in BYTE_CHAR.items()}


def count_words(texts):
    """Pre-token -> weight.  Counts are flattened so that small languages get merges too."""
    count, plain = collections.Counter(), {s for s, _ in ADDED}
    for t in texts:
        for part in SPLIT_ADDED.split(t):
            if part and part not in plain:
                count.update(SPLIT.findall(part))
    return {w: c ** 0.6 for w, c in count.items()}


def is_prefixed(word):
    """A word with the one non-letter character the pattern lets in front of it."""
    return len(word) > 1 and not word[0].isalpha() and word[1].isalpha()


def learn_merges(words, n, allowed=lambda word, pair: True):
    """Greedy BPE over words = [[pieces], weight], in place; at most n merges."""
    weight, where = collections.Counter(), collections.defaultdict(set)

    def account(i, sign):
        w, c = words[i]
        for p in zip(w, w[1:]):
            if allowed(w, p):
                weight[p] += sign * c
                if sign > 0:
                    where[p].add(i)

    for i in range(len(words)):
        account(i, 1)
    merges = []
    while len(merges) < n and weight:
        best = max(weight, key=lambda p: (weight[p], p))
        if weight[best] < 1.5:
            break
        merges.append(best)
        for i in list(where[best]):
            account(i, -1)
            words[i][0] = merge(words[i][0], best)
            account(i, 1)
        del weight[best]
    return merges


def merge(pieces, pair):
    out, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i:i + 2]) == pair:
            out.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return out


def train(texts, size):
    weights = count_words(texts)
    spell = lambda s: [BYTE_CHAR[b] for b in s.encode()]
    room = size - 256 - len(ADDED)
    inner = collections.Counter()
    for w, c in weights.items():
        inner[w[1:] if is_prefixed(w) else w] += c
    merges = learn_merges([[spell(w), c] for w, c in inner.items() if w[0].isalpha()],
                          int(room * WORD_SHARE))
    # Now everything else: punctuation among itself, and a prefix onto a word that is one piece.
    rank = {p: i for i, p in enumerate(merges)}
    rest = []
    for w, c in weights.items():
        if w[0].isalpha():
            continue
        pieces = spell(w[0]) + bpe(spell(w[1:]), rank) if is_prefixed(w) else spell(w)
        if not is_prefixed(w) or len(pieces) == 2:
            rest.append([pieces, c])
    return merges + learn_merges(rest, room - len(merges))


def bpe(pieces, rank):
    while len(pieces) > 1:
        best = min(zip(pieces, pieces[1:]), key=lambda p: rank.get(p, len(rank)))
        if best not in rank:
            break
        pieces = merge(pieces, best)
    return pieces


class Tokenizer:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            d = json.load(f)
        self.vocab = d["model"]["vocab"]
        self.rank = {tuple(m): i for i, m in enumerate(d["model"]["merges"])}
        self.added = {t["content"]: t["id"] for t in d["added_tokens"]}
        self.bytes_of = {i: bytes(CHAR_BYTE[c] for c in t) for t, i in self.vocab.items()}
        self.bytes_of.update({i: t.encode() for t, i in self.added.items()})
        self.size, self.cache = len(self.bytes_of), {}
        self.stop = {self.added["<|im_end|>"], self.added["<|endoftext|>"]}

    def word(self, w):
        if w not in self.cache:
            self.cache[w] = [self.vocab[t] for t in bpe([BYTE_CHAR[b] for b in w.encode()], self.rank)]
        return self.cache[w]

    def encode(self, text):
        out = []
        for part in SPLIT_ADDED.split(text):
            if part in self.added:
                out.append(self.added[part])
            else:
                for w in SPLIT.findall(part):
                    out += self.word(w)
        return out

    def decode(self, ids):
        return b"".join(self.bytes_of.get(i, b"") for i in ids).decode("utf-8", "replace")


def save(merges, path):
    vocab = {BYTE_CHAR[b]: i for i, b in enumerate(BYTE_ORDER)}
    for a, b in merges:
        vocab[a + b] = len(vocab)
    n = len(vocab)
    added = [dict(id=n + i, content=s, single_word=False, lstrip=False, rstrip=False,
                  normalized=False, special=special) for i, (s, special) in enumerate(ADDED)]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
    split = dict(type="Split", pattern={"Regex": PATTERN}, behavior="Isolated", invert=False)
    model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix="",
                 end_of_word_suffix="", fuse_unk=False, byte_fallback=False, ignore_merges=False,
                 vocab=vocab, merges=[list(m) for m in merges])
    doc = dict(version="1.0", truncation=None, padding=None, added_tokens=added,
               normalizer={"type": "NFC"},
               pre_tokenizer={"type": "Sequence", "pretokenizers": [split, byte_level]},
               post_processor=byte_level, decoder=byte_level, model=model)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(doc, f, ensure_ascii=False, indent=1)
    return n + len(added)


def main():
    import gen
    from draw import Draw
    path, size = sys.argv[1], int(sys.argv[2])
    r = Draw(7)
    texts = [gen.render(c["messages"], c["tools"]) for c in (gen.case(r) for _ in range(30000))]
    print("vocabulary", save(train(texts, size), path))
    tok = Tokenizer(path)
    for s in texts[:300] + ["naïve 日本語 مرحبا 안녕 đường 🙂 x\n\n  y"]:
        assert tok.decode(tok.encode(s)) == s
    lengths = sorted(len(tok.encode(s)) for s in texts[:3000])
    print("tokens per case %.1f, bytes per token %.2f" % (
        sum(lengths) / 3000, sum(len(s.encode()) for s in texts[:3000]) / sum(lengths)))
    print("length quantiles", [lengths[int(q * 2999)] for q in (.25, .5, .75, .9, .99, 1)])


if __name__ == "__main__":
    main()
