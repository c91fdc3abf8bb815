/* gram.h - inside the grammar engine: nodes of the context-free part, and the automaton of
 * configurations built over them.
 * A configuration is a set of threads (state of one expression, stack of what follows), numbered
 * when first met; stacks are hash-consed cells, callers of one rule merged.  So the pushdown
 * automaton behaves as a DFA.  gram.c steps, gram_nodes.c builds nodes and orders rules.
 * Owns everything it holds.  Refuses more than the limits below: status of the arena turns
 * ERR_LIMIT.  Thread: one at a time. */
#ifndef QUERN_ENGINE_GRAMMAR_GRAM_H
#define QUERN_ENGINE_GRAMMAR_GRAM_H

#include "engine/grammar/rx.h"

#define GRAM_INF 0x7fffffffu
#define GRAM_NONE 0xffffffffu
enum {
    GRAM_MAX_NODES = 200000,
    GRAM_MAX_THREADS = 16384, /* in one configuration */
    GRAM_MAX_DEPTH = 512,     /* of a stack */
    GRAM_MAX_CONFIGS = 100000,
    GRAM_FREE_NAMES = 64, /* names of an object in any order: the set of those seen is one word, */
    GRAM_DEMANDS = 3,     /* on members or items; those that were met are its highest bits */
    GRAM_MET = 64 - GRAM_DEMANDS,
    GRAM_FEW = 3 /* items that each of several demands may want */
};

typedef enum { G_TERM, G_SEQ, G_ALT, G_ARR, G_OBJ, G_RULE, G_MERGE } gnode_kind;
typedef struct {
    uint8_t kind;
    uint32_t a, b; /* TERM: expression; SEQ, ALT: first kid, count; ARR, OBJ, RULE: index */
} gnode;

typedef struct {
    rx key; /* with quotes, white space and colon; R_NONE: may not occur */
    uint32_t value;
    bool required;
    uint32_t hits; /* kids, for every set of the object's demands but the empty one: the values that
                      meet those; 0: none do */
    uint64_t before, after; /* in any order: names that never stand behind this one, or before it */
} gprop;
typedef struct {
    uint32_t first, n;       /* props, in the schema's order */
    uint32_t extra, n_extra; /* props for keys that are not named */
    uint32_t min, max;       /* members */
    bool any_order;          /* of the named ones (at most GRAM_FREE_NAMES) */
    bool by_lists;           /* but for before and after; and the others stand behind them */
    bool xml;         /* <parameter=…> … </function>: keys and values bring their own ends */
    uint32_t demands; /* how many; each is met by one member at least */
} gobject;
typedef struct {
    uint32_t first, n; /* kids: one node an index */
    uint32_t item;     /* node of the others, GRAM_NONE: there are none */
    uint32_t min, max;
    uint32_t values, n_values; /* unique items: kids that are one value each, at most 64; n is 0 */
    uint32_t hits; /* kids, n + 1 times, the last for the others, one for every set of demands but
                      the empty one: an item may be this one instead, and those count it */
    uint32_t demands;
    struct {
        uint32_t least, most;
    } demand[GRAM_DEMANDS]; /* counted items; of several at most GRAM_FEW, without an upper bound */
} garray;

typedef struct {
    uint32_t node, pos, count, parent, depth;
    uint64_t seen;
} cell; /* one stack frame; 0 is the bottom: the text may end */
typedef struct {
    uint32_t state, stack;
} thread;
typedef struct {
    uint32_t first, n;
    bool accept;
} config; /* 0 is dead */
typedef struct {
    uint32_t node, stack;
} todo;

typedef struct {
    rx_arena r;
    bool free_order; /* of the objects made now */
    uint64_t units;  /* what a compile may still cost: one a schema that is looked at */
    uint32_t ticks;  /* the clock is read every 64th */
    double deadline; /* of the thread's CPU time, behind the units */
    VEC(gnode) nodes;
    VEC(uint32_t) kids;
    VEC(gprop) props;
    VEC(uint32_t) required_after; /* [props.n] required ones from here to the object's end */
    VEC(gobject) objects;
    VEC(garray) arrays;
    VEC(uint32_t) rules; /* body of each */
    VEC(uint32_t) rank;  /* callers without a byte in between come first */
    rx ws, open_obj, close_obj, close_xml, open_arr, close_arr, comma, colon;
    rx ch, string, integer, number, plain_string, plain_number; /* plain: one spelling a value */
    uint32_t merge, any, never;                                 /* nodes */
    /* the automaton */
    VEC(cell) cells;
    VEC(uint32_t) merged; /* stacks of the merge cells */
    VEC(thread) threads;
    VEC(config) configs;
    id_table cell_index, config_index, merge_index;
    uint32_t *next; /* [next_rows x n_cls] */
    uint32_t next_rows, start, root;
    uint32_t epoch; /* how often the automaton started anew: ids of another epoch mean nothing */
    VEC(todo) work;
    VEC(todo) pending;
    VEC(thread) found;
} gram;

int gram_init(gram *g);
double gram_cpu_seconds(void); /* of this thread: other work on the machine changes no verdict */
void gram_clear(gram *g);
uint32_t gram_node(gram *g, gnode_kind kind, uint32_t a, uint32_t b);
uint32_t gram_term(gram *g, rx e);
uint32_t gram_list(gram *g, gnode_kind kind, const uint32_t *v, uint32_t n);
uint32_t gram_rule(gram *g);
/* The node of any JSON value whose strings are also in `guard`, and (object may be NULL) of any
 * object of such. */
uint32_t gram_any(gram *g, rx guard, uint32_t *object);
bool gram_never(const gram *g, uint32_t node); /* plainly matches nothing */
/* The node of item `index` that the demands of the set count; GRAM_NONE: there is none. */
uint32_t gram_item(const gram *g, const garray *a, uint32_t index, uint32_t set);
/* The counts (a cell's seen) behind one more item; false if that is too many. */
bool gram_count(const garray *a, uint32_t set, uint64_t *counts);
bool gram_enough(const garray *a, uint64_t counts);
/* Whether an array with demands, so many items and counts can still be completed out of nodes that
 * can (NULL: that do not plainly match nothing). */
bool gram_reaches(const gram *g, const garray *a, const uint8_t *can, uint32_t index,
                  uint64_t counts);
/* The same of a whole object.  Behind some members (from: names may come from there on; seen as in
 * a cell): members besides the required ones that it takes until all demands are met; GRAM_INF:
 * never. */
bool gram_can_object(const gram *g, const gobject *o, const uint8_t *can);
uint32_t gram_until_met(const gram *g, const gobject *o, const uint8_t *can, uint32_t from,
                        uint64_t seen);
/* Drops what cannot be completed, orders the rules, starts the automaton.  0, ERR_INVALID if the
 * root matches nothing, ERR_UNSUPPORTED on left recursion, else the arena's status. */
int gram_finish(gram *g, uint32_t root);

/* Forgets all configurations and what was derived for them: the automaton starts anew. */
int gram_restart(gram *g);
/* The same, but configurations *ids[n] are known to the new automaton: their ids are rewritten
 * (gram_move.c).  0, or ERR_* and none of them is known. */
int gram_move(gram *g, uint32_t *const *ids, uint32_t n);
/* The configuration after a byte, 0 if dead. */
uint32_t gram_step(gram *g, uint32_t c, uint8_t byte);
/* What may follow once the terminal above a stack has ended. */
uint32_t gram_after(gram *g, uint32_t stack);
/* The configuration of these threads, and the one of two together. */
uint32_t gram_of_threads(gram *g, const thread *t, uint32_t n, bool accept);
uint32_t gram_union(gram *g, uint32_t a, uint32_t b);
/* What gram.c and gram_forms.c share.  A cell's pos is a phase and, in objects, the index of a
 * member. */
enum { GRAM_OPEN, GRAM_NEXT, GRAM_KEY, GRAM_VALUE };
void gram_go(gram *g, uint32_t node, uint32_t stack);
void gram_thread(gram *g, rx e, uint32_t stack);
void gram_resume_object(gram *g, const cell *c);
void gram_resume_array(gram *g, const cell *c);
/* A stack with one more frame; one stack for all of merged[from..]. */
uint32_t gram_push_cell(gram *g, cell c);
uint32_t gram_merge_callers(gram *g, uint32_t from);
/* Memory the automaton holds. */
size_t gram_bytes(const gram *g);

#endif
