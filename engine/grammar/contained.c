/* contained.c - which alphabet's texts a byte state survives.  Only ever too few: what is not seen
 * to be contained is walked instead.
 * Three ways: the shape X{m,n}T where X matches every character of the alphabet; the same without a
 * finite number of texts (names of other members), which longer texts always escape; and following
 * every text of the alphabet through the DFA where that closes on a few states.
 * Owns nothing.  Errors: the arena's status.  Thread: the arena's. */
#include "engine/grammar/masks.h"

enum { CLOSED_MAX = 24, LETTER_STATES = 24, NESTING = 4 };

/* One byte of each class that may stand at a place of a character. */
static const letter_list *letters_at(mask_cache *c, rx_arena *r, int alphabet, uint8_t at)
{
    letter_list *l = c->letters[alphabet][at];
    if (l) return l;
    l = malloc(sizeof *l);
    if (!l) {
        r->status = ERR_NOMEM;
        return NULL;
    }
    l->n = 0;
    for (int b = 0; b < 256; b++) {
        uint8_t next = alphabet_next(alphabet, at, (uint8_t)b);
        uint32_t i = 0;
        if (next == UTF8_BAD) continue;
        while (i < l->n && (r->cls[l->v[i].byte] != r->cls[b] || l->v[i].next != next)) i++;
        if (i == l->n) l->v[l->n++] = (letter){r->rep[r->cls[b]], next};
    }
    return c->letters[alphabet][at] = l;
}

/* Whether e matches every character of an alphabet; exact: and stops behind it. */
static bool matches_letters(mask_cache *c, rx_arena *r, rx e, int alphabet, bool exact)
{
    struct {
        rx e;
        uint8_t at;
    } q[LETTER_STATES] = {{e, 0}};
    uint32_t n = 1;
    for (uint32_t i = 0; i < n; i++) {
        const letter_list *l = letters_at(c, r, alphabet, q[i].at);
        for (uint32_t j = 0; l && j < l->n; j++) {
            rx d = rx_deriv(r, q[i].e, l->v[j].byte);
            uint8_t next = l->v[j].next;
            uint32_t k = 0;
            if (d == R_NONE || r->status) return false;
            if (!next) {
                if (exact ? d != R_EPS : !r->nodes.p[d].nullable) return false;
                continue;
            }
            while (k < n && (q[k].e != d || q[k].at != next)) k++;
            if (k < n) continue;
            if (n == LETTER_STATES) return false;
            q[n].e = d;
            q[n++].at = next;
        }
        if (!l) return false;
    }
    return true;
}

static uint32_t letters_of(mask_cache *c, rx_arena *r, rx e, bool exact)
{
    if (!rx_facts(c, r, e)) return 0;
    rx_fact *f = &c->facts.p[e];
    if (f->letters_known >> exact & 1) return f->letters[exact];
    uint16_t m = 0;
    for (int a = 0; a < N_ALPHABETS; a++)
        if (matches_letters(c, r, e, a, exact)) m |= (uint16_t)(1u << a);
    if (r->status) return 0;
    f = &c->facts.p[e];
    f->letters_known |= (uint8_t)(1u << exact);
    return f->letters[exact] = m;
}

/* Alphabets none of whose texts begin with a byte of the set. */
static uint32_t alphabets_without(const byte_set *s)
{
    uint32_t m = 0;
    for (int a = ALPHABET_TEXT; a < N_ALPHABETS; a++) {
        bool ok = true;
        for (int b = 0; b < 256 && ok; b++)
            ok = !(s->w[b >> 6] >> (b & 63) & 1) || alphabet_next(a, 0, (uint8_t)b) == UTF8_BAD;
        m |= ok ? 1u << a : 0;
    }
    return m;
}

/* X{m,n}T; *k is n where more than n characters are surely too many. */
static uint32_t by_count(mask_cache *c, rx_arena *r, const rx_node *rep, rx tail, uint32_t *k)
{
    uint32_t m;
    if (rep->max > SLICE_MAX) {
        m = letters_of(c, r, rep->a, false);
        return rep->max > VOCAB_MAX_BYTES ? m : m & ~(1u << ALPHABET_ANY); /* has no length */
    }
    if (r->nodes.p[tail].kind == RX_CAT) tail = r->nodes.p[tail].a;
    const rx_node t = r->nodes.p[tail];
    m = tail == R_EPS      ? ~(1u << ALPHABET_ANY)
        : t.kind == RX_SET ? alphabets_without(&r->sets.p[t.a])
                           : 0;
    if (m) m &= letters_of(c, r, rep->a, true);
    *k = rep->max;
    return m;
}

/* Alphabets found by the shape of e; *k as by_count says. */
static uint32_t by_shape(mask_cache *c, rx_arena *r, rx e, uint32_t *k, int depth)
{
    const rx_node x = r->nodes.p[e];
    uint32_t m = 0, kk;
    rx one = R_NONE;
    *k = RX_INF;
    if (depth > NESTING || r->status) return 0;
    switch (x.kind) {
    case RX_REP: return by_count(c, r, &x, R_EPS, k);
    case RX_CAT:
        if (r->nodes.p[x.a].kind == RX_REP) {
            const rx_node rep = r->nodes.p[x.a];
            return by_count(c, r, &rep, x.b, k);
        }
        m = by_shape(c, r, x.a, &kk, depth + 1);
        return kk == RX_INF ? m : 0;
    case RX_ALT:
        for (uint32_t i = 0; i < x.b && i < 8; i++) {
            uint32_t q = by_shape(c, r, r->kids.p[x.a + i], &kk, depth + 1);
            if (kk == RX_INF) m |= q;
        }
        return m;
    case RX_AND:
        for (uint32_t i = 0; i < x.b; i++) {
            rx y = r->kids.p[x.a + i];
            const rx_node n = r->nodes.p[y];
            if (n.kind == RX_NOT) {
                const rx_fact *f = rx_facts(c, r, n.a);
                if (!f || !f->finite) return 0;
            } else if (one == R_NONE && n.kind == RX_CAT && r->nodes.p[n.a].kind == RX_REP &&
                       r->nodes.p[n.a].max == RX_INF && n.pos) {
                one = y;
            } else {
                return 0;
            }
        }
        return one == R_NONE ? 0 : by_shape(c, r, one, k, depth + 1);
    default: return 0;
    }
}

/* Whether no text of an alphabet, cut where you like, kills the state. */
static bool closed_under(mask_cache *c, rx_arena *r, uint32_t state, int alphabet)
{
    struct {
        uint32_t state;
        uint8_t at;
    } q[CLOSED_MAX] = {{state, 0}};
    uint32_t n = 1;
    for (uint32_t i = 0; i < n; i++) {
        const letter_list *l = letters_at(c, r, alphabet, q[i].at);
        if (!l || !mask_walk(c, r, l->n)) return false;
        for (uint32_t j = 0; j < l->n; j++) {
            uint32_t d = rx_step(r, q[i].state, l->v[j].byte), k = 0;
            uint8_t next = l->v[j].next;
            if (!d || r->status) return false;
            while (k < n && (q[k].state != d || q[k].at != next)) k++;
            if (k < n) continue;
            if (n == CLOSED_MAX) return false;
            q[n].state = d;
            q[n++].at = next;
        }
    }
    return true;
}

int contained_alphabet(mask_cache *c, rx_arena *r, uint32_t state, uint32_t *k)
{
    uint32_t m = by_shape(c, r, r->states.p[state].e, k, 0);
    if (m) return __builtin_ctz(m);
    *k = RX_INF;
    for (int a = 0; a < N_ALPHABETS && !r->status; a++)
        if (closed_under(c, r, state, a)) return a;
    return -1;
}
