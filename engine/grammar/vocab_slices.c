/* vocab_slices.c - alphabets, and the tokens that are texts of one.
 * Owns the slices it makes.  Errors: ERR_NOMEM.  Thread: the builder's. */
#include "engine/grammar/vocab_impl.h"

uint8_t utf8_next(uint8_t at, uint8_t b)
{
    /* of each continuation: the first and last byte, and where it leads */
    static const struct {
        uint8_t lo, hi, to;
    } tail[UTF8_STATES] = {{0},
                           {0x80, 0xbf, 0},
                           {0x80, 0xbf, 1},
                           {0x80, 0xbf, 2},
                           {0xa0, 0xbf, 1},
                           {0x80, 0x9f, 1},
                           {0x90, 0xbf, 2},
                           {0x80, 0x8f, 2},
                           {0x80, 0xbf, 1},
                           {0x80, 0xbf, 0}};
    if (at) {
        if (b < tail[at].lo || b > tail[at].hi) return UTF8_BAD;
        return at == 8 && b == 0x80 ? 9 : tail[at].to; /* 8 and 9: towards U+2000 to U+203F */
    }
    if (b < 0x80) return 0;
    if (b < 0xc2 || b > 0xf4) return UTF8_BAD;
    if (b < 0xe0) return 1;
    if (b >= 0xf0) return b == 0xf0 ? 6 : b == 0xf4 ? 7 : 3;
    return b == 0xe0 ? 4 : b == 0xe2 ? 8 : b == 0xed ? 5 : 2;
}

static bool has_ascii(int alphabet, uint8_t b)
{
    bool upper = b >= 'A' && b <= 'Z', lower = b >= 'a' && b <= 'z', digit = b >= '0' && b <= '9';
    switch (alphabet) {
    case ALPHABET_TEXT: return b != '<' && (b >= 0x20 || b == '\t' || b == '\n' || b == '\r');
    case ALPHABET_JSON: return b >= 0x20 && b != '"' && b != '\\';
    case ALPHABET_ASCII: return b >= 0x20 && b != '"' && b != '\\' && b != 0x7f;
    case ALPHABET_NAME: return upper || lower || digit || (b && strchr(" ._-", b));
    case ALPHABET_WORDS: return upper || lower || digit || b == ' ';
    case ALPHABET_LETTERS_SPACE: return upper || lower || b == ' ';
    case ALPHABET_ALNUM: return upper || lower || digit;
    case ALPHABET_LETTERS: return upper || lower;
    default: return lower;
    }
}

uint8_t alphabet_next(int alphabet, uint8_t at, uint8_t b)
{
    if (alphabet == ALPHABET_ANY) return b == '<' || b == VOCAB_NAMED ? UTF8_BAD : 0;
    if (b < 0x80) return !at && has_ascii(alphabet, b) ? 0 : UTF8_BAD;
    if (alphabet > ALPHABET_JSON) return UTF8_BAD;
    if (at == 9 && (b == 0xa8 || b == 0xa9)) return UTF8_BAD;
    return utf8_next(at, b);
}

/* Characters of a token that is a text of the alphabet, 0 if it is none. */
static uint32_t characters(const grammar_vocab *v, int alphabet, uint32_t id)
{
    uint32_t n = 0;
    uint8_t at = 0;
    for (uint32_t i = v->at[id]; i < v->at[id + 1]; i++) {
        at = alphabet_next(alphabet, at, v->bytes[i]);
        if (at == UTF8_BAD) return 0;
        n += at == 0;
    }
    return at ? 0 : n;
}

int vocab_slices(grammar_vocab *v, const uint32_t *ids, uint32_t n)
{
    uint32_t *rest = malloc(((size_t)n + 1) * sizeof *rest);
    int rc = rest ? 0 : ERR_NOMEM;
    for (int a = 0; a < N_ALPHABETS && !rc; a++) {
        uint32_t *s = v->slice[a] = calloc((size_t)(SLICE_MAX + 1) * v->words, sizeof *s), m = 0;
        if (!s) rc = ERR_NOMEM;
        for (uint32_t i = 0; i < n && !rc; i++) {
            uint32_t k = characters(v, a, ids[i]);
            if (k && a == ALPHABET_ANY) k = 1; /* its texts have no length */
            if (!k || k > SLICE_MAX) rest[m++] = ids[i];
            else s[(size_t)k * v->words + (ids[i] >> 5)] |= 1u << (ids[i] & 31);
        }
        for (size_t w = v->words; w < (size_t)(SLICE_MAX + 1) * v->words && !rc; w++)
            s[w] |= s[w - v->words];
        if (!rc) rc = trie_build(&v->rest[a], v, rest, m, NULL);
    }
    free(rest);
    return rc;
}
