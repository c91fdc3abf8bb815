"""Seeded random texts that have broken tokenizers.  texts(n, seed) is used by tokenizer_compare.py and
make_tokenizer_golden.py."""
import random

WORDS = ("the of and to in that is was he for it with as his on be at by had not are but from or have an they which "
         "one you were her all she there would their we him been has when who will more no if out so said what up its "
         "about into than them can only other new some could time these two may then do first any my now such like "
         "our over man me even most made after also did many before must through back years where much your way well "
         "don't I'll they've he'd we're it's I'm OK USA iPhone naïve café Straße coöperate").split()
CODE = ["def f(x):\n    return x+1\n", "for(int i=0;i<n;++i){\n\tsum+=a[i];\n}\n", "{\"key\": [1, 2.5e-3, null]}\n",
        "<div class=\"a\">&nbsp;</div>\r\n", "SELECT * FROM t WHERE a>='x' -- c\n", "#include <stdio.h>\n\n\n", "\\frac{a}{b}",
        "https://example.com/a?b=c&d=%20#e", "x=>y=>z", "0x1F 1_000_000 3.14159 1e10", "    \t    if (!p) goto done;\n"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏴‍☠️", "🇩🇪", "🇯🇵🇰🇷", "❤️", "☺", "1️⃣", "🧑🏿‍🚀", "🫠", "\U0001faea", "🏳️‍🌈", "⌚️"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", "\v", "\f", "\u0085", "\u00a0", "\u1680", "\u180e", "\u2003", "\u2028",
          "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u200b", "\u200d", "\n \n", " \n", "\t\t"]
MARKS = [chr(c) for c in list(range(0x300, 0x370)) + list(range(0x591, 0x5be)) + list(range(0x64b, 0x660)) +
         [0x93c, 0x94d, 0x9bc, 0xe38, 0xe48, 0xeb8, 0xf71, 0xf72, 0x1039, 0x3099, 0x309a, 0x20d0, 0x1d165, 0x1ab0, 0x302a, 0x345, 0x7fd, 0x898,
          0x1dfa, 0x10eab, 0x10efd, 0x1e08f, 0x1e2ae, 0x897, 0x338]]
BASES = "aeiouAOUncsSzdegDEФиαωΩかきハヒ한ᄒᄀಕকதअเกཀ\u212b\u2126\u1e9b\u0958\u0340\u0344\u0387\u037e\u2000\ufb1d\uf900\u09c7\u0bc6\u1100"
QUOTES = ["'s", "'S", "'t", "'T", "'re", "'RE", "'Ve", "'m", "'ll", "'LL", "'d", "'D", "’s", "'", "''", "'\u017f", "'l", "'lL", "'x", "`", "\"", "'res",
          "''s", "' s"]
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
         "<|fim_prefix|>", "<|", "|>", "<|im_", "end|>", "<|im_end", "|im_end|>", "<<|im_end|>>", "<thinking>", "<|im_start|>system\n", "<"]
SCRIPTS = [(0x41, 0x7a), (0xc0, 0x24f), (0x370, 0x3ff), (0x400, 0x52f), (0x531, 0x58f), (0x5d0, 0x5ea), (0x620, 0x64a), (0x904, 0x939),
           (0x985, 0x9b9), (0xe01, 0xe30), (0xe81, 0xeb0), (0x10a0, 0x10ff), (0x1100, 0x11ff), (0x1200, 0x137c), (0x13a0, 0x13ff), (0x1780, 0x17b3),
           (0x3041, 0x3096), (0x30a1, 0x30fa), (0x3105, 0x312f), (0xa000, 0xa48c), (0xac00, 0xd7a3), (0xff01, 0xff5e), (0x10400, 0x1044f)]
DIGITS = ["0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "ⅠⅡⅢⅣ", "①②③", "½¼¾²³", "𝟘𝟙𝟚", "〇一二三", "\U0001d2c0\U0001d2c5", "𐒠𐒡"]


def join(r, parts, lo, hi):
    return "".join(r.choice(parts) for _ in range(r.randint(lo, hi)))


def code_point(r):
    while True:
        c = r.randrange(1, 0x110000)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def any_points(r):
    return "".join(code_point(r) for _ in range(r.randint(1, 12)))


def low_points(r):
    top = r.choice([0x80, 0x100, 0x800, 0x3000, 0xD800])
    return "".join(chr(r.randrange(1, top)) for _ in range(r.randint(1, 24)))


def white(r):
    return join(r, SPACES, 1, 12) + r.choice(["", "a", ".", "1", "é"]) + join(r, SPACES + ["a", "!"], 0, 6)


def english(r):
    return join(r, [w + s for w in WORDS for s in (" ", " ", ", ", ". ", "\n", "-", "")], 1, 16)


def cjk(r):
    pick = lambda: chr(r.choice([r.randrange(0x4E00, 0xA000), r.randrange(0x3400, 0x4DC0), r.randrange(0x20000, 0x2A6E0),
                                 r.randrange(0x3000, 0x3040), r.randrange(0x31350, 0x323B0), r.randrange(0xF900, 0xFAFF)]))
    return "".join(pick() for _ in range(r.randint(1, 10))) + r.choice(["，", "。", "！", "a", "1", " "]) + "社区非常活跃"[: r.randint(0, 6)]


def emoji(r):
    return join(r, EMOJI + [" ", "a", "!", "\u200d", "\ufe0f"], 1, 8)


def marks(r):
    s = ""
    for _ in range(r.randint(1, 5)):
        s += r.choice(BASES) + join(r, MARKS, 0, 5)
    return s


def hangul(r):
    jamo = [chr(c) for c in list(range(0x1100, 0x1113)) + list(range(0x1161, 0x1176)) + list(range(0x11A7, 0x11C3))]
    return join(r, jamo + ["가", "각", "힣", " "], 1, 12)


def added(r):
    return join(r, ADDED + ["x", " ", "\n", "é", "e\u0301", "中", "1"], 1, 8)


def numbers(r):
    return "".join(join(r, list(r.choice(DIGITS)), 1, 6) + r.choice(["", " ", ".", ",", "-", "a", "%"]) for _ in range(r.randint(1, 5)))


def apostrophes(r):
    return join(r, QUOTES + WORDS[:12] + [" ", "\n"], 1, 10)


def scripts(r):
    s = ""
    for _ in range(r.randint(1, 6)):
        lo, hi = r.choice(SCRIPTS)
        s += "".join(chr(r.randint(lo, hi)) for _ in range(r.randint(1, 6))) + r.choice(["", " ", ".", "'s"])
    return s


def code(r):
    return join(r, CODE, 1, 4)


def punctuation(r):
    return "".join(r.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \n\ra1。、…—“”«»") for _ in range(r.randint(1, 24)))


def runs(r):
    return r.choice(["A", "é", " ", "1", "us", "\n", "=", "ab", "的", "😀", "\u0301", "\r\n", "-"]) * r.randint(2, 120)


def broken_bytes(r):
    """Invalid UTF-8 as a client's decoder leaves it: with U+FFFD."""
    return bytes(r.randrange(256) for _ in range(r.randint(1, 24))).decode("utf8", "replace").replace("\0", "\ufffd")


def mixed(r):
    return "".join(r.choice(GENERATORS[:-1])(r) for _ in range(r.randint(2, 4)))


GENERATORS = [any_points, low_points, white, english, cjk, emoji, marks, hangul, added, numbers, apostrophes, scripts, code,
              punctuation, runs, broken_bytes, mixed]


def texts(n, seed):
    """n texts, each generator in turn.  NUL does not occur (our JSON reader turns it into U+FFFD)."""
    r = random.Random(seed)
    return [GENERATORS[i % len(GENERATORS)](r) for i in range(n)]
