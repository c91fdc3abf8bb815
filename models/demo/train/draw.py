"""Seeded randomness and fresh strings for the demo's conversations, and the split of what is never
trained on.  Nothing here reads a clock or an unseeded generator.
"""
import json
import random
import zlib

from facts import CITIES, CITIES_HELD, NAMES, NAMES_HELD, PHRASES_A, PHRASES_B, PHRASES_C, PHRASES_D, SPELL

HOLD = 12                       # one key in HOLD is held out


def held(key):
    return zlib.crc32(key.encode()) % HOLD == 0


def to_json(x):
    return json.dumps(x, ensure_ascii=False)


def capitalised(s):
    return s[0].upper() + s[1:]


def with_article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


# ---------------------------------------------------------------- fresh strings
ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fr gr pr tr st sh ch th bl cl pl qu".split()
VOWELS = "a e i o u a e i o u ai ea ee io ou ia y".split()
CODAS = [""] * 9 + "n r l s t m d ck nd rt ll ng".split()
KEPT_BACK = set(NAMES_HELD + CITIES_HELD)
TABLE_WORDS = [w for w in NAMES + CITIES if w.isalpha() and w.isascii()] + SPELL


class Draw(random.Random):
    """Seeded randomness plus invented words.  `unseen` makes every name, place and word one that
    training never shows: a held-out invention or an entry of the tables kept back for scoring."""

    def __init__(self, seed, unseen=False):
        super().__init__(seed)
        self.unseen = unseen

    def invent(self):
        """A lower-case invented word: syllables, or the halves of two table words."""
        while True:
            if self.random() < 0.65:
                w = "".join(self.choice(ONSETS) + self.choice(VOWELS) + self.choice(CODAS)
                            for _ in range(self.choices([1, 2, 3], [1, 6, 3])[0]))
                if self.random() < 0.15:
                    w = self.choice("aeiou") + w
            else:
                a, b = self.choice(TABLE_WORDS).lower(), self.choice(TABLE_WORDS).lower()
                w = a[:self.randint(2, 4)] + b[-self.randint(2, 4):]
            if (len(w) >= 3 and held("word:" + w) == self.unseen
                    and capitalised(w) not in KEPT_BACK):
                return w

    def word(self):
        if self.unseen or self.random() < 0.7:
            return self.invent()
        return self.choice(SPELL)

    def name(self):
        if self.unseen:
            return self.choice(NAMES_HELD) if self.random() < 0.5 else capitalised(self.invent())
        return self.choice(NAMES) if self.random() < 0.4 else capitalised(self.invent())

    def place(self):
        if self.unseen:
            return self.choice(CITIES_HELD) if self.random() < 0.5 else capitalised(self.invent())
        x = self.random()
        if x < 0.42:
            return self.choice(CITIES)
        if x < 0.48:
            return self.choice(["New", "San", "Port", "Saint", "Lake"]) + " " + capitalised(self.invent())
        return capitalised(self.invent())

    def phrase(self):
        return " ".join(self.choice(p) for p in (PHRASES_A, PHRASES_B, PHRASES_C, PHRASES_D))

    def one_of(self, text):
        """One of the |-separated alternatives."""
        return self.choice(text.split("|"))
