/* sample_rig.h - steps of rows with every parameter of the sampler, and the specification with the
 * random number and top_p given, to judge an id that differs from ref's.  Tests only. */
#ifndef QUERN_TESTS_CUDA_SAMPLE_RIG_H
#define QUERN_TESTS_CUDA_SAMPLE_RIG_H

#include "kernels/rng.h"
#include "tests/cuda/op_rig.h"

#include <initializer_list>

static const double EDGE = 2e-6; /* of the whole weight: as sample_draw.cuh states */
enum { ROWS = 8, MAX_IDS = 64, MAX_OUT = 64 };

static inline float pick(uint64_t *s, std::initializer_list<float> from)
{
    return from.begin()[rnd_below(s, (int)from.size())];
}

static inline backend *open_sampler(void)
{
    backend *be = open_device();
    reserve_rows(be, MAX_OUT);
    return be;
}

/* ---- steps ------------------------------------------------------------------------------------
 */

/* Logits and parameters of some rows, with the arrays they point to. */
typedef struct {
    int n_rows;
    own logits;
    float *dev_logits;
    sample_row row[MAX_OUT];
    uint32_t *allow[ROWS];
    int32_t ban[ROWS][MAX_IDS], bias_id[ROWS][MAX_IDS], seen[ROWS][MAX_IDS], count[ROWS][MAX_IDS];
    float bias[ROWS][MAX_IDS];
} step;

static inline size_t logit_bytes(const step *t)
{
    return (size_t)t->n_rows * (size_t)t->logits.t.ld * sizeof(float);
}

static inline step *step_new(backend *be, int n_rows, int n_vocab, int cols)
{
    step *t = (step *)calloc(1, sizeof *t);
    t->n_rows = n_rows;
    t->logits = own_new(n_rows, cols);
    t->dev_logits = (float *)k_alloc(be, logit_bytes(t));
    ck_assert_ptr_nonnull(t->dev_logits);
    for (int r = 0; r < ROWS; r++)
        t->allow[r] = (uint32_t *)calloc((size_t)n_vocab / 32 + 1, sizeof(uint32_t));
    return t;
}
static inline void step_free(backend *be, step *t)
{
    k_free(be, t->dev_logits, logit_bytes(t));
    for (int r = 0; r < ROWS; r++) free(t->allow[r]);
    own_free(&t->logits);
    free(t);
}

/* A row that changes nothing. */
static inline sample_row neutral(int n)
{
    sample_row r = {};
    r.temperature = r.top_p = r.repetition = 1;
    r.n_vocab = n;
    r.n_top = r.forced = -1;
    return r;
}

/* Peaked, flat, coarse (many ties), rising, falling, constant, with -inf and NaN, two zeros. */
static inline void fill_logits(float *x, int n, int kind, uint64_t *s)
{
    for (int i = 0; i < n; i++) {
        float z = rnd_normal(s);
        switch (kind) {
        case 0: x[i] = 3 * z; break;
        case 1: x[i] = 0.01f * z; break;
        case 2: x[i] = rintf(2 * z); break;
        case 3: x[i] = 1e-3f * (float)i; break;
        case 4: x[i] = -1e-3f * (float)i; break;
        case 5: x[i] = 1.25f; break;
        case 6: x[i] = rnd_below(s, 3) ? -INFINITY : z; break;
        case 7: x[i] = rnd_below(s, 50) ? 2 * z : NAN; break;
        case 8: x[i] = i % 17 ? -0.0f : 0.0f; break;
        default: x[i] = (rnd_below(s, 200) ? 2 : 12) * z; break;
        }
    }
}

static inline int distinct_ids(int32_t *ids, int want, int n, uint64_t *s)
{
    int m = 0;
    for (int i = 0; i < want && m < n; i++) {
        int id = rnd_below(s, n), k = 0;
        while (k < m && ids[k] != id) k++;
        if (k == m) ids[m++] = id;
    }
    return m;
}

static inline void fill_allow(step *t, int r, int n, uint64_t *s)
{
    int density = rnd_below(s, 4) ? 2 : n; /* half of the ids, or about one */
    memset(t->allow[r], 0, ((size_t)n + 31) / 32 * sizeof(uint32_t));
    for (int i = 0; i < n; i++)
        if (rnd_below(s, density) == 0) t->allow[r][i / 32] |= 1u << i % 32;
    t->allow[r][(n - 1) / 32] |= (uint32_t)rnd(s) & (n % 32 ? ~0u << n % 32 : 0); /* no ids */
    t->row[r].allow = t->allow[r];
}

static inline void fill_row(step *t, int r, int n, uint64_t *s)
{
    sample_row *p = &t->row[r];
    *p = neutral(n);
    p->temperature = pick(s, {0, 0.2f, 0.7f, 1, 1, 2, 1e-3f});
    p->top_k = (int)pick(s, {0, 0, -1, 1, 5, 20, 20, 200, 600, 3000, 100000});
    p->top_p = pick(s, {1, 1, 0.95f, 0.5f, 0.999f, 0});
    p->min_p = pick(s, {0, 0, 0, 0.05f, 0.5f, 1, 1.5f});
    p->repetition = pick(s, {1, 1, 1.05f, 0.8f, 3});
    p->presence = pick(s, {0, 0, 0.5f, -1});
    p->frequency = pick(s, {0, 0, 0.3f, -0.2f});
    p->seed = rnd(s);
    p->choice = rnd(s) % 4;
    p->position = rnd(s) % 5000;
    p->n_top = (int)pick(s, {-1, -1, 0, 1, 5, 20});
    p->forced = rnd_below(s, 12) ? -1 : rnd_below(s, n);
    p->ban = t->ban[r];
    p->bias_id = t->bias_id[r];
    p->bias = t->bias[r];
    p->seen_id = t->seen[r];
    p->gen_count = t->count[r];
    if (rnd_below(s, 3) == 0) p->n_ban = distinct_ids(t->ban[r], rnd_below(s, MAX_IDS), n, s);
    if (rnd_below(s, 3) == 0) { /* with repetitions */
        p->n_bias = rnd_below(s, MAX_IDS);
        for (int i = 0; i < p->n_bias; i++) t->bias_id[r][i] = rnd_below(s, n < 40 ? n : 40);
    }
    if (rnd_below(s, 3) == 0) p->n_seen = distinct_ids(t->seen[r], rnd_below(s, MAX_IDS), n, s);
    for (int i = 0; i < MAX_IDS; i++) {
        t->bias[r][i] = pick(s, {-100, -101, 5, -3, 0.25f, 100});
        t->count[r][i] = rnd_below(s, 4);
    }
    if (rnd_below(s, 4) == 0) fill_allow(t, r, n, s);
}

static inline void step_fill(step *t, int n_vocab, uint64_t *s)
{
    for (int r = 0; r < ROWS; r++) {
        float *x = tensor_row(t->logits.t, r);
        fill_logits(x, n_vocab, rnd_below(s, 10), s);
        for (int i = n_vocab; i < t->logits.t.cols; i++) x[i] = 1e30f; /* padding must not win */
        fill_row(t, r, n_vocab, s);
    }
}

static inline void check_sync(backend *be)
{
    err e = {};
    ck_assert_msg(k_sync(be, &e) == 0, "%s", e.msg);
}

/* Uploads the logits, which the draw may change, and queues. */
static inline void queue_step(backend *be, step *t)
{
    tensor on_device = t->logits.t;
    on_device.ptr = t->dev_logits;
    k_upload(be, t->dev_logits, t->logits.mem, logit_bytes(t));
    k_sample(be, on_device, t->row, t->n_rows);
}
static inline void run_step(backend *be, step *t)
{
    queue_step(be, t);
    check_sync(be);
}

/* ---- the specification with the random number and top_p given ---------------------------------
 */

typedef struct {
    double score, weight;
    int id;
} candidate;

static inline int by_score(const void *a, const void *b)
{
    const candidate *x = (const candidate *)a, *y = (const candidate *)b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}
static inline int by_id(const void *a, const void *b)
{
    const candidate *x = (const candidate *)a, *y = (const candidate *)b;
    return (x->id > y->id) - (x->id < y->id);
}

/* The candidates left of c[n] (score and id filled, the best finite), by id and weighed. */
static inline int keep(const sample_row *s, double top_p, candidate *c, int n)
{
    double total = 0, sum = 0;
    qsort(c, (size_t)n, sizeof *c, by_score);
    for (int i = 0; i < n; i++)
        c[i].weight = exp((c[i].score - c[0].score) / (double)s->temperature);
    if (s->top_k > 0 && n > s->top_k) n = s->top_k;
    for (int i = 0; i < n; i++) total += c[i].weight;
    int m = 0;
    while (top_p < 1 && m < n && (m == 0 || sum < top_p * total)) sum += c[m++].weight;
    if (m) n = m;
    for (m = 1; m < n && c[m].weight >= (double)s->min_p * c[0].weight;) m++;
    qsort(c, (size_t)m, sizeof *c, by_id);
    return m;
}

/* Scores of the ids that may be drawn, into c[n_vocab]. */
static inline int scores_of(const sample_row *s, const float *logits, candidate *c)
{
    int n = s->n_vocab, m = 0;
    for (int lifted = 0; lifted < 3 && m == 0; lifted++)
        for (int i = 0; i < n; i++) {
            bool on = lifted == 2 || !s->allow || (s->allow[i / 32] >> (i % 32) & 1);
            for (int k = 0; k < s->n_ban && !lifted; k++) on &= s->ban[k] != i;
            for (int k = 0; k < s->n_bias && !lifted; k++)
                on &= s->bias_id[k] != i || s->bias[k] > -100;
            if (!on) continue;
            float v = logits[i] == logits[i] ? logits[i] : -INFINITY;
            for (int k = 0; k < s->n_bias; k++)
                if (s->bias_id[k] == i && s->bias[k] > -100) v += s->bias[k];
            for (int k = 0; k < s->n_seen; k++)
                if (s->seen_id[k] == i) {
                    if (s->repetition != 1) v = v < 0 ? v * s->repetition : v / s->repetition;
                    float times = s->frequency * (float)s->gen_count[k];
                    if (s->gen_count[k] > 0) v -= s->presence + times;
                }
            c[m++] = {v, 0, i};
        }
    return m;
}

/* Whether `id` is drawn with some u and top_p within EDGE of those given. */
static inline bool is_near(const sample_row *s, const float *logits, int id)
{
    candidate *c = (candidate *)malloc((size_t)s->n_vocab * sizeof *c);
    double u = rng_draw(s->seed, s->choice, s->position);
    bool found = false;
    for (int dp = -1; dp <= 1 && !found; dp++) {
        double p = s->top_p < 1 ? (double)s->top_p + dp * EDGE : 1, total = 0, sum = 0;
        int n = keep(s, p, c, scores_of(s, logits, c));
        for (int i = 0; i < n; i++) total += c[i].weight;
        for (int i = 0; i < n; i++) {
            double from = sum / total - EDGE, to = (sum += c[i].weight) / total + EDGE;
            found |= c[i].id == id && u >= from && u < to;
        }
    }
    free(c);
    return found;
}

#endif
