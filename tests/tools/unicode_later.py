#!/usr/bin/env python3
"""Writes engine/text/unicode_later.h: characters that Hugging Face's regular expression engine puts in
a general category and Unicode 14 does not know yet.  Needs the PyPI package tokenizers, and a Python
whose unicodedata is Unicode 14.0 (3.11)."""
import sys
import unicodedata

from tokenizers import Regex, pre_tokenizers

HEAD = """/* unicode_later.h - characters assigned after Unicode 14, with their general category.
 * Hugging Face's engine knows them (up to Unicode 16); the PCRE2 of Debian 12 stops at Unicode 14.
 * Written by tests/tools/unicode_later.py.  Included by pretok.c only. */
#ifndef QUERN_ENGINE_TEXT_UNICODE_LATER_H
#define QUERN_ENGINE_TEXT_UNICODE_LATER_H

#include <stdint.h>

static const struct {
    uint32_t lo, hi; /* inclusive; rising */
    char category;
} UNICODE_LATER[] = {
"""


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit("unicodedata is Unicode %s, 14.0.0 is needed" % unicodedata.unidata_version)
    cats = {c: pre_tokenizers.Split(Regex(r"a\p{%s}|a" % c), "isolated") for c in "LMNPSZ"}
    rows = []
    for cp in range(0x110000):
        if 0xD800 <= cp < 0xE000 or unicodedata.category(chr(cp)) != "Cn":
            continue
        for c, split in cats.items():
            if len(split.pre_tokenize_str("a" + chr(cp))) == 1:
                if rows and rows[-1][1] == cp - 1 and rows[-1][2] == c:
                    rows[-1][1] = cp
                else:
                    rows.append([cp, cp, c])
    print(HEAD, end="")
    for i in range(0, len(rows), 3):
        print("    " + " ".join("{0x%X, 0x%X, '%s'}," % tuple(r) for r in rows[i : i + 3]))
    print("};\n\n#endif")


main()
