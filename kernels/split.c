/* split.c - see split.h.  Owns the sampler's work space; decides which rows are needed whole;
 * merges what the ranks found.  Refuses: what memory refuses.  Thread: as a backend. */
#include "kernels/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct split_sampler {
    backend *be;
    int world, rank, max_rows;
    int32_t start[COMM_MAX_RANKS + 1];
    bool by_best;          /* rows may be decided by their best */
    tensor whole;          /* rank 0: [max_rows, vocab] in the backend's memory */
    split_best *own, *all; /* [max_rows], [world][n] */
    split_point *at;       /* [max_rows] */
    double *mass, *masses; /* [max_rows][mass_ld], [world][n][mass_ld] */
    int mass_ld;           /* a count, then sums of blocks */
    bool *is_whole;        /* [max_rows] */
};

/* ---- opening --------------------------------------------------------------------------------- */

static int widest(const int32_t *start, int world)
{
    int w = 0;
    for (int r = 0; r < world; r++)
        if (start[r + 1] - start[r] > w) w = start[r + 1] - start[r];
    return w;
}

static bool cut_at_blocks(const int32_t *start, int world)
{
    for (int r = 1; r < world; r++)
        if (start[r] % SPLIT_BLOCK) return false;
    return true;
}

static size_t whole_bytes(int vocab, int max_rows)
{
    return ((size_t)vocab + 15) / 16 * 16 * sizeof(float) * (size_t)max_rows;
}

size_t split_bytes(int world, int rank, int vocab, int max_rows)
{
    return world > 1 && rank == 0 ? whole_bytes(vocab, max_rows) : 0;
}

split_sampler *split_new(backend *be, const int32_t *start, int max_rows, err *e)
{
    split_sampler *s = calloc(1, sizeof *s);
    if (!s) goto no_memory;
    size_t n = (size_t)max_rows, world = (size_t)comm_world(be->comm);
    *s = (split_sampler){
        .be = be, .world = (int)world, .rank = comm_rank(be->comm), .max_rows = max_rows};
    memcpy(s->start, start, (world + 1) * sizeof *start);
    s->by_best = be->op->split_best && be->op->split_mass && cut_at_blocks(start, s->world);
    s->mass_ld = 1 + (widest(start, s->world) + SPLIT_BLOCK - 1) / SPLIT_BLOCK;
    size_t ld = (size_t)s->mass_ld;
    s->is_whole = calloc(n, sizeof *s->is_whole);
    s->at = calloc(n, sizeof *s->at);
    s->own = calloc(s->by_best ? n : 1, sizeof *s->own);
    s->all = calloc(s->by_best ? n * world : 1, sizeof *s->all);
    s->mass = calloc(s->by_best ? n * ld : 1, sizeof *s->mass);
    s->masses = calloc(s->by_best ? n * ld * world : 1, sizeof *s->masses);
    if (s->rank == 0) {
        int vocab = start[world], room = (vocab + 15) / 16 * 16;
        s->whole =
            (tensor){k_alloc(be, whole_bytes(vocab, max_rows)), max_rows, vocab, room, ACT_F32};
    }
    if (s->is_whole && s->at && s->own && s->all && s->mass && s->masses &&
        (s->rank || s->whole.ptr))
        return s;
no_memory:
    split_free(s);
    err_set(e, ERR_NOMEM, "out of memory for %d rows of logits", max_rows);
    return NULL;
}

void split_free(split_sampler *s)
{
    if (!s) return;
    k_free(s->be, s->whole.ptr, whole_bytes(s->whole.cols, s->max_rows));
    free(s->is_whole);
    free(s->at);
    free(s->own);
    free(s->all);
    free(s->mass);
    free(s->masses);
    free(s);
}

/* ---- what a row needs ------------------------------------------------------------------------ */

split_ask split_ask_of(const sample_row *r)
{
    split_ask a = {.n_vocab = r->n_vocab, .n_top = r->n_top, .forced = r->forced, .n_best = 1};
    bool penalties = r->n_seen && (r->repetition != 1 || r->presence != 0 || r->frequency != 0);
    if (r->forced < 0) {
        if (r->temperature > 0) a.n_best = r->top_k;
        if (r->allow || r->n_ban || r->n_bias || penalties) a.n_best = 0;
        if (a.n_best < 1 || a.n_best > SPLIT_BEST_MAX) {
            a.n_best = 0;
            return a;
        }
    }
    if (r->n_top > a.n_best) a.n_best = r->n_top;
    return a;
}

static bool wants_mass(const split_ask *a)
{
    return a->n_top >= 0;
}

/* ---- merging --------------------------------------------------------------------------------- */

typedef struct {
    float logit;
    int32_t id;
} candidate;

static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* What rank r found in row i of n. */
static const split_best *found(const split_sampler *s, int r, int i, int n)
{
    return &s->all[(size_t)r * (size_t)n + (size_t)i];
}

/* The ask.n_best best of all, best first (fewer if there are not so many); returns how many. */
static int merge(const split_sampler *s, const split_ask *ask, int i, int n, candidate *best)
{
    candidate c[2 * SPLIT_BEST_MAX] = {{0, 0}};
    int m = 0;
    for (int r = 0; r < s->world; r++) {
        const split_best *b = found(s, r, i, n);
        for (int k = 0; k < b->n; k++) c[m++] = (candidate){b->logit[k], b->id[k]};
        qsort(c, (size_t)m, sizeof *c, by_logit);
        if (m > ask->n_best) m = ask->n_best;
    }
    memcpy(best, c, (size_t)m * sizeof *c);
    return m;
}

/* Row i: enough candidates, and where the sums go from; else it is needed whole after all. */
static void weigh_up(split_sampler *s, const split_ask *ask, int i, int n)
{
    int m = 0;
    float top = -INFINITY, forced = -INFINITY;
    for (int r = 0; r < s->world; r++) {
        const split_best *b = found(s, r, i, n);
        m += b->n;
        for (int k = 0; k < b->n; k++) top = fmaxf(top, b->logit[k]);
        forced = fmaxf(forced, b->forced);
    }
    s->is_whole[i] = m < (ask->n_best < ask->n_vocab ? ask->n_best : ask->n_vocab);
    s->at[i] = (split_point){top, ask->forced, forced};
}

/* Rows that their best decide: every rank's best, then the sums.  False after a fault. */
static bool question(split_sampler *s, tensor part, const split_ask *ask, int n)
{
    backend *be = s->be;
    comm *c = be->comm;
    err e = {0};
    size_t rows = (size_t)n, ld = (size_t)s->mass_ld;
    int first = s->start[s->rank];
    be->op->split_best(be, part, first, ask, n, s->own);
    int rc = c->op->exchange(c, s->all, s->own, rows * sizeof *s->own, &e);
    bool masses = false;
    for (int i = 0; !rc && i < n; i++) {
        if (!s->is_whole[i]) weigh_up(s, &ask[i], i, n);
        masses |= !s->is_whole[i] && wants_mass(&ask[i]);
    }
    if (!rc && masses) {
        be->op->split_mass(be, part, first, ask, s->at, n, s->mass, s->mass_ld);
        rc = c->op->exchange(c, s->masses, s->mass, rows * ld * sizeof *s->mass, &e);
    }
    if (rc) k_fault(be, "sample", "%s", e.msg);
    return !rc;
}

/* ---- answering, on rank 0 -------------------------------------------------------------------- */

/* Draws from the m candidates best[], rising by id for the sampler. */
static int32_t draw(backend *be, const sample_row *row, const candidate *best, int m)
{
    candidate c[SPLIT_BEST_MAX];
    float logit[SPLIT_BEST_MAX];
    memcpy(c, best, (size_t)m * sizeof *c);
    qsort(c, (size_t)m, sizeof *c, by_id);
    for (int k = 0; k < m; k++) logit[k] = c[k].logit;
    sample_row r = *row;
    r.n_vocab = m;
    r.n_seen = 0;
    r.n_top = -1;
    be->op->sample(be, (tensor){logit, 1, m, SPLIT_BEST_MAX, ACT_F32}, &r, 1);
    return c[r.id].id;
}

/* Logprobs as the sampler reports them: see ref_sample.c. */
static void report(const split_sampler *s, sample_row *row, const candidate *best, int m, int i,
                   int n)
{
    double sum = 0;
    int before = 0;
    for (int r = 0; r < s->world; r++) {
        const double *mass = s->masses + ((size_t)r * (size_t)n + (size_t)i) * (size_t)s->mass_ld;
        int width = s->start[r + 1] - s->start[r];
        before += (int)mass[0];
        for (int k = 0; k < (width + SPLIT_BLOCK - 1) / SPLIT_BLOCK; k++) sum += mass[1 + k];
    }
    double norm = (double)s->at[i].top + (sum != 0 ? log(sum) : 0); /* the best counts 1 */
    float logit = s->at[i].logit;
    row->rank = before + 1;
    for (int k = 0; row->forced < 0 && k < m; k++)
        if (best[k].id == row->id) {
            row->rank = k + 1;
            logit = best[k].logit;
        }
    row->logprob = (float)((double)logit - norm);
    for (int k = 0; k < row->n_top; k++) {
        row->top_id[k] = k < m ? best[k].id : -1;
        row->top_logprob[k] = k < m ? (float)((double)best[k].logit - norm) : -INFINITY;
    }
}

static void answer(const split_sampler *s, const split_ask *ask, sample_row *row, int i, int n)
{
    candidate best[SPLIT_BEST_MAX];
    int m = merge(s, ask, i, n, best);
    row->id = row->forced >= 0 ? row->forced : draw(s->be, row, best, m);
    row->logprob = 0;
    row->rank = 0;
    if (wants_mass(ask)) report(s, row, best, m, i, n);
}

/* Rows [i, i + n) to rank 0, which draws from them. */
static void run_whole(split_sampler *s, tensor part, sample_row *rows, int i, int n)
{
    backend *be = s->be;
    size_t bytes[COMM_MAX_RANKS];
    for (int r = 0; r < s->world; r++)
        bytes[r] = (size_t)(s->start[r + 1] - s->start[r]) * sizeof(float);
    tensor to = s->whole;
    if (to.ptr) to.ptr = (float *)to.ptr + (size_t)i * (size_t)to.ld;
    to.rows = n;
    const float *from = (const float *)part.ptr + (size_t)i * (size_t)part.ld;
    be->comm->op->gather_rows(be->comm, be, to.ptr, (size_t)to.ld * sizeof(float), from,
                              (size_t)part.ld * sizeof(float), bytes, n);
    if (s->rank == 0 && !be->fault[0]) be->op->sample(be, to, rows + i, n);
}

void split_sample(split_sampler *s, tensor part, const split_ask *ask, sample_row *rows, int n)
{
    bool any = false;
    for (int i = 0; i < n; i++) {
        s->is_whole[i] = !s->by_best || ask[i].n_best == 0;
        any |= !s->is_whole[i];
    }
    if (any && !question(s, part, ask, n)) return;
    for (int i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && s->is_whole[j] == s->is_whole[i];) j++;
        if (s->is_whole[i]) run_whole(s, part, rows, i, j - i);
        else
            for (int k = i; s->rank == 0 && k < j; k++) answer(s, &ask[k], &rows[k], k, n);
    }
}
