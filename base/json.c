/* json.c - the strict reader of json.h.
 * Owns: one copy of the text, in which strings are decoded in place (a decoded string is never
 * longer than its source), and an arena of nodes and lookup tables.
 * Refuses: see json.h.  The parser keeps its own stack, so depth costs no C stack.
 * Thread: any. */
#include "base/json.h"

#include "base/file.h"
#include "base/map.h"
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEPTH_DEFAULT = 128,
    DEPTH_MAX = 1000, /* json_dump and json_print recurse, about 100 bytes of stack a level */
    LINEAR_MAX = 16,  /* children that are searched one by one */
    CHUNK_MIN = 1024,
    CHUNK_MAX = 4 << 20,
};
static const size_t VALUES_DEFAULT = 2000000;

/* ---- arena ---- */

typedef struct chunk chunk;
struct chunk {
    chunk *next;
    max_align_t v[]; /* the memory handed out */
};

struct json_doc {
    chunk *chunks;  /* owned; the newest first */
    char *at, *end; /* free part of the newest */
    size_t next_size;
    char *text; /* [n + 1] owned */
};

static void *arena_take(json_doc *d, size_t n)
{
    n = (n + 7) & ~(size_t)7; /* pointers and sizes: nothing here needs more */
    if (n > (size_t)(d->end - d->at)) {
        size_t size = n > d->next_size ? n : d->next_size;
        chunk *c = malloc(sizeof *c + size);
        if (!c) return NULL;
        c->next = d->chunks;
        d->chunks = c;
        d->at = (char *)c->v;
        d->end = d->at + size;
        if (d->next_size < CHUNK_MAX) d->next_size *= 2;
    }
    void *p = d->at;
    d->at += n;
    return p;
}

void json_free(json_doc *d)
{
    if (!d) return;
    for (chunk *c = d->chunks; c;) {
        chunk *next = c->next;
        free(c);
        c = next;
    }
    free(d->text);
    free(d);
}

/* ---- parser state ---- */

typedef struct {
    json *node, *last; /* the open container and its newest child */
} frame;

typedef struct {
    json_doc *d;
    char *base, *p, *end; /* the copy; *end is 0 */
    char *term;           /* end of a number whose terminating 0 must wait until *term was read */
    frame *stack;         /* [max_depth] */
    int depth, max_depth;
    size_t values, max_values;
    bool unique; /* json_limits.unique_keys */
    err *e;
} parser;

static int fail_at(parser *ps, const char *p, const char *what)
{
    if (p == ps->end)
        return err_set(ps->e, ERR_FORMAT, "unexpected end at byte %zu", (size_t)(p - ps->base));
    return err_set(ps->e, ERR_FORMAT, "%s at byte %zu", what, (size_t)(p - ps->base));
}

static int fail_memory(parser *ps)
{
    return err_set(ps->e, ERR_NOMEM, "out of memory reading JSON");
}

/* ---- member lookup ---- */

typedef struct {
    size_t mask;        /* slots - 1, a power of two minus one */
    const json *slot[]; /* [mask + 1] open addressing, NULL = free; at most half full */
} key_table;

static bool key_is(const json *j, const char *key, size_t n)
{
    return j->n_key == n && !memcmp(j->key, key, n);
}

/* The slot that holds key, or the free one where it belongs. */
static size_t table_slot(const key_table *t, const char *key, size_t n)
{
    size_t i = map_hash(key, n) & t->mask;
    while (t->slot[i] && !key_is(t->slot[i], key, n)) i = (i + 1) & t->mask;
    return i;
}

/* Of duplicate keys the last value wins, at the place of the first. */
static void take_value(json *first, const json *last)
{
    first->type = last->type;
    first->str = last->str;
    first->len = last->len;
    first->child = last->child;
    first->index = last->index;
}

static json *find_before(json *first, const json *stop)
{
    for (json *j = first; j != stop; j = (json *)(uintptr_t)j->next)
        if (key_is(j, stop->key, stop->n_key)) return j;
    return NULL;
}

/* Builds the index of a finished object and folds duplicate keys. */
static int close_object(parser *ps, json *o)
{
    key_table *t = NULL;
    if (o->len > LINEAR_MAX) {
        size_t slots = 64;
        while (slots < o->len * 2) slots *= 2;
        t = arena_take(ps->d, sizeof *t + slots * sizeof t->slot[0]);
        if (!t) return fail_memory(ps);
        t->mask = slots - 1;
        memset(t->slot, 0, slots * sizeof t->slot[0]);
    }
    json *first = (json *)(uintptr_t)o->child, *prev = NULL;
    for (json *j = first; j; j = (json *)(uintptr_t)j->next) {
        json *same;
        if (t) {
            size_t i = table_slot(t, j->key, j->n_key);
            same = (json *)(uintptr_t)t->slot[i];
            if (!same) t->slot[i] = j;
        } else {
            same = find_before(first, j);
        }
        if (!same) {
            prev = j;
            continue;
        }
        if (ps->unique)
            return err_set(ps->e, ERR_FORMAT,
                           "member '%.64s' stands twice in the object before byte %zu", j->key,
                           (size_t)(ps->p - ps->base));
        take_value(same, j);
        prev->next = j->next; /* a duplicate is never the first child */
        o->len--;
    }
    o->index = t;
    return 0;
}

static int close_array(parser *ps, json *a)
{
    if (a->len <= LINEAR_MAX) return 0;
    const json **v = arena_take(ps->d, a->len * sizeof *v);
    if (!v) return fail_memory(ps);
    size_t i = 0;
    for (const json *j = a->child; j; j = j->next) v[i++] = j;
    a->index = v;
    return 0;
}

/* ---- parser ---- */

static inline void skip_space(parser *ps)
{
    while (*ps->p == ' ' || *ps->p == '\n' || *ps->p == '\r' || *ps->p == '\t') ps->p++;
}

/* First byte from p on that is not plain string text: a quote, a backslash, a control byte (the
 * final 0 included) or a byte that begins no valid character. */
static char *scan_plain(char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    for (;;) {
        if (end - p >= 8) {
            /* The top bits of bytes that are < 0x20, '"', '\\' or >= 0x80.  Borrows can only mark
             * bytes above a marked one by mistake, so the lowest mark is right. */
            uint64_t w;
            memcpy(&w, p, 8);
            uint64_t quote = w ^ ones * '"', back = w ^ ones * '\\';
            uint64_t mark = ((w - ones * 0x20) | (quote - ones) | (back - ones) | w) & tops;
            if (!mark) {
                p += 8;
                continue;
            }
            p += __builtin_ctzll(mark) / 8;
        }
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == '"' || c == '\\') return p;
        int n = c < 0x80 ? 1 : utf8_valid_at(p, (size_t)(end - p));
        if (n <= 0) return p;
        p += n;
    }
}

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) { /* stops at the final 0 */
        char c = p[i];
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

/* Decodes the escape at ps->p ('\\') to *w; NUL and lone surrogates become U+FFFD. */
static int read_escape(parser *ps, char **w)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char *p = ps->p + 1;
    const char *hit = *p ? strchr(from, *p) : NULL;
    if (hit) {
        *(*w)++ = to[hit - from];
        ps->p = p + 1;
        return 0;
    }
    if (*p != 'u') return fail_at(ps, p, "invalid escape");
    int u = hex4(p + 1);
    if (u < 0) return fail_at(ps, p, "\\u needs four hex digits");
    p += 5;
    uint32_t cp = (uint32_t)u;
    if (u >= 0xD800 && u < 0xDC00 && p[0] == '\\' && p[1] == 'u') {
        int low = hex4(p + 2);
        if (low >= 0xDC00 && low < 0xE000) {
            cp = 0x10000 + (((uint32_t)u & 0x3FF) << 10 | ((uint32_t)low & 0x3FF));
            p += 6;
        }
    }
    if (!cp || (cp >= 0xD800 && cp < 0xE000)) cp = 0xFFFD;
    *w += utf8_encode(cp, *w);
    ps->p = p;
    return 0;
}

/* Decodes the string at ps->p (its opening quote) in place. */
static int read_string(parser *ps, const char **str, size_t *len)
{
    char *start = ++ps->p, *w = start;
    for (;;) {
        char *stop = scan_plain(ps->p, ps->end);
        size_t run = (size_t)(stop - ps->p);
        if (w != ps->p) memmove(w, ps->p, run);
        w += run;
        ps->p = stop;
        if (*stop == '"') break;
        if (*stop != '\\')
            return fail_at(ps, stop,
                           (unsigned char)*stop < 0x20 ? "control character in a string"
                                                       : "invalid UTF-8");
        int rc = read_escape(ps, &w);
        if (rc) return rc;
    }
    ps->p++;
    *w = 0;
    *str = start;
    *len = (size_t)(w - start);
    return 0;
}

static inline char *skip_digits(char *p)
{
    while (*p >= '0' && *p <= '9') p++;
    return p;
}

static int read_number(parser *ps, json *v)
{
    char *start = ps->p, *p = start;
    if (*p == '-') p++;
    char *digits = p;
    p = skip_digits(p);
    if (p == digits) return fail_at(ps, p, "a number needs a digit");
    if (*digits == '0' && p > digits + 1) return fail_at(ps, digits, "leading zero");
    /* 300 digits without an exponent cannot overflow a double (1.8e308). */
    bool may_overflow = p - digits > 300;
    if (*p == '.') {
        char *fraction = p + 1;
        p = skip_digits(fraction);
        if (p == fraction) return fail_at(ps, p, "a fraction needs a digit");
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '+' || *p == '-') p++;
        char *exponent = p;
        p = skip_digits(exponent);
        if (p == exponent) return fail_at(ps, p, "an exponent needs a digit");
        may_overflow = true;
    }
    if (may_overflow && isinf(strtod(start, NULL)))
        return fail_at(ps, start, "number too large for a double");
    v->type = JSON_NUMBER;
    v->str = start;
    v->len = (size_t)(p - start);
    ps->p = ps->term = p;
    return 0;
}

static int read_word(parser *ps, json *v, const char *word, json_type type)
{
    size_t n = strlen(word);
    if (strncmp(ps->p, word, n) != 0) return fail_at(ps, ps->p, "unknown word");
    ps->p += n;
    v->type = type;
    return 0;
}

/* Reads `"key" :` into the newest child of the open object. */
static int read_key(parser *ps, json *v)
{
    skip_space(ps);
    if (*ps->p != '"') return fail_at(ps, ps->p, "expected a member name in quotes");
    size_t n;
    int rc = read_string(ps, &v->key, &n);
    if (rc) return rc;
    v->n_key = (uint32_t)n; /* the text is shorter than 4 GiB */
    skip_space(ps);
    if (*ps->p != ':') return fail_at(ps, ps->p, "expected ':'");
    ps->p++;
    return 0;
}

static json *new_value(parser *ps)
{
    if (++ps->values > ps->max_values) {
        err_set(ps->e, ERR_LIMIT, "more than %zu values at byte %zu", ps->max_values,
                (size_t)(ps->p - ps->base));
        return NULL;
    }
    json *v = arena_take(ps->d, sizeof *v);
    if (!v) {
        fail_memory(ps);
        return NULL;
    }
    *v = (json){0};
    return v;
}

/* A new last child of the open container, its key read if that is an object. */
static int open_child(parser *ps, json **out)
{
    frame *f = &ps->stack[ps->depth - 1];
    json *v = *out = new_value(ps);
    if (!v) return ps->e ? ps->e->code : ERR_LIMIT;
    if (f->last) f->last->next = v;
    else f->node->child = v;
    f->last = v;
    f->node->len++;
    return f->node->type == JSON_OBJECT ? read_key(ps, v) : 0;
}

static int push(parser *ps, json *v)
{
    if (ps->depth == ps->max_depth)
        return err_set(ps->e, ERR_LIMIT, "nested deeper than %d levels at byte %zu", ps->max_depth,
                       (size_t)(ps->p - ps->base));
    v->type = *ps->p == '{' ? JSON_OBJECT : JSON_ARRAY;
    ps->p++;
    ps->stack[ps->depth++] = (frame){v, NULL};
    return 0;
}

/* Reads a scalar into v, or opens it as a container. */
static int read_value(parser *ps, json *v)
{
    skip_space(ps);
    switch (*ps->p) {
    case '{':
    case '[': return push(ps, v);
    case '"': v->type = JSON_STRING; return read_string(ps, &v->str, &v->len);
    case 't': return read_word(ps, v, "true", JSON_TRUE);
    case 'f': return read_word(ps, v, "false", JSON_FALSE);
    case 'n': return read_word(ps, v, "null", JSON_NULL);
    default:
        if (*ps->p == '-' || (*ps->p >= '0' && *ps->p <= '9')) return read_number(ps, v);
        return fail_at(ps, ps->p, "expected a value");
    }
}

/* After a value: closes containers until one goes on (*more) or the root is finished. */
static int after_value(parser *ps, bool *more)
{
    while (ps->depth) {
        frame *f = &ps->stack[ps->depth - 1];
        char close = f->node->type == JSON_OBJECT ? '}' : ']';
        skip_space(ps);
        char c = *ps->p;
        if (ps->term) *ps->term = 0;
        ps->term = NULL;
        if (c == ',' && f->last) {
            ps->p++;
            *more = true;
            return 0;
        }
        if (c != close) {
            if (!f->last) { /* just opened, and not empty */
                *more = true;
                return 0;
            }
            return fail_at(ps, ps->p, close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
        }
        ps->p++;
        int rc = close == '}' ? close_object(ps, f->node) : close_array(ps, f->node);
        if (rc) return rc;
        ps->depth--;
    }
    *more = false;
    return 0;
}

static int parse_text(parser *ps, const json **root)
{
    if (ps->end - ps->p >= 3 && !memcmp(ps->p, "\xEF\xBB\xBF", 3)) ps->p += 3;
    json *v = new_value(ps);
    if (!v) return ERR_NOMEM;
    *root = v;
    for (bool more = true; more;) {
        int rc = read_value(ps, v);
        if (!rc) rc = after_value(ps, &more);
        if (!rc && more) rc = open_child(ps, &v);
        if (rc) return rc;
    }
    skip_space(ps);
    if (ps->p != ps->end) return fail_at(ps, ps->p, "text after the value");
    if (ps->term) *ps->term = 0;
    return 0;
}

json_doc *json_parse(const char *text, size_t n, const json_limits *limits, const json **root,
                     err *e)
{
    *root = NULL;
    if (n >= UINT32_MAX) {
        err_set(e, ERR_LIMIT, "JSON text of 4 GiB or more at byte %zu", (size_t)UINT32_MAX);
        return NULL;
    }
    int depth = limits && limits->max_depth > 0 ? limits->max_depth : DEPTH_DEFAULT;
    if (depth > DEPTH_MAX) depth = DEPTH_MAX;
    err own = {0};
    parser ps = {.max_depth = depth, .unique = limits && limits->unique_keys, .e = e ? e : &own};
    ps.max_values = limits && limits->max_values ? limits->max_values : VALUES_DEFAULT;
    json_doc *d = ps.d = calloc(1, sizeof *d);
    if (!d) goto oom;
    d->next_size = n < CHUNK_MIN ? CHUNK_MIN : n < CHUNK_MAX ? n : CHUNK_MAX;
    d->text = malloc(n + 1);
    ps.stack = malloc((size_t)depth * sizeof *ps.stack);
    if (!d->text || !ps.stack) goto oom;
    if (n) memcpy(d->text, text, n);
    d->text[n] = 0;
    ps.base = ps.p = d->text;
    ps.end = d->text + n;
    if (parse_text(&ps, root)) goto fail;
    free(ps.stack);
    return d;
oom:
    fail_memory(&ps);
fail:
    *root = NULL;
    free(ps.stack);
    json_free(d);
    return NULL;
}

json_doc *json_read(const char *path, size_t max, const json_limits *limits, const json **root,
                    err *e)
{
    file_map m;
    *root = NULL;
    if (file_map_open(path, &m, e)) return NULL;
    json_doc *d = NULL;
    if (m.len > max) {
        err_set(e, ERR_LIMIT, "'%s' has %zu bytes, more than the %zu accepted", path, m.len, max);
    } else {
        d = json_parse((const char *)m.v, m.len, limits, root, e);
        if (!d) err_prefix(e, "cannot read '%s' as JSON", path);
    }
    file_unmap(&m);
    return d;
}

/* ---- reading ---- */

const json *json_get_n(const json *o, const char *key, size_t n)
{
    if (!json_is(o, JSON_OBJECT)) return NULL;
    if (o->index) {
        const key_table *t = o->index;
        return t->slot[table_slot(t, key, n)];
    }
    for (const json *j = o->child; j; j = j->next)
        if (key_is(j, key, n)) return j;
    return NULL;
}

const json *json_at(const json *a, size_t i)
{
    if (!json_is(a, JSON_ARRAY) || i >= a->len) return NULL;
    if (a->index) return ((const json *const *)a->index)[i];
    const json *j = a->child;
    while (i--) j = j->next;
    return j;
}
