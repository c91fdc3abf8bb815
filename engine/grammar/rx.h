/* rx.h - regular expressions over bytes: hash-consed nodes, Brzozowski derivatives, and the lazy
 * DFA made of them.  Intersection, complement, counters and "multiple of m" are primitives, so
 * nothing is ever expanded: a{1000000} is one node. Owns all nodes of an arena.  Refuses more than
 * RX_MAX_NODES nodes and work beyond `fuel`: status turns ERR_LIMIT (or ERR_NOMEM), results are
 * then meaningless and the caller must look. Thread: one at a time per arena. */
#ifndef QUERN_ENGINE_GRAMMAR_RX_H
#define QUERN_ENGINE_GRAMMAR_RX_H

#include "engine/grammar/vec.h"

#include <stddef.h>

typedef uint32_t rx; /* an expression: index of its node */
typedef enum { RX_NONE, RX_EPS, RX_SET, RX_CAT, RX_ALT, RX_AND, RX_NOT, RX_REP, RX_MOD } rx_kind;
enum { R_NONE = 0, R_EPS = 1, R_ALL = 2 }; /* nothing, the empty text, every text */
#define RX_INF 0x7fffffffu
#define RX_MAX_NODES 1000000u
#define RX_UNKNOWN 0xffffffffu

typedef struct {
    uint64_t w[4];
} byte_set;

typedef struct {
    uint8_t kind, nullable;
    uint8_t pos;       /* no & or ~ inside: never empty unless R_NONE */
    uint8_t live;      /* 0 not known, 1 matches something, 2 matches nothing, 3 being explored */
    uint32_t at;       /* while it is explored: its place among those met */
    uint32_t far;      /* a guess of how many bytes are missing */
    uint32_t a, b;     /* children; lists: first kid and count; SET: set; MOD: m and remainder */
    uint32_t min, max; /* REP: bounds; MOD: 1 + fraction digits seen (0: none yet), digits k */
} rx_node;

typedef struct {
    rx e;
    bool nullable;
} rx_state;

typedef struct {
    int status; /* 0, ERR_NOMEM or ERR_LIMIT */
    VEC(rx_node) nodes;
    VEC(rx) kids;
    VEC(byte_set) sets;
    id_table index, set_index;
    rx bytes[256];              /* the set of one byte, 0: not looked for yet */
    uint64_t sig[256];          /* of a byte over the sets that were classed */
    uint8_t cls[256], rep[256]; /* byte -> class, class -> a byte of it */
    uint32_t n_cls, sets_classed;
    bool frozen;
    uint32_t mark_nodes, mark_kids, mark_sets; /* what rx_rewind keeps */
    struct rx_memo *memo;
    uint32_t memo_cap, memo_n;
    uint64_t fuel;  /* work left: a derivative is 1, and so are FUEL_SMALL smaller steps */
    uint32_t small; /* of those not yet counted */
    uint32_t depth;
    VEC(rx) list;         /* the members of a list that is being made, */
    VEC(rx) parts;        /* and the derivatives of those of the lists on the way to one */
    VEC(rx_state) states; /* 0 dead, 1 "" */
    VEC(uint32_t) state_of;
    uint32_t *next; /* [states.cap_rows x n_cls] */
    uint32_t next_rows;
} rx_arena;

/* Work done: n derivatives, or what costs as much; n small steps, such as one member of a list, one
 * byte tried, one thread moved.  False when there is no fuel left: status is ERR_LIMIT and fuel 0,
 * which tells this limit from the others. */
enum { FUEL_SMALL = 8 };
static inline bool rx_spend(rx_arena *r, uint64_t n)
{
    if (r->fuel > n) {
        r->fuel -= n;
        return true;
    }
    r->fuel = 0;
    if (!r->status) r->status = ERR_LIMIT;
    return false;
}
static inline bool rx_spend_small(rx_arena *r, uint32_t n)
{
    n += r->small;
    r->small = n % FUEL_SMALL;
    return n < FUEL_SMALL || rx_spend(r, n / FUEL_SMALL);
}

/* The node equal to x, made if there is none (rx_dfa.c). */
rx rx_intern(rx_arena *r, rx_node x);
int rx_reindex(rx_arena *r); /* indexes of the right size over the nodes and sets there are */
int rx_init(rx_arena *r);
/* A copy of an arena that was never frozen. */
int rx_copy(rx_arena *r, const rx_arena *from);
void rx_clear(rx_arena *r);
void rx_drop_scratch(rx_arena *r); /* gives back what is empty between two calls */

rx rx_set(rx_arena *r, const byte_set *s);
rx rx_byte(rx_arena *r, uint8_t b);
rx rx_range(rx_arena *r, uint8_t a, uint8_t b);
rx rx_cat(rx_arena *r, rx a, rx b);
rx rx_cat3(rx_arena *r, rx a, rx b, rx c);
rx rx_alt(rx_arena *r, const rx *v, uint32_t n);
rx rx_alt2(rx_arena *r, rx a, rx b);
rx rx_and(rx_arena *r, const rx *v, uint32_t n);
rx rx_and2(rx_arena *r, rx a, rx b);
rx rx_not(rx_arena *r, rx a);
rx rx_rep(rx_arena *r, rx a, uint32_t min, uint32_t max);
rx rx_opt(rx_arena *r, rx a);
rx rx_star(rx_arena *r, rx a);
rx rx_lit(rx_arena *r, const char *s, size_t n);
rx rx_lit_then(rx_arena *r, const char *s, size_t n, rx e); /* s[n], then e */
rx rx_str(rx_arena *r, const char *s);
/* Decimal numbers (`-`, digits, `.`, digits) that are a multiple of m / 10^k; the shape of the
 * number is for the caller to intersect with.  m * (k + 1) <= 4096. */
rx rx_multiple(rx_arena *r, uint32_t m, uint32_t k);

typedef struct {
    const char *s; /* [n] */
    uint32_t n;
} rx_text;
/* Any of v[n] (sorted in place), as a trie: a derivative touches one branch only. */
rx rx_texts(rx_arena *r, rx_text *v, uint32_t n);

/* Derivative by a byte; whether e matches anything at all; whether it matches s[n]. */
rx rx_deriv(rx_arena *r, rx e, uint8_t byte);
bool rx_live(rx_arena *r, rx e);
bool rx_match(rx_arena *r, rx e, const char *s, size_t n);

/* The lazy DFA.  rx_freeze fixes the byte classes: no new sets afterwards. */
int rx_freeze(rx_arena *r);
/* Back to the nodes there were at the freeze; no states, no memo, the memory given back. */
int rx_rewind(rx_arena *r);
size_t rx_bytes(const rx_arena *r); /* memory held */
uint32_t rx_state_of(rx_arena *r, rx e);
uint32_t rx_step_slow(rx_arena *r, uint32_t state, uint32_t cls);
static inline uint32_t rx_step(rx_arena *r, uint32_t state, uint8_t byte)
{
    uint32_t c = r->cls[byte], d = r->next[(size_t)state * r->n_cls + c];
    return d != RX_UNKNOWN ? d : rx_step_slow(r, state, c);
}

#endif
